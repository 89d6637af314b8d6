"""From a spec to a plan: the same workload and the same faults for every architecture."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any, get_args, get_type_hints

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import given, settings

from edge.gossip.peer import GossipConfig
from topologies import quickstart
from topologies.architectures import ARCHITECTURES, VARIANTS
from topologies.architectures.gossip import channel_turn_s, intervals, part_bytes_of, turns
from topologies.architectures.options import GossipOptions, StarOptions
from topologies.catalogue import examples
from topologies.experiment import Experiment, build_experiment, build_plan, options_of
from topologies.feasibility import expected_observations, typical_bytes, warnings_of
from topologies.shapes import Star, Tree
from topologies.spec import (
    BackhaulLinks,
    FaultSettings,
    Links,
    ProgramSettings,
    RadioLinks,
    RandomFault,
    SensorSettings,
    Spec,
    TrafficSettings,
)
from topologies.spec_file import load_spec, parse_spec
from topologies.timeline import VERBS, timeline
from topologies.topology import build_topology
from underlay.errors import InputError
from underlay.faults import (
    Crash,
    Degrade,
    FailDisk,
    Heal,
    LinkDown,
    LinkUp,
    OneWayCut,
    Partition,
    Restart,
    SlowDisk,
    TimedFault,
)
from underlay.plan import DevicePlan, Plan
from underlay.simulation import Simulation

SMALL = Spec(
    duration_s=20,
    warmup_s=2,
    deadline_s=5,
    network=Tree(birdhouses=4, relays=2, ring=True),
    links=Links(radio=RadioLinks(profile="wifi-good")),
    sensor=(SensorSettings(kind="temperature", period_s=1.0),),
)


def changed(**changes: Any) -> Spec:
    return msgspec.structs.replace(SMALL, **changes)


def experiment_of(spec: Spec = SMALL, name: str = "star") -> Experiment:
    return build_experiment(spec, name)


def run_records(plan: Plan) -> list[dict[str, Any]]:
    world = Simulation.from_plan(plan)
    world.run_until(plan.duration_s)
    world.finish()
    return world.records()


# --------------------------------------------------------------------------------------------------- workload


@pytest.mark.parametrize("subscribers", ["storage", "all"])
def test_the_workload_is_the_same_for_every_architecture(subscribers: str) -> None:
    """Network, faults, sensors, sink: nothing but the dissemination differs."""
    spec = changed(
        subscribers=subscribers, fault=(FaultSettings(at_s=4, kind="crash", device="hub", for_s=3),)
    )
    first, *others = plans = [build_plan(experiment_of(spec, name)) for name in ARCHITECTURES]
    assert all((plan.network, plan.faults) == (first.network, first.faults) for plan in others)
    for plan in plans:
        names = {name: {node.name for node in plan.devices[name].nodes} for name in plan.devices}
        assert all("sensors" in names[f"cam{i}"] for i in range(1, 5))
        assert "sink" in names["sink"]
    sources = [experiment_of(spec, name).sources for name in ARCHITECTURES]
    assert sources[0] == sources[1] == sources[2]


def test_sensors_fit_the_runs_phases() -> None:
    """They start half way through the warm-up, out of step, and stop a deadline before the end."""
    sensors = [sensor for device in experiment_of().sources.values() for sensor in device]
    assert all(1 <= sensor.start_s < 2 for sensor in sensors)
    assert len({sensor.start_s for sensor in sensors}) == 4
    assert {sensor.stop_s for sensor in sensors} == {15}


def test_another_seed_changes_the_phases_only() -> None:
    """The kinds and rates stay."""
    one, other = experiment_of(), experiment_of(changed(seed=2))
    assert one.sources != other.sources
    assert [s.kind for d in one.sources.values() for s in d] == [
        s.kind for d in other.sources.values() for s in d
    ]


@pytest.mark.parametrize(
    ("subscribers", "who"),
    [("storage", ("sink",)), ("all", ("cam1", "cam2", "cam3", "cam4", "sink"))],
)
def test_subscribers_are_the_sink_or_everybody(subscribers: str, who: tuple[str, ...]) -> None:
    """Everybody: all birdhouses and the sink."""
    assert experiment_of(changed(subscribers=subscribers)).subscribers == who


@pytest.mark.parametrize("name", VARIANTS)
def test_plans_can_be_sent_to_another_process(name: str) -> None:
    """Factories of nodes are picklable, so that a warm parent may fork them."""
    plan = build_plan(experiment_of(name=name))
    for device in plan.devices.values():
        for node in device.nodes:
            assert type(pickle.loads(pickle.dumps(node.make))()) is type(node.make())


def test_ports_are_the_same_in_every_plan() -> None:
    """So that captures of different runs can be compared."""
    ports = [build_plan(experiment_of(name=name)).ports() for name in ARCHITECTURES]
    assert ports[0]["sensors"] == ports[1]["sensors"]
    assert len({port for table in ports for port in table.values()}) == 5


def test_the_broker_is_on_the_hub_and_the_standby_on_a_relay() -> None:
    """Programs called mosquitto, and nowhere else."""
    plain, standby = (build_plan(experiment_of(name=name)) for name in ("star", "star-standby"))
    assert [name for name, device in plain.devices.items() if device.programs] == ["hub"]
    assert [name for name, device in standby.devices.items() if device.programs] == ["hub", "relay1"]


def test_a_standby_needs_a_relay() -> None:
    """Said before anything runs."""
    with pytest.raises(InputError, match="a standby broker needs a relay") as caught:
        build_plan(experiment_of(changed(network=Star(birdhouses=3)), "star-standby"))
    assert caught.value.key == "network.relays"


def test_traffic_and_programs_are_added_to_the_devices_named() -> None:
    """Patterns and roles are allowed."""
    spec = changed(
        traffic=(TrafficSettings(source="cam1", target="hub", rate_kbps=80, packet_bytes=100, stop_s=10),),
        program=(ProgramSettings(name="hello", devices="cam*", argv=("echo", "{ip}")),),
    )
    plan = build_plan(experiment_of(spec))
    assert [n for n, d in plan.devices.items() if any(p.name == "hello" for p in d.programs)] == [
        "cam1", "cam2", "cam3", "cam4",
    ]  # fmt: skip
    assert [n for n, d in plan.devices.items() if any(node.name == "traffic" for node in d.nodes)] == [
        "hub",
        "cam1",
    ]


def test_a_program_cannot_take_the_brokers_place() -> None:
    """Two of one name would share a folder."""
    spec = changed(program=(ProgramSettings(name="mosquitto", devices="*", argv=("true",)),))
    with pytest.raises(InputError, match="hub would run two programs 'mosquitto'"):
        build_plan(experiment_of(spec))


def test_a_flow_has_its_rate() -> None:
    """1,000 packets of 100 bytes in 10 s at 80 kbit/s, less what the message's own framing makes of it."""
    spec = changed(
        traffic=(TrafficSettings(source="cam1", target="hub", rate_kbps=80, packet_bytes=100, stop_s=10),)
    )
    sent = [r for r in run_records(build_plan(experiment_of(spec))) if r.get("message") == "Filling"]
    assert sum(record["count"] for record in sent) == 1000
    assert sum(record["bytes"] for record in sent) == pytest.approx(100_000, rel=0.03)


