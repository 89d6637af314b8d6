"""From a spec to a plan: one architecture on the common physical graph, under the common workload and faults.

Owns the workload: which sensor observes when (the same observations whatever the architecture), who
subscribes, background traffic, own programs. What disseminates is deployed by `topologies.architectures`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property, partial
from math import inf
from pathlib import Path
from typing import Any

import msgspec

from edge.mqtt.model_broker import BrokerConfig
from edge.mqtt.mosquitto import mosquitto
from edge.mqtt.packets import BROKER
from edge.sensor import SensorConfig, Sensors
from edge.sink import Sink
from gateway.destinations.dispatch import bindings as destination_bindings
from gateway.gateway import Gateway, GatewayConfig
from gateway.mapreduce.job import JobSource
from gateway.mapreduce.on_the_way import NAME as COMBINE
from gateway.mapreduce.on_the_way import PORT as COMBINE_PORT
from gateway.mapreduce.on_the_way import Combine
from gateway.messages import NODE as GATEWAY
from gateway.routing.routing import Routing
from gateway.routing.targets import Topic
from kv.client import Client
from kv.tiers import Tier, tier
from topologies.architectures import ARCHITECTURES, VARIANTS, deploy_of
from topologies.architectures.options import Options
from topologies.gateways import gateways_of
from topologies.jobs import engine, job_of, on_the_way
from topologies.profiles import unknown
from topologies.spec import Spec
from topologies.timeline import timeline
from topologies.topology import Topology, build_topology
from topologies.traffic import Flow, Traffic
from underlay.errors import InputError
from underlay.faults import TimedFault
from underlay.network import seeded
from underlay.node import Context, Node
from underlay.plan import FIRST_PORT, DevicePlan, NodePlan, Plan, ProgramPlan

SENSORS, SINK, TRAFFIC = "sensors", "sink", "traffic"
PORTS = {name: FIRST_PORT + n for n, name in enumerate((SENSORS, SINK, TRAFFIC, *ARCHITECTURES, GATEWAY))}
"""Of every node, in every experiment; those of the storage tier have their own (`kv.tiers`)."""
READ_BACK_S = 2.0
"""Before the end of a run, all that the storage tier acknowledged is read back."""


class Experiment(msgspec.Struct, frozen=True, dict=True):
    """One architecture of a spec, on its network."""

    spec: Spec
    name: str
    """The variant's, as in the spec: `caching-relays`."""
    architecture: str
    """What it is a variant of: `caching`."""
    options: Options
    topology: Topology
    faults: tuple[TimedFault, ...]
    jobs: tuple[tuple[float, JobSource], ...] = ()
    """What is submitted to the storage tier's workers, and when."""
    unending: bool = False
    """Kept up until somebody ends it: sensors go on for ever, and nothing is read back."""

    @cached_property
    def subscribers(self) -> tuple[str, ...]:
        """Devices that must get every observation."""
        everyone = self.spec.subscribers == "all"
        return (*(self.topology.birdhouses if everyone else ()), self.topology.sink)

    def subscribes(self, device: str) -> bool:
        """Whether `device` must get every observation."""
        role = self.topology.roles[device]
        return role == "sink" or (role == "birdhouse" and self.spec.subscribers == "all")

    @cached_property
    def sources(self) -> dict[str, tuple[SensorConfig, ...]]:
        """The sensors of every device that has any."""
        found: dict[str, list[SensorConfig]] = {}
        index = {device: n for n, device in enumerate(self.topology.roles)}
        for n, sensor in enumerate(self.spec.sensor):
            for device in self.topology.devices(sensor.devices, f"sensor[{n}].devices"):
                found.setdefault(device, []).append(self._sensor(device, n, index[device]))
        return {device: tuple(found[device]) for device in index if device in found}

    def node(self, make: Callable[[], Node]) -> NodePlan:
        """The architecture's node on a device; `make` is called anew for each incarnation and must be
        picklable."""
        return NodePlan(self.architecture, make, PORTS[self.architecture])

    @cached_property
    def tier(self) -> Tier | None:
        """The storage tier behind the sink; None where the sink keeps everything itself."""
        storage = self.spec.storage
        if storage.kind == "sink":
            return None
        return tier(storage.kind, self.topology.storage, storage.groups, storage.replicas)

    @cached_property
    def gateways(self) -> Mapping[str, Routing]:
        """By device, the sink's first; none where the sink keeps everything itself."""
        return {} if self.tier is None else gateways_of(self.spec, self.topology)

    def deliver_to(self, device: str) -> str | None:
        """The node on `device` that takes observations in: the sink's, on the sink."""
        if device != self.topology.sink:
            return None
        return SINK if self.tier is None else GATEWAY

    def _sensor(self, device: str, n: int, index: int) -> SensorConfig:
        spec, sensor = self.spec, self.spec.sensor[n]
        _, stop_s = (0.0, inf) if self.unending else spec.counted_s
        # Devices do not observe in step: each sensor has a phase of its own within its period.
        phase_s = sensor.period_s * seeded(spec.seed, "phase", device, n).random()
        start_s = round(spec.warmup_s / 2 + phase_s, 3)
        return SensorConfig(
            sensor.kind, sensor.period_s, start_s, stop_s, index, spec.seed, spec.replay_speed
        )


