"""The room of the storage tier: a replicated, sharded key-value store built from ``underlay`` nodes.

Three stages, each a service of its own: primary/backup, multi-Paxos, sharded Paxos. `kv.replication` is the
picture: a `Server` talks to clients, a `Replication` makes an order of operations, a `Machine` executes them.

The store may import ``underlay`` only. It does not know what it stores, nor who asks for it: neither ``edge``
nor ``gateway`` is visible from here.
"""
