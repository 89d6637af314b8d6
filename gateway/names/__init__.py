"""Names in the emulated network: a DNS server, and how it learns who is there.

`messages` and `registry` hold what devices announce, for as long as their leases run; `zone` answers DNS
messages from that, and nothing else; `node` has the two nodes, `server` the sockets, `plan` puts them on a
run's devices.
"""