@pytest.mark.parametrize("name", VARIANTS)
def test_a_calm_run_delivers_everything(name: str) -> None:
    """Spec to trace on the simulation: each observation reaches the sink and is stored."""
    records = run_records(build_plan(experiment_of(name=name)))
    made = {r["id"] for r in records if r["event"] == "generated"}
    assert len(made) == pytest.approx(4 * 14, abs=4)
    assert {r["id"] for r in records if r["event"] == "delivered" and r["device"] == "sink"} == made
    assert {r["id"] for r in records if r["event"] == "stored"} == made


# ---------------------------------------------------------------------------------------------------- options


def test_a_variant_changes_options_of_its_architecture() -> None:
    """The table of the architecture holds for all its variants, the variant's own changes on top."""
    spec = parse_spec('[star]\nkeepalive_s = 9\n[variant.loud]\nof = "star"\noptions = { qos = 2 }\n')
    assert options_of(spec, "star") == ("star", StarOptions(keepalive_s=9))
    assert options_of(spec, "loud") == ("star", StarOptions(keepalive_s=9, qos=2))
    assert options_of(spec, "star-standby") == ("star", StarOptions(keepalive_s=9, standby=True))


def test_the_table_holds_where_a_built_in_name_says_nothing() -> None:
    """`[star] standby = true` makes star the standby variant."""
    assert options_of(parse_spec("[star]\nstandby = true"), "star")[1] == StarOptions(standby=True)


def test_a_bad_option_of_a_variant_names_its_key() -> None:
    """Values are checked when the variant is used."""
    spec = parse_spec('[variant.x]\nof = "star"\noptions = { keepalive_s = 0 }')
    with pytest.raises(InputError, match="keepalive_s") as caught:
        options_of(spec, "x")
    assert caught.value.key == "variant.x.options"


