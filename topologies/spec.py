"""The experiment's spec: a TOML file as typed data, with every unit in a name.

Owns what may be written and its bounds; what a spec means (a network, a timeline, a plan) is made of it
elsewhere. An unknown key, an unknown name or a value out of range is an `InputError` that says file, key,
what was wrong and what would be right. `docs/spec.schema.json` is generated from these types, and
`docs/specs.md` explains them by example.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from gateway.routing.routing import Routing
from topologies.architectures.options import CachingOptions, GossipOptions, StarOptions
from topologies.shapes import AnyShape, Tree

Seconds = Annotated[float, msgspec.Meta(ge=0, le=1e8)]
PositiveSeconds = Annotated[float, msgspec.Meta(gt=0, le=1e8)]
Factor = Annotated[float, msgspec.Meta(ge=1, le=1e6)]
Ratio = Annotated[float, msgspec.Meta(ge=0, le=1)]
Kbps = Annotated[float, msgspec.Meta(ge=1e-3, le=1e9)]
Globs = str | tuple[str, ...]
"""One or several device names, roles (`hub`, `cache`, ...) or patterns (`cam*`)."""

ObservationKind = Literal["temperature", "humidity", "photograph", "motion", "motion-bursts"]


class _Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of the spec's tables."""


class LinkSettings(_Table, frozen=True, kw_only=True):
    """A link profile, and what is known better than it. Keys left out keep the profile's figure."""

    profile: str | None = None
    """`birdhouse list profiles` names them."""
    rate_kbps: Kbps | None = None
    """Net rate towards the sink; and of the other direction too, unless `down_rate_kbps` is given."""
    down_rate_kbps: Kbps | None = None
    delay_ms: Seconds | None = None
    jitter_ms: Seconds | None = None
    loss_ratio: Ratio | None = None
    burst_frames: Annotated[float, msgspec.Meta(ge=1)] | None = None
    """Mean length of a burst of losses."""
    queue_bytes: Annotated[int, msgspec.Meta(ge=1)] | None = None
    mtu_bytes: Annotated[int, msgspec.Meta(ge=8, le=65535)] | None = None
    overhead_bytes: Annotated[int, msgspec.Meta(ge=0, le=10000)] | None = None
    opportunities_file: str | None = None
    """A recorded trace of delivery opportunities, one time in ms a line (Mahimahi's format); replaces the
    rate."""


class LinkClass(LinkSettings, frozen=True, kw_only=True):
    """All links of a class."""

    shared: bool = False
    """One channel for all of them: half-duplex, a broadcast heard by all in range."""
    duty_cycle_ratio: Annotated[float, msgspec.Meta(gt=0, le=1)] | None = None
    """Share of the time a sender may transmit; only on a shared channel."""


class RadioLinks(LinkClass, frozen=True, kw_only=True):
    """Links between a birdhouse and another machine but the sink."""

    profile: str | None = "wifi-edge"


class BackhaulLinks(LinkClass, frozen=True, kw_only=True):
    """All other links: between relays and hub, and to the sink."""

    profile: str | None = "ethernet-100m"


class StorageLinks(LinkClass, frozen=True, kw_only=True):
    """Links of the storage tier: from each storage host to the sink and to the next host."""

    profile: str | None = "ethernet-100m"


class Links(_Table, frozen=True, kw_only=True):
    """The two classes of links that shapes make, and the storage tier's."""

    radio: RadioLinks = RadioLinks()
    backhaul: BackhaulLinks = BackhaulLinks()
    storage: StorageLinks = StorageLinks()


class ExplicitLink(LinkSettings, frozen=True, kw_only=True):
    """One link: an override of the shape's, or one more."""

    between: tuple[str, str]
    remove: bool = False
    """Take the shape's link away."""


class ExplicitChannel(LinkSettings, frozen=True, kw_only=True):
    """A shared channel among `members`; links of the shape between two members are replaced by it."""

    name: str
    members: Globs
    pairs: tuple[tuple[str, str], ...] = ()
    """Who hears whom; empty is everybody."""
    duty_cycle_ratio: Annotated[float, msgspec.Meta(gt=0, le=1)] | None = None