def build_experiment(
    spec: Spec, name: str, folder: Path = Path(), topology: Topology | None = None
) -> Experiment:
    """The spec's architecture of that name; raises InputError where the spec means nothing on its network.

    Args:
        folder: where relative file names of the spec start.
        topology: the network, where it has been built already.
    """
    topology = topology or build_topology(spec, folder)
    architecture, options = options_of(spec, name)
    faults = timeline(spec, topology)
    jobs = tuple((spec.submitted_s(job), job_of(job, f"job[{n}]", folder)) for n, job in enumerate(spec.job))
    experiment = Experiment(spec, name, architecture, options, topology, faults, jobs)
    if not experiment.sources:
        raise InputError("no device has a sensor", key="sensor")
    if any(device == topology.sink for device in experiment.sources):
        raise InputError(f"{topology.sink} stores observations and makes none", key="sensor")
    _workload(experiment)  # Traffic and programs that mean nothing here are refused before anything starts.
    return experiment


def options_of(spec: Spec, name: str) -> tuple[str, Options]:
    """The architecture that a variant's name means, and its options in force."""
    architecture: str
    if name in spec.variant:
        architecture, changes = spec.variant[name].of, spec.variant[name].options
    elif name in VARIANTS:
        architecture, changes = VARIANTS[name].of, VARIANTS[name].options
        if name == architecture:
            changes = {}
    else:
        raise unknown("architecture", name, [*VARIANTS, *spec.variant], "architectures")
    options: Options = getattr(spec, architecture)
    merged = msgspec.to_builtins(options) | dict(changes)
    try:
        return architecture, msgspec.convert(merged, type(options))
    except msgspec.ValidationError as error:
        raise InputError(str(error).replace("`", ""), key=f"variant.{name}.options") from error


def build_plan(experiment: Experiment) -> Plan:
    """Everything a fabric needs."""
    spec, topology = experiment.spec, experiment.topology
    deployed = deploy_of(experiment.architecture)(experiment)
    common = _workload(experiment)
    tiers = experiment.tier.devices() if experiment.tier else {}
    devices = {
        name: joined(deployed.devices.get(name), common.get(name), tiers.get(name)) for name in topology.roles
    }
    for routing in experiment.gateways.values():
        _add_brokers(routing, devices)
    if experiment.tier is not None and (experiment.jobs or experiment.unending):
        for device, more in engine(topology, experiment.tier, experiment.jobs).items():
            devices[device] = joined(devices[device], more)
    _check_programs(devices)
    return Plan(
        seed=spec.seed,
        duration_s=spec.duration_s,
        network=topology.network,
        devices=devices,
        faults=experiment.faults,
        route_convergence_s=None if spec.route_convergence_s == "never" else float(spec.route_convergence_s),
        disk_sync_ms=spec.fabric.disk_sync_ms,
        frame_class=deployed.frame_class,
    )


