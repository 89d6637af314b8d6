"""Who makes the links of a run what the spec says: the ether, or the kernel's netem.

Owns the choice's consequences and nothing else: how a network is built for one or the other, and the places
in a run where the two are asked differently. What both are told alike (`start`, `cut`, `mend`, `reshape`,
`capture`, `kill`) has one name in both.
"""

from __future__ import annotations

from typing import Literal

from underlay.emulation import netem_verification, verification
from underlay.emulation.blueprint import build_network, kernel_counters, ports, probe_points
from underlay.emulation.ether import Ether
from underlay.emulation.layout import Layout
from underlay.emulation.links import TapLink
from underlay.emulation.net import Network
from underlay.emulation.netem import Netem, NetemLink
from underlay.emulation.reactor import Reactor
from underlay.emulation.verification import LinkVerification, RunVerification
from underlay.network import Network as Graph
from underlay.plan import Plan

Enforcer = Ether | Netem
EnforcerName = Literal["ether", "netem"]


def build_for(enforcer: EnforcerName, graph: Graph) -> Network:
    """A network whose links that enforcer can have."""
    return build_network(graph, NetemLink if enforcer == "netem" else TapLink)


def enforce(
    enforcer: EnforcerName, plan: Plan, network: Network, reactor: Reactor, layout: Layout
) -> Enforcer:
    """Begin: links behave as planned from now on."""
    if enforcer == "netem":
        return Netem(network, reactor, layout.ether_shard, usage_interval_s=plan.usage_interval_s)
    return Ether.fork(
        plan.network,
        ports(network),
        plan.seed,
        layout.ether_shard,
        usage_interval_s=plan.usage_interval_s,
        frame_class=plan.frame_class,
    )


def verify_links(enforcer: Enforcer, graph: Graph, network: Network) -> LinkVerification:
    """Probe all links, before the run."""
    if isinstance(enforcer, Netem):
        return netem_verification.verify_links(enforcer, graph)
    return verification.verify_links(enforcer, graph, probe_points(network))


def conclude(enforcer: Enforcer, network: Network) -> RunVerification:
    """Let nothing pass any more, and look at all frames of the run."""
    if isinstance(enforcer, Netem):
        enforcer.stop()
        return netem_verification.verify_run(enforcer.directions, enforcer.kernel_counters())
    totals = enforcer.stop()
    return verification.verify_run(totals, kernel_counters(network))
