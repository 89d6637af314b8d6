"""The store's own client: exactly-once by sessions, finds leaders, follows redirections, knows what it does
not know.

`client` is the core, for any `Node` and for the shell in `outside`; `directory` says where to ask.
"""

from kv.client.client import Client, Reply, Surroundings
from kv.client.directory import Directory, Sharded, Static
from kv.client.patience import Patience

__all__ = ["Client", "Directory", "Patience", "Reply", "Sharded", "Static", "Surroundings"]