def _workload(experiment: Experiment) -> Mapping[str, DevicePlan]:
    """What runs on the devices whatever the architecture."""
    spec, topology = experiment.spec, experiment.topology
    nodes: dict[str, list[NodePlan]] = {name: [] for name in topology.roles}

    def add(device: str, name: str, make: Callable[..., Node], *args: Any) -> None:
        nodes[device].append(NodePlan(name, partial(make, *args), PORTS[name]))

    combining = on_the_way(spec, topology, experiment.jobs) if experiment.jobs else {}
    for device, place in combining.items():
        nodes[device].append(NodePlan(COMBINE, partial(Combine, place), COMBINE_PORT))
    for device, sensors in experiment.sources.items():
        also = (COMBINE,) if device in combining else ()
        add(device, SENSORS, Sensors, sensors, experiment.architecture, *also)
    if experiment.tier is None:
        add(topology.sink, SINK, Sink)
    else:
        connect = partial(_client, experiment.tier)
        audit_s = None if experiment.unending else experiment.spec.duration_s - READ_BACK_S
        for device, routing in experiment.gateways.items():
            at_s = audit_s if device == topology.sink else None
            add(device, GATEWAY, Gateway, connect, GatewayConfig(routing=routing, read_back_at_s=at_s))
    flows = _flows(experiment)
    ends = [device for flow in flows for device in (flow.source, flow.target)]
    for device in dict.fromkeys(ends):
        add(device, TRAFFIC, Traffic, tuple(flow for flow in flows if flow.source == device))
    programs = _programs(experiment)
    bindings = {
        device: destination_bindings(routing.destination) for device, routing in experiment.gateways.items()
    }
    return {
        name: DevicePlan(tuple(nodes[name]), bindings.get(name, ()), programs.get(name, ()))
        for name in topology.roles
    }


def _add_brokers(routing: Routing, devices: dict[str, DevicePlan]) -> None:
    """Where a route leads to a topic there is a broker, whatever the architecture."""
    for each in routing.destination.values():
        if isinstance(each, Topic):
            there = devices[each.broker]
            if not any(program.name == BROKER for program in there.programs):
                devices[each.broker] = joined(there, DevicePlan(programs=(mosquitto(BrokerConfig()),)))


def _flows(experiment: Experiment) -> list[Flow]:
    spec, topology = experiment.spec, experiment.topology
    flows = []
    for n, settings in enumerate(spec.traffic):
        source = topology.device(settings.source, f"traffic[{n}].source")
        target = topology.device(settings.target, f"traffic[{n}].target")
        if source == target:
            raise InputError(f"{source} cannot send to itself", key=f"traffic[{n}].target")
        stop_s = spec.duration_s if settings.stop_s is None else settings.stop_s
        flows.append(
            Flow(source, target, settings.rate_kbps, settings.packet_bytes, settings.start_s, stop_s)
        )
    return flows


def _programs(experiment: Experiment) -> dict[str, tuple[ProgramPlan, ...]]:
    found: dict[str, tuple[ProgramPlan, ...]] = {}
    for n, settings in enumerate(experiment.spec.program):
        program = ProgramPlan(
            name=settings.name,
            argv=settings.argv,
            environment=settings.environment,
            expected_to_end=settings.expected_to_end,
        )
        for device in experiment.topology.devices(settings.devices, f"program[{n}].devices"):
            found[device] = (*found.get(device, ()), program)
    return found


def _check_programs(devices: Mapping[str, DevicePlan]) -> None:
    for device, plan in devices.items():
        names = [program.name for program in plan.programs]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise InputError(
                f"{device} would run two programs {twice!r}",
                key="program",
                hint="a broker is called mosquitto",
            )


def _client(storage: Tier, lanes: int) -> Client[Context]:
    """Of the storage tier; made anew for each incarnation."""
    return Client(storage.directory(), lanes=lanes)


def joined(*given: DevicePlan | None) -> DevicePlan:
    """All that these put on one device."""
    parts = [part for part in given if part is not None]
    return DevicePlan(
        nodes=tuple(node for part in parts for node in part.nodes),
        bindings=tuple(binding for part in parts for binding in part.bindings),
        programs=tuple(program for part in parts for program in part.programs),
    )
