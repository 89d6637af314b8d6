"""The Mininet fabric: real namespaces, real kernel TCP and UDP, real programs, on any Linux with TUN/TAP.

Bottom up: `rtnetlink` packs what the kernel's routing socket understands, `namespace` holds a network
namespace by its descriptor, `tap` opens the ends of emulated links; `hosts`, `links` and `net` are Mininet's
own classes built on those; `unnumbered` gives addresses and routes to networks built from a plan.
"""
