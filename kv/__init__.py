"""The room of the storage tier: a replicated, sharded key-value store built from ``underlay`` nodes.

It will hold the store's state machines, the client that others use, and the way a shard moves. It is empty so
far: a run's observations end in the sink of ``edge.sink``.

The store may import ``underlay`` only. It does not know what it stores, nor who asks for it: neither ``edge``
nor ``gateway`` is visible from here.
"""