class DeviceSettings(_Table, frozen=True, kw_only=True):
    """What devices are; later tables override earlier ones."""

    devices: Globs
    profile: str | None = None
    battery_j: Annotated[float, msgspec.Meta(gt=0)] | None = None
    cpu_share: Annotated[float, msgspec.Meta(gt=0, le=1)] | None = None
    """Enforced where given."""
    memory_mb: Annotated[int, msgspec.Meta(ge=1)] | None = None
    """Enforced where given."""
    clock_offset_s: float = 0.0
    drift_ppm: float = 0.0


class SensorSettings(_Table, frozen=True, kw_only=True):
    """One kind of observation on some devices."""

    kind: ObservationKind
    period_s: Annotated[float, msgspec.Meta(ge=1e-3, le=1e8)]
    devices: Globs = "cam*"


class FaultSettings(_Table, frozen=True, kw_only=True):
    """One fault on the timeline, undone after `for_s` where that is given."""

    at_s: Seconds
    kind: Literal[
        "crash",
        "restart",
        "pause",
        "resume",
        "link-down",
        "link-up",
        "degrade",
        "one-way-cut",
        "partition",
        "heal",
        "slow-disk",
        "fail-disk",
        "lose-disk",
        "rot-disk",
    ]
    device: str | None = None
    """For crash, restart, pause, resume and what happens to disks: a device or a role (`hub`, `cache`,
    `sink`)."""
    between: tuple[str, str] | None = None
    """For link-down, link-up, degrade, and one-way-cut (from the first to the second)."""
    groups: tuple[tuple[str, ...], ...] | None = None
    """For partition: devices or patterns; those in no group form one more."""
    changes: dict[str, float] | None = None
    """For degrade: keys of a link, such as `loss_ratio`."""
    factor: Factor | None = None
    """For slow-disk: how many times as long a commit takes."""
    for_s: PositiveSeconds | None = None


class RandomFault(_Table, frozen=True, kw_only=True):
    """Devices that fail at random times: exponential in `mtbf_s` up and in `mttr_s` down, from the run's
    seed."""

    kind: Literal["crash", "pause"] = "crash"
    devices: Globs
    mtbf_s: PositiveSeconds
    mttr_s: PositiveSeconds
    from_s: Seconds = 0.0
    to_s: Seconds | None = None


class TrafficSettings(_Table, frozen=True, kw_only=True):
    """A background flow of UDP datagrams at a constant rate."""

    source: str
    target: str
    rate_kbps: Kbps
    packet_bytes: Annotated[int, msgspec.Meta(ge=16, le=1400)] = 500
    start_s: Seconds = 0.0
    stop_s: Seconds | None = None
    """None is the end of the run."""


class ProgramSettings(_Table, frozen=True, kw_only=True):
    """Your own program on devices, under their faults; its output is kept in the run's folder. Mininet
    only."""

    name: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_-]+$")]
    devices: Globs
    argv: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]
    """`{dir}` is the program's own folder, `{ip}` the device's address."""
    environment: dict[str, str] = {}
    expected_to_end: bool = False


class StorageSettings(_Table, frozen=True, kw_only=True):
    """Where observations end. With a storage tier the sink takes them in and writes them to it."""

    kind: Literal["sink", "primary-backup", "paxos", "sharded"] = "sink"
    """`sink` keeps them on its own disk; the others are services on `hosts` machines behind it."""
    hosts: Annotated[int, msgspec.Meta(ge=2, le=100)] = 5
    """`store1..storeN`."""
    groups: Annotated[int, msgspec.Meta(ge=1, le=100)] = 3
    """Of a sharded store, beside its controller."""
    replicas: Annotated[int, msgspec.Meta(ge=2, le=9)] = 3
    """Of each group."""


