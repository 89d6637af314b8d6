"""The room between the birdhouses and the storage: a server that takes observations in and gives answers out.

It will hold the ingest of MQTT, CoAP and HTTP, the routing of observations to a storage tier, the names by
which devices are found, the jobs that aggregate what was stored, and the interfaces for people and programs.
It is empty so far: until the storage tier exists, a run's observations end in the sink of ``edge.sink``.

The gateway may import ``edge``, ``kv`` and ``underlay``. It never imports ``topologies``: an experiment
starts a gateway and speaks to it, not the other way round.
"""