def test_gossip_without_options_is_the_node_as_it_is() -> None:
    """A spec that says nothing changes nothing on fast links; all it can say is a knob of the node."""
    options = GossipOptions()
    knobs = msgspec.structs.asdict(options) | intervals(options, turn_s=0.01)
    knobs["part_bytes"] = part_bytes_of(options, build_topology(SMALL).network)
    assert GossipConfig(neighbours=(), **knobs) == GossipConfig(neighbours=())


def test_gossip_announces_as_rarely_as_the_slowest_medium_in_range_asks_for() -> None:
    """A note of 100 bytes is 192 ms on lora-sf7, and then 19 s of silence; the sink is on wires only."""
    spec = lora("lora-sf7", "temperature", 60)
    turn_s = turns(build_topology(spec).network)
    assert turn_s["cam1"] == turn_s["hub"] == pytest.approx((100 + 31) * 8 / 5469 / 0.01, rel=1e-3)
    assert turn_s["sink"] < 0.01
    assert intervals(GossipOptions(), turn_s["cam1"])["announce_interval_s"] == pytest.approx(191.6, rel=1e-3)
    assert intervals(GossipOptions(announce_interval_s=7), turn_s["cam1"])["announce_interval_s"] == 7


def test_on_a_crowded_channel_a_turn_is_as_long_as_those_of_all_members() -> None:
    """Without a duty cycle the medium itself is what they share."""
    spec = changed(links=Links(radio=RadioLinks(profile="802.15.4", shared=True)))
    (channel,) = build_topology(spec).network.channels
    assert channel_turn_s(channel) == pytest.approx(len(channel.members) * (100 + 2 * 36) * 8 / 120_000)


@pytest.mark.parametrize(
    ("profile", "part_bytes"),
    [("wifi-edge", 1024), ("802.15.4", 1024), ("802.15.4-edge", 512), ("lora-sf12", 128)],
)
def test_parts_are_as_large_as_the_worst_link_carries_well(profile: str, part_bytes: int) -> None:
    """Fragments that are lost make them smaller; a spec that names a size gets it."""
    network = build_topology(changed(links=Links(radio=RadioLinks(profile=profile)))).network
    assert part_bytes_of(GossipOptions(), network) == part_bytes
    assert part_bytes_of(GossipOptions(part_bytes=2000), network) == 2000


def test_every_built_in_variant_is_of_an_architecture() -> None:
    """Names are what `birdhouse list` shows."""
    assert {variant.of for variant in VARIANTS.values()} <= set(ARCHITECTURES)


# --------------------------------------------------------------------------------------------------- timeline


def faults_of(*faults: FaultSettings) -> tuple[TimedFault, ...]:
    spec = changed(fault=faults)
    return timeline(spec, build_topology(spec))


def fault(kind: Any, at_s: float = 5.0, **arguments: Any) -> FaultSettings:
    return FaultSettings(at_s=at_s, kind=kind, **arguments)


def test_roles_mean_the_same_machine_in_every_architecture() -> None:
    """The hub is the broker, a cache, a peer; the cache is the first relay."""
    assert faults_of(fault("crash", device="hub"), fault("crash", device="cache")) == (
        TimedFault(5, Crash("hub")),
        TimedFault(5, Crash("relay1")),
    )


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (fault("crash", device="cam1", for_s=2), (Crash("cam1"), Restart("cam1"))),
        (
            fault("link-down", between=("cam1", "relay1"), for_s=2),
            (LinkDown("cam1", "relay1"), LinkUp("cam1", "relay1")),
        ),
        (
            fault("one-way-cut", between=("relay1", "cam1"), for_s=2),
            (OneWayCut("relay1", "cam1"), LinkUp("relay1", "cam1")),
        ),
        (
            fault("degrade", between=("cam1", "relay1"), changes={"loss_ratio": 0.5}, for_s=2),
            (Degrade("cam1", "relay1", {"loss_ratio": 0.5}), Degrade("cam1", "relay1")),
        ),
        (
            fault("partition", groups=(("cam1", "cam2", "relay*"),), for_s=2),
            (Partition((("relay1", "relay2", "cam1", "cam2"),)), Heal()),
        ),
        (
            fault("slow-disk", device="hub", factor=20.0, for_s=2),
            (SlowDisk("hub", 20.0), SlowDisk("hub", 1.0)),
        ),
        (fault("fail-disk", device="hub", for_s=2), (FailDisk("hub"), Restart("hub"))),
    ],
    ids=["crash", "link-down", "one-way-cut", "degrade", "partition", "slow-disk", "fail-disk"],
)  # fmt: skip
def test_a_fault_is_undone_after_its_time(settings: FaultSettings, expected: tuple[Any, Any]) -> None:
    """`for_s` is the verb that undoes it, that much later."""
    assert faults_of(settings) == (TimedFault(5, expected[0]), TimedFault(7, expected[1]))


