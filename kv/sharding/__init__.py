"""The sharded service: many groups, each with some of the slots, and a controller that says who has which.

`config` is the map as a value and the arithmetic of balancing; `controller` is the replicated machine that
numbers the maps; `machine` is a group's key-value machine that knows what is its own; `moves` is how slots go
from group to group; `server` puts them into a node. docs/kv-sharding.md tells why it is safe.
"""
