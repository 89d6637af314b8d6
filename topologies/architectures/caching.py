"""Caching: birdhouses serve what they observe over CoAP, and caches stand between them and who wants it.

Owns who asks whom: for every birdhouse a tree of caches towards it, made of the routes of the healthy
network, with the next best caches to fall back on. Every parent is nearer to the birdhouse than its child, so
no request can go in circles whatever falls back on what.
"""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from math import ceil

from edge.caching.collector import CollectorConfig
from edge.caching.node import NAME, Caching, CachingConfig
from edge.caching.origin import OriginConfig
from edge.caching.proxy import ProxyConfig
from edge.coap.frames import carries_content
from edge.coap.messages import ENDPOINT, PORT, Tuning
from edge.coap.model import EMPTY_ACK_DELAY_S, ModelEndpoint
from edge.sensor import SensorConfig
from topologies.architectures import Deployment
from topologies.architectures.options import CachingOptions
from topologies.experiment import Experiment
from underlay.link import LinkSpec
from underlay.network import Network
from underlay.plan import Binding, BindingPlan, DevicePlan
from underlay.routes import Router, hop_weight

FALLBACKS_MAX = 2
"""Caches that a device turns to before it asks the birdhouse itself, beside the first."""
CLIENT_BUDGET_BYTES = 64_000
"""Of a device that asks for itself only: what it needs to validate."""
ACK_TIMEOUT_S_MIN = 0.2
PROBE_ACK_TIMEOUTS = 5.0
PROBE_S_MIN = 1.0
PATIENCE_ACK_TIMEOUTS = 20.0
PATIENCE_S_MIN = 10.0
CONFIRM_INTERVAL_S = 5.0
MAX_RETRANSMIT = 3
"""One less than RFC 7252's: whoever gives up earlier asks another cache earlier."""
FRESH_PERIODS = 2.0
FRESH_S_MAX = 10.0
"""Max-Age is two periods of the sensor, so that one observation may be late, and not much longer for slow
ones: it is also how long a silent cache goes unnoticed."""
_REQUEST_BYTES, _BLOCK_BYTES = 100, 1150


def deploy(experiment: Experiment) -> Deployment:
    """A node and an endpoint on every source, cache and subscriber."""
    options = experiment.options
    assert isinstance(options, CachingOptions)
    caches = _caches(experiment, options)
    ways = Ways(experiment.topology.network, caches)
    parents = {
        device: {source: ways.parents(device, source) for source in experiment.sources if source != device}
        for device in experiment.topology.roles
        if device in caches or device in experiment.subscribers
    }
    tuning = Tuning(
        _ack_timeout_s(ways, parents), max_retransmit=MAX_RETRANSMIT, confirm_interval_s=CONFIRM_INTERVAL_S
    )
    endpoint = BindingPlan(ENDPOINT, partial(ModelEndpoint, NAME), partial(_aiocoap, NAME), PORT)
    devices = {}
    for device in experiment.topology.roles:
        sensors = experiment.sources.get(device)
        if not sensors and device not in parents:
            continue
        config = CachingConfig(
            proxy=ProxyConfig(
                parents=parents.get(device, {}),
                serves=device in caches,
                budget_bytes=options.budget_bytes if device in caches else CLIENT_BUDGET_BYTES,
                stale_on_error=options.stale_on_error,
                tuning=tuning,
                probe_s=max(PROBE_S_MIN, PROBE_ACK_TIMEOUTS * tuning.ack_timeout_s),
                patience_s=max(PATIENCE_S_MIN, PATIENCE_ACK_TIMEOUTS * tuning.ack_timeout_s),
            ),
            origin=OriginConfig(_max_age_s(options, sensors), tuning=tuning) if sensors else None,
            collector=CollectorConfig(
                sources=tuple(parents[device]),
                observe=options.observe,
                deliver_to=experiment.deliver_to(device),
            )
            if device in experiment.subscribers
            else None,
        )
        node = experiment.node(partial(Caching, config))
        devices[device] = DevicePlan(nodes=(node,), bindings=(endpoint,))
    return Deployment(devices, carries_content)


class Ways:
    """Who asks whom about a birdhouse."""

    def __init__(self, network: Network, caches: frozenset[str]) -> None:
        self._caches = caches
        self._router = Router(network)
        self._neighbours = network.neighbours()
        self._hops: dict[tuple[str, str], LinkSpec] = {}
        for link in network.links:
            self._hops[link.a, link.b] = link.forward
            self._hops[link.b, link.a] = link.backward
        for channel in network.channels:
            for a, b in channel.pairs:
                self._hops[a, b] = self._hops[b, a] = channel.spec

    def parents(self, device: str, source: str) -> tuple[str, ...]:
        """The first cache on the way to `source`, those on the ways round, and `source`; all of them nearer
        to it than `device` is."""
        first_hop = self._router.next_hop(device, source)
        if first_hop == source or first_hop is None:
            return (source,)
        limit = self._cost(device, source)
        nearer = [n for n in self._neighbours[device] if n == first_hop or self._cost(n, source) < limit]
        nearer.sort(key=lambda n: (n != first_hop, self._cost(n, source), n))
        found: dict[str, None] = {}
        for neighbour in nearer:
            path = self._router.path(neighbour, source) or []
            found.update(dict.fromkeys([hop for hop in path if hop in self._caches and hop != source][:1]))
        return (*list(found)[: 1 + FALLBACKS_MAX], source)

    def round_trip_s(self, device: str, peer: str) -> float:
        """Of a request and a full block, without queueing."""
        path = self._router.path(device, peer) or [device]
        there = [self._hops[hop] for hop in pairwise(path)]
        back = [self._hops[b, a] for a, b in pairwise(path)]
        flights_s = sum((spec.delay_ms + spec.jitter_ms) * 1e-3 for spec in (*there, *back))
        return (
            flights_s
            + sum(spec.airtime_s(_REQUEST_BYTES) for spec in there)
            + sum(spec.airtime_s(_BLOCK_BYTES) for spec in back)
        )

    def _cost(self, device: str, source: str) -> float:
        path = self._router.path(device, source) or []
        return sum(hop_weight(self._hops[hop]) for hop in pairwise(path))


def _caches(experiment: Experiment, options: CachingOptions) -> frozenset[str]:
    topology = experiment.topology
    birdhouses = topology.birdhouses if options.caches == "all" else ()
    return frozenset((*birdhouses, *topology.relays, topology.hub))


def _ack_timeout_s(ways: Ways, parents: dict[str, dict[str, tuple[str, ...]]]) -> float:
    """One for all: above every round trip, the wait for a piggy-backed answer included."""
    pairs = {
        (device, first): None for device, by_source in parents.items() for first, *_ in by_source.values()
    }
    slowest_s = max((ways.round_trip_s(device, parent) for device, parent in pairs), default=0.0)
    return max(ACK_TIMEOUT_S_MIN, EMPTY_ACK_DELAY_S + 1.5 * slowest_s)


def _max_age_s(options: CachingOptions, sensors: tuple[SensorConfig, ...]) -> dict[str, int]:
    """By kind, whole seconds."""
    found: dict[str, int] = {}
    for sensor in sensors:
        age_s = options.max_age_s or ceil(min(FRESH_S_MAX, FRESH_PERIODS * sensor.period_s))
        found[sensor.kind] = min(age_s, found.get(sensor.kind, age_s))
    return found


def _aiocoap(server: str) -> Binding:
    from edge.coap.aiocoap_binding import AiocoapBinding  # only the emulation needs aiocoap

    return AiocoapBinding(server)