def test_a_fault_that_outlasts_the_run_is_not_undone() -> None:
    """There is nobody to see it."""
    assert faults_of(fault("crash", device="hub", at_s=15, for_s=100)) == (TimedFault(15, Crash("hub")),)


BAD_FAULTS: dict[str, tuple[FaultSettings, str]] = {
    "a device that is not there": (
        fault("crash", device="cam9"),
        "fault[0].device: there is no device 'cam9' (did you mean 'cam4'?)",
    ),
    "no device": (fault("crash"), "fault[0].device: crash needs one"),
    "an argument of another verb": (
        fault("crash", device="hub", between=("cam1", "hub")),
        "fault[0].between: crash takes no between (it takes device)",
    ),
    "two that do not hear each other": (
        fault("link-down", between=("cam1", "sink")),
        "fault[0].between: cam1 and sink do not hear each other (cam1 hears relay1)",
    ),
    "a change that is no link's": (
        fault("degrade", between=("cam1", "relay1"), changes={"los_ratio": 0.1}),
        "fault[0].changes.los_ratio: unknown key (did you mean 'loss_ratio'?)",
    ),
    "a change that no link can have": (
        fault("degrade", between=("cam1", "relay1"), changes={"jitter_ms": 50}),
        "fault[0].changes: jitter_ms = 50 exceeds delay_ms = 3.0",
    ),
    "nothing to change": (
        fault("degrade", between=("cam1", "relay1"), changes={}),
        "fault[0].changes: degrade needs some (such as { loss_ratio = 0.3 })",
    ),
    "no factor": (
        fault("slow-disk", device="hub"),
        "fault[0].factor: slow-disk needs one (such as 20)",
    ),
    "a factor of what is not slow": (
        fault("fail-disk", device="hub", factor=2.0),
        "fault[0].factor: fail-disk takes no factor (it takes device)",
    ),
    "what is lost does not come back": (
        fault("lose-disk", device="hub", for_s=3),
        "fault[0].for_s: lose-disk is not undone after a time",
    ),
    "a device in two groups": (
        fault("partition", groups=(("cam*",), ("cam1",))),
        "fault[0].groups: cam1 is in two groups",
    ),
    "an end of what has none": (
        fault("heal", for_s=3),
        "fault[0].for_s: heal is not undone after a time",
    ),
}


@pytest.mark.parametrize(("settings", "message"), BAD_FAULTS.values(), ids=BAD_FAULTS.keys())
def test_a_bad_fault_is_one_exact_error(settings: FaultSettings, message: str) -> None:
    """With the fault's number, as it stands in the file."""
    with pytest.raises(InputError) as caught:
        faults_of(settings)
    assert str(caught.value) == message


@given(seed=st.integers(0, 1000), mtbf_s=st.floats(1, 50), mttr_s=st.floats(0.5, 20))
@settings(max_examples=50)
def test_random_faults_alternate_within_their_time(seed: int, mtbf_s: float, mttr_s: float) -> None:
    """Each device: crash, restart, crash, ..., none before `from_s`, no crash after `to_s`; the same seed,
    the same."""
    random = RandomFault(devices="cam*", mtbf_s=mtbf_s, mttr_s=mttr_s, from_s=2, to_s=15)
    spec = changed(seed=seed, random_fault=(random,))
    topology = build_topology(spec)
    faults = timeline(spec, topology)
    assert faults == timeline(spec, topology)
    assert [f.at_s for f in faults] == sorted(f.at_s for f in faults)
    for device in topology.birdhouses:
        mine = [f for f in faults if isinstance(f.fault, Crash | Restart) and f.fault.device == device]
        assert [type(f.fault) for f in mine] == ([Crash, Restart] * len(mine))[: len(mine)]
        assert all(2 <= f.at_s <= 15 for f in mine if isinstance(f.fault, Crash))
        assert all(f.at_s <= spec.duration_s for f in mine)


def test_every_verb_is_listed_with_what_it_takes() -> None:
    """`birdhouse list faults` is the spec's own list."""
    kinds = get_args(get_type_hints(FaultSettings)["kind"])
    assert set(VERBS) == set(kinds)


# ------------------------------------------------------------------------------------------------ feasibility


def test_a_network_that_carries_its_load_is_not_warned_about() -> None:
    """Silence is the normal case."""
    assert warnings_of(experiment_of(load_spec(quickstart()))) == []