class JobSettings(_Table, frozen=True, kw_only=True):
    """An aggregation job over what the storage tier holds, run once in the experiment: docs/jobs.md."""

    job: str
    """A ready-made job's name, or a job file beside the spec: `hourly`, `mine.py`."""
    at_s: Seconds | None = None
    """When it is submitted; by default soon after the last observation."""
    parameters: dict[str, str | int | float | bool] = {}
    """The job's own."""
    on_the_way: bool = False
    """Whether the same is computed a second time, combined hop by hop on the way to the gateway."""
    epoch_s: PositiveSeconds = 5.0
    """Between two batches of what is combined on the way."""


class Variant(_Table, frozen=True, kw_only=True):
    """An architecture of one's own: another's options, changed."""

    of: Literal["star", "caching", "gossip"]
    options: dict[str, Any] = {}
    """Changes to the table of that architecture."""


class FabricSettings(_Table, frozen=True, kw_only=True):
    """What the run stands on."""

    default: Literal["auto", "simulation", "mininet"] = "auto"
    enforcer: Literal["auto", "ether", "netem"] = "auto"
    """Who makes Mininet's links what the spec says; `auto` is the ether, for reasons in docs/netem.md."""
    disk_sync_ms: Seconds = 1.0
    """What the simulation charges for making writes durable."""


class Spec(_Table, frozen=True, kw_only=True):
    """One experiment. Only what differs from the defaults needs writing."""

    name: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=80)] = "experiment"
    description: str = ""
    seed: Annotated[int, msgspec.Meta(ge=0)] = 1
    duration_s: PositiveSeconds = 120.0
    warmup_s: Seconds = 5.0
    """Not counted: connections are set up, first rounds run. Sensors start half way through it."""
    deadline_s: PositiveSeconds = 60.0
    """Until when an observation is of use, from when it was made."""
    cooldown_s: Seconds | None = None
    """The end of the run without new observations; at least the deadline, which is its default."""
    subscribers: Literal["storage", "all"] = "storage"
    """Who must get every observation: the sink, or every birdhouse and the sink."""
    replay_speed: PositiveSeconds = 600.0
    """Seconds of the data set that pass in one second of the run."""
    architectures: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)] = ("star", "caching", "gossip")
    """`birdhouse list architectures` names them; variants of the spec can be named too."""
    network: AnyShape = Tree()
    links: Links = Links()
    link: tuple[ExplicitLink, ...] = ()
    channel: tuple[ExplicitChannel, ...] = ()
    device: tuple[DeviceSettings, ...] = ()
    sensor: tuple[SensorSettings, ...] = (SensorSettings(kind="temperature", period_s=1.0),)
    fault: tuple[FaultSettings, ...] = ()
    random_fault: tuple[RandomFault, ...] = ()
    traffic: tuple[TrafficSettings, ...] = ()
    program: tuple[ProgramSettings, ...] = ()
    star: StarOptions = StarOptions()
    """Options of every star."""
    caching: CachingOptions = CachingOptions()
    gossip: GossipOptions = GossipOptions()
    variant: dict[str, Variant] = {}
    storage: StorageSettings = StorageSettings()
    gateway: Routing = Routing()
    """Where the gateway between sink and storage tier sends what: docs/routes.md."""
    gateways: dict[str, Routing] = {}
    """Further gateways, by device or role: what a destination `type = "gateway"` hands on to them."""
    job: tuple[JobSettings, ...] = ()
    """What is computed of the stored data."""
    route_convergence_s: Seconds | Literal["never"] = 5.0
    """From a change of the network to new routes."""
    fabric: FabricSettings = FabricSettings()
    pcap: bool = False
    """Whether the run keeps a capture of every link."""

    @property
    def quiet_s(self) -> float:
        """The cool-down in force."""
        return self.deadline_s if self.cooldown_s is None else self.cooldown_s

    @property
    def counted_s(self) -> tuple[float, float]:
        """From when until when an observation must be made to be counted."""
        return self.warmup_s, self.duration_s - self.quiet_s

    def submitted_s(self, job: JobSettings) -> float:
        """When a job is submitted: a third of the cool-down is for what is still on its way."""
        return self.duration_s - self.quiet_s * 2 / 3 if job.at_s is None else job.at_s
