"""The room between the birdhouses and the storage: takes observations in, keeps them, gives answers out.

`gateway.gateway` is the node that acknowledges; `gateway.messages` is what it and its doors say to each
other. A door is a binding of another protocol. docs/gateway.md says what is promised to whom.

The gateway may import ``edge``, ``kv`` and ``underlay``. It never imports ``topologies``: an experiment
starts a gateway and speaks to it, not the other way round.
"""