def lora(profile: str, kind: Any, period_s: float) -> Spec:
    return changed(
        network=Star(birdhouses=2, relays=1),
        links=Links(radio=RadioLinks(profile=profile, shared=True)),
        sensor=(SensorSettings(kind=kind, period_s=period_s),),
    )


def test_pictures_over_lora_are_warned_about_with_the_time_they_take() -> None:
    """Hours of airtime for one, at a duty cycle that allows a fraction of one an hour."""
    (warning,) = warnings_of(experiment_of(lora("lora-sf12", "photograph", 3600), "gossip"))[:1]
    size = typical_bytes("photograph")
    assert f"a photograph of {size:,} bytes is " in warning
    assert " on the air of lora-sf12: a duty cycle of 1.0% allows 0." in warning
    assert warning.endswith("and 1 are asked for (cam1 and 1 more)")


def test_readings_over_lora_are_fine_if_they_are_rare_enough() -> None:
    """One reading of about 80 bytes with headers is 0.15 s at SF7: 36 s of airtime an hour carry 200 of
    them."""
    assert warnings_of(experiment_of(lora("lora-sf7", "temperature", 60), "gossip")) == []
    (warning,) = warnings_of(experiment_of(lora("lora-sf7", "temperature", 5), "gossip"))
    assert "720 are asked for" in warning


def test_gossip_that_drowns_a_channel_in_bookkeeping_is_warned_about() -> None:
    """At one announcement a minute, two messages of 19 s each; by default none is needed."""
    spec = msgspec.structs.replace(
        lora("lora-sf7", "temperature", 60), gossip=GossipOptions(announce_interval_s=60)
    )
    (warning,) = warnings_of(experiment_of(spec, "gossip"))
    assert warning.startswith("gossip's bookkeeping takes 64% of the channel radio (lora-sf7): ")
    assert "by default it would be 192" in warning
    assert warnings_of(experiment_of(spec, "caching")) == []


def test_readings_that_gossip_must_cut_are_warned_about() -> None:
    """What is pushed in one datagram by default becomes an offer, a request and several parts."""
    spec = changed(gossip=GossipOptions(part_bytes=32))
    (warning,) = warnings_of(experiment_of(spec, "gossip"))
    assert f"a temperature of {typical_bytes('temperature')} bytes is more than part_bytes = 32" in warning
    assert "in 2 parts" in warning


def test_parts_that_lose_a_fragment_mostly_are_warned_about_unless_gossip_may_choose() -> None:
    """1080 bytes are 12 fragments; the chance that bursts of three spare them all is the model's own."""
    spec = changed(
        links=Links(radio=RadioLinks(profile="802.15.4-edge")),
        sensor=(SensorSettings(kind="photograph", period_s=600),),
        deadline_s=15,
    )
    given_size = msgspec.structs.replace(spec, gossip=GossipOptions(part_bytes=1024))
    (warning,) = warnings_of(experiment_of(given_size, "gossip"))
    assert "12 fragments on 802.15.4-edge: at 15% loss only 44% of such packets arrive" in warning
    assert warnings_of(experiment_of(spec, "gossip")) == []


def test_mqtt_over_slow_lora_is_warned_about() -> None:
    """Its acknowledgements take longer than TCP waits."""
    warnings = warnings_of(experiment_of(lora("lora-sf12", "temperature", 3600)))
    assert any("MQTT runs over TCP, which retransmits after 1 s" in warning for warning in warnings)
    assert not any(
        "MQTT" in w for w in warnings_of(experiment_of(lora("lora-sf12", "temperature", 3600), "gossip"))
    )


def test_a_link_that_would_overflow_is_named() -> None:
    """All four birdhouses' pictures end up on the same last hop."""
    spec = changed(
        links=Links(radio=RadioLinks(profile="wifi-good"), backhaul=BackhaulLinks(profile="802.15.4")),
        sensor=(SensorSettings(kind="photograph", period_s=4),),
    )
    warnings = warnings_of(experiment_of(spec))
    assert any(
        "(802.15.4) would carry " in warning and " of its 120 kbit/s" in warning for warning in warnings
    )


def test_expected_observations_are_about_those_made() -> None:
    """Counted time over period, summed."""
    assert expected_observations(experiment_of()) == {"temperature": 52}


# --------------------------------------------------------------------------------------------------- examples


@pytest.mark.parametrize("path", examples(), ids=lambda path: path.stem)
def test_every_example_makes_plans(path: Path) -> None:
    """All that ships can be run."""
    spec = load_spec(path)
    for name in spec.architectures:
        plan = build_plan(build_experiment(spec, name, path.parent))
        assert all(isinstance(device, DevicePlan) for device in plan.devices.values())
