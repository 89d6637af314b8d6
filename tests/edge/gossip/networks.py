"""Small gossiping networks for tests: build, broadcast, and see who has what."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from functools import partial
from itertools import pairwise

from edge.gossip import GossipConfig, GossipPeer
from edge.observation import Observation, ObservationId, Observed
from underlay.faults import AnyFault
from underlay.link import LinkSpec
from underlay.network import Channel, Network
from underlay.plan import DevicePlan, NodePlan, Plan
from underlay.simulation import World, plan_of
from underlay.simulation.scenario import Edge
from underlay.trace import Record

WIRE = LinkSpec(rate_kbps=1000.0, delay_ms=10.0)
RADIO = LinkSpec(
    rate_kbps=120.0,
    delay_ms=6.0,
    jitter_ms=2.0,
    loss_ratio=0.01,
    mtu_bytes=96,
    overhead_bytes=36,
    queue_bytes=8000,
)
"""802.15.4, as in the profiles."""
WIFI_EDGE = LinkSpec(rate_kbps=1500.0, delay_ms=20.0, jitter_ms=18.0, loss_ratio=0.1, burst_frames=6.0)


class Town:
    """A running network in which every device gossips with all its neighbours."""

    def __init__(
        self,
        edges: Iterable[Edge] = (),
        *,
        link: LinkSpec = WIRE,
        channels: Sequence[Channel] = (),
        faults: Sequence[tuple[float, AnyFault]] = (),
        seed: int = 0,
        **knobs: int | float,
    ) -> None:
        edges = list(edges)
        names = [name for edge in edges for name in edge[:2]] + [m for c in channels for m in c.members]
        bare = plan_of(
            {name: {} for name in names}, edges, link=link, channels=channels, faults=faults, seed=seed
        )
        plan = Plan(
            seed=seed,
            duration_s=1e9,
            network=bare.network,
            devices={
                device: DevicePlan((NodePlan("gossip", partial(GossipPeer, config), 7000),))
                for device, config in configs(bare.network, **knobs).items()
            },
            faults=bare.faults,
            route_convergence_s=None,
        )
        self.world = World(plan, check_codec=True)
        self.devices = tuple(plan.devices)
        self.made: dict[str, float] = {}
        self._sequence: Counter[str] = Counter()

    def tell(self, device: str, payload: bytes = b"21.5 C") -> str:
        """`device` observes something now; the observation's id."""
        key = ObservationId(device, self._sequence[device])
        self._sequence[device] += 1
        self.made[str(key)] = self.world.now
        observation = Observation(key, "temperature", 0.0, self.world.now, payload)
        self.world.inject(f"{device}/gossip", Observed(observation))
        return str(key)

    def run(self, seconds: float) -> None:
        """Let time pass."""
        self.world.run_until(self.world.now + seconds)

    def peer(self, device: str) -> GossipPeer:
        """The node of a device that is up."""
        node = self.world.node(f"{device}/gossip")
        assert isinstance(node, GossipPeer)
        return node

    def hashes(self) -> set[int]:
        """Of what each device that is up holds: one where all hold the same."""
        return {
            endpoint.live.node.holdings.hash  # type: ignore[attr-defined]
            for endpoint in self.world.endpoints.values()
            if endpoint.live is not None
        }

    def delivered(self) -> dict[str, dict[str, float]]:
        """id -> device -> when it was first delivered there."""
        found: dict[str, dict[str, float]] = {}
        for record in self.records("delivered"):
            found.setdefault(record["id"], {}).setdefault(record["device"], record["t"])
        return found

    def late(self, deadline_s: float) -> list[tuple[str, str]]:
        """(observation, device) that took longer, or did not arrive at all."""
        delivered = self.delivered()
        return [
            (key, device)
            for key, made_s in self.made.items()
            for device in self.devices
            if device != key.partition(":")[0]
            and delivered.get(key, {}).get(device, float("inf")) > made_s + deadline_s
        ]

    def records(self, event: str) -> list[Record]:
        """The trace's records of one event."""
        return [record for record in self.world.records() if record["event"] == event]

    def sent(self) -> Counter[str]:
        """Messages handed to the network so far, by type, up to the last full second."""
        count: Counter[str] = Counter()
        for record in self.records("messages-sent"):
            count[record["message"]] += record["count"]
        return count


def configs(network: Network, **knobs: int | float) -> dict[str, GossipConfig]:
    """Each device's configuration: neighbours by link, and those that only a channel joins."""
    linked = {
        device: {link.other(device) for link in network.links if device in (link.a, link.b)}
        for device in network.neighbours()
    }
    return {
        device: GossipConfig(peers, frozenset(peers) - linked[device], **knobs)  # type: ignore[arg-type]
        for device, peers in network.neighbours().items()
    }


def line(*names: str) -> list[Edge]:
    """Each linked to the next."""
    return list(pairwise(names))
