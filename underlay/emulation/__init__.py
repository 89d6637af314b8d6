"""The Mininet fabric: real namespaces, real kernel TCP and UDP, real programs, on any Linux with TUN/TAP.

Bottom up: `rtnetlink` packs what the kernel's routing socket understands, `namespace` holds a network
namespace by its descriptor, `tap` opens the ends of emulated links; `hosts`, `links` and `net` are Mininet's
own classes built on those; `unnumbered` gives addresses and routes to networks built from a plan.

A run: `fabric` is the runner's side; it starts the `supervisor`, which forks a process for each `device`,
whose `driver` runs the nodes on real sockets. `machine` is a device as the supervisor sees it, `medium` the
network under faults, `control` the way in from outside, and `cleanup` what is removed however a run ends.
"""
