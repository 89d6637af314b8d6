"""What any node stands on: the node contract, links, faults, plans, the trace, and the two fabrics.

The modules of this package are pure and know nothing of MQTT, CoAP, gossip or storage protocols. The two
subpackages give them life: `underlay.simulation` in virtual time, `underlay.emulation` on Mininet.
"""
