"""Large values, stored apart from the log by the hash of their content.

`Shelf` is one replica's objects on its disk, `Objects` what replicas do so that an object is on a majority of
disks before the log refers to it, and in the end on all of them.
"""

from kv.objects.messages import OBJECT_MESSAGES, Fetch, Keep, Kept
from kv.objects.objects import Objects
from kv.objects.shelf import OBJECT_BYTES_MAX, Shelf

__all__ = ["OBJECT_BYTES_MAX", "OBJECT_MESSAGES", "Fetch", "Keep", "Kept", "Objects", "Shelf"]
