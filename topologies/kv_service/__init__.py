"""The key-value store as a service of this machine: served, used, looked at and changed.

Each command of `birdhouse kv` is one function here.

>>> from pathlib import Path
>>> from topologies import kv_service
>>> kv_service.serve(Path("birdhouse-kv"), kind="paxos")                   # doctest: +SKIP
>>> kv_service.put(Path("birdhouse-kv"), b"cam3", b"21.5")                 # doctest: +SKIP
>>> kv_service.status({"store1": "127.27.89.1"}).slots                     # doctest: +SKIP
16384
"""

from kv.client.outside import OutcomeUnknown, StoreFailed
from topologies.kv_service.changes import join, leave, move, replace
from topologies.kv_service.data import delete, get, put, range_, scan
from topologies.kv_service.reach import Where
from topologies.kv_service.serving import serve
from topologies.kv_service.status import GroupStatus, ReplicaStatus, StoreStatus, status

__all__ = [
    "GroupStatus",
    "OutcomeUnknown",
    "ReplicaStatus",
    "StoreFailed",
    "StoreStatus",
    "Where",
    "delete",
    "get",
    "join",
    "leave",
    "move",
    "put",
    "range_",
    "replace",
    "scan",
    "serve",
    "status",
]
