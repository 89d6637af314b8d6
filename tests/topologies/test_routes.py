"""`birdhouse routes explain`, and specs whose routes mean nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import topologies
from edge.mqtt.packets import BROKER
from topologies.experiment import build_experiment, build_plan
from topologies.routes import explained
from topologies.spec_file import parse_spec, to_toml
from underlay.errors import InputError

COMMAND = [sys.executable, "-c", "from topologies.cli import main; main()", "routes", "explain"]
SPEC = """
[storage]
kind = "sharded"
hosts = 3

[[gateway.route]]
kind = "temperature"
where = { celsius = { above = 30 } }
to = "alarms"

[gateway.destination.alarms]
type = "lines"
file = "alarms.jsonl"
"""
HOT = '{"device": "cam3", "sequence": 1, "kind": "temperature", "payload": {"h": 3100, "u": "Cel"}}'


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    path = tmp_path / "s.toml"
    path.write_text(SPEC)
    return path


def test_an_observation_is_explained(spec: Path) -> None:
    ran = subprocess.run([*COMMAND, spec, HOT, "--json"], capture_output=True, check=True)
    (step,) = json.loads(ran.stdout)
    assert (step["to"], step["takes"]) == ("alarms", True)
    shown = subprocess.run([*COMMAND, spec, "-"], input=HOT.encode(), capture_output=True, check=True).stdout
    assert b"takes it" in shown
    steps = explained(spec, HOT.replace("3100", "2900").encode())
    assert [(step.to, step.takes) for step in steps] == [("alarms", False), ("store", True)]


def test_what_is_no_observation_is_one_line(spec: Path) -> None:
    for given in ("{", "@nowhere", '{"device": "cam3"}', f"[{HOT}, {HOT}]"):
        ran = subprocess.run([*COMMAND, spec, given], capture_output=True, check=False)
        assert (ran.returncode, len(ran.stderr.splitlines())) == (2, 1), ran.stderr


@pytest.mark.parametrize(
    ("change", "key", "words"),
    [
        (('to = "alarms"', 'to = "alarm"'), "gateway.route[0].to", "did you mean 'alarms'"),
        (("above = 30", "over = 30"), "gateway.route[0].where", "over"),
        (("above = 30", 'above = "x"'), "gateway.route[0].where.celsius.above", "got 'x'"),
        (
            ("[[gateway.route]]", '[[gateway.route]]\nto = "drop"\n\n[[gateway.route]]'),
            "gateway.route",
            "never",
        ),
        (
            ("destination.alarms", "destination.store"),
            "gateway.destination",
            "cannot be a destination's name",
        ),
        (('type = "lines"', 'type = "line"'), "gateway.destination.alarms", "line"),
        (('kind = "sharded"\nhosts = 3', ""), "gateway", "storage tier"),
        (('file = "alarms.jsonl"', 'file = ""'), "gateway.destination.alarms.file", "no name"),
        (
            ('file = "alarms.jsonl"', 'file = "a"\n[gateway.destination.b]\ntype = "lines"\nfile = "./a"'),
            "gateway.destination.b",
            "alarms writes to 'a' already",
        ),
        (
            ('file = "a', 'rotate_bytes = 0\nfile = "a'),
            "gateway.destination.alarms.rotate_bytes",
            ">= 1, got 0",
        ),
        (
            ('file = "a', 'rotate_byte = 1\nfile = "a'),
            "gateway.destination.alarms",
            "did you mean 'rotate_bytes'",
        ),
        (("[[gateway.route", '[gateway]\ndead_letter = "alarm"\n[[gateway.route'), "dead_letter", "'alarms'"),
        (("[[gateway.route", '[gateway]\ndead_letter = "store"\n[[gateway.route'), "dead_letter", "table"),
        (
            ('to = "alarms"', 'to = "alarms"\noverflow = "drop-oldest"'),
            "gateway.route[0].spool_max_observations",
            "for example 1000",
        ),
        (
            ('to = "alarms"', 'to = "alarms"\noverflow = "drop-old"'),
            "gateway.route[0].overflow",
            "did you mean 'drop-oldest'",
        ),
        (('to = "alarms"', 'to = "drop"\npriority = 3'), "gateway.route[0].priority", "nothing waits"),
        (('to = "alarms"', 'to = "alarms"\nrate_burst = 3'), "gateway.route[0].rate_burst", "of a rate"),
        (('to = "alarms"', 'to = "alarms"\nrate_limit_per_s = 0'), "route[0].rate_limit_per_s", "> 0"),
        (('to = "alarms"', 'to = "alarms"\nname = "unmatched"'), "gateway.route[0].name", "of its own"),
    ],
)
def test_routes_that_mean_nothing_are_an_error(
    tmp_path: Path, change: tuple[str, str], key: str, words: str
) -> None:
    path = tmp_path / "s.toml"
    path.write_text(SPEC.replace(*change))
    with pytest.raises(InputError) as error:
        topologies.check(path)
    assert key in str(error.value)
    assert words in str(error.value)


MQTT = SPEC.replace(
    'type = "lines"\nfile = "alarms.jsonl"', 'type = "mqtt"\ntopic = "alarms/{kind}/{device}"'
)


@pytest.mark.parametrize(
    ("change", "key", "words"),
    [
        (("{kind}", "{kidn}"), "gateway.destination.alarms.topic", "{kidn}"),
        (("alarms/{kind}", "alarms/#"), "gateway.destination.alarms.topic", "without +, #"),
        (("alarms/{kind}/{device}", "birdhouse/x/{kind}"), "alarms.topic", "comes back to the gateway"),
        (("/{device}", '"\nbroker = "hubb'), "gateway.destination.alarms.broker", "did you mean 'hub'"),
    ],
)
def test_topics_that_mean_nothing_are_an_error(
    tmp_path: Path, change: tuple[str, str], key: str, words: str
) -> None:
    path = tmp_path / "s.toml"
    path.write_text(MQTT.replace(*change))
    with pytest.raises(InputError) as error:
        topologies.check(path)
    assert key in str(error.value)
    assert words in str(error.value)


@pytest.mark.parametrize("architecture", ["star", "caching"])
def test_there_is_a_broker_where_a_topic_leads_to_whatever_the_architecture(architecture: str) -> None:
    spec = parse_spec(MQTT)
    plan = build_plan(build_experiment(spec, architecture))
    with_broker = [
        device
        for device, on_it in plan.devices.items()
        for program in on_it.programs
        if program.name == BROKER
    ]
    assert with_broker == ["hub"]
    assert "@mqtt-routes" in [binding.name for binding in plan.devices["sink"].bindings]


NESTED = """
[storage]
kind = "paxos"

[gateway]
unmatched = "region"
[gateway.destination.region]
type = "gateway"
device = "hub"

[gateways.hub]
unmatched = "archive"
[gateways.hub.destination.archive]
type = "lines"
file = "all.jsonl"
[gateways.hub.destination.more]
type = "gateway"
device = "cam1"

[gateways.cam1]
"""


def test_a_gateway_runs_where_others_hand_on_to() -> None:
    plan = build_plan(build_experiment(parse_spec(NESTED), "star"))
    with_gateway = [
        device for device, on_it in plan.devices.items() for node in on_it.nodes if node.name == "gateway"
    ]
    assert sorted(with_gateway) == ["cam1", "hub", "sink"]


@pytest.mark.parametrize(
    ("change", "key", "words"),
    [
        (('"cam1"', '"sink"'), "gateways.hub.destination.more.device", "hub -> sink"),
        (('"cam1"', '"hub"'), "gateways.hub.destination.more.device", "hub -> hub"),
        (('"cam1"', '"cam2"'), "gateways.hub.destination.more.device", "no gateway on cam2"),
        (('"cam1"', '"camm1"'), "gateways.hub.destination.more.device", "did you mean 'cam1'"),
        (("[gateways.cam1]", "[gateways.cam1]\n[gateways.cam2]"), "gateways.cam2", "nothing leads to"),
        (("[gateways.cam1]", "[gateways.cam1]\n[gateways.sink]"), "gateways.sink", "has a gateway already"),
        (('unmatched = "archive"', 'unmatched = "archiv"'), "gateways.hub.unmatched", "'archive'"),
        (('kind = "paxos"', 'kind = "sink"'), "gateways", "storage tier"),
    ],
)
def test_gateways_that_mean_nothing_are_an_error(
    tmp_path: Path, change: tuple[str, str], key: str, words: str
) -> None:
    path = tmp_path / "s.toml"
    path.write_text(NESTED.replace(*change))
    with pytest.raises(InputError) as error:
        topologies.check(path)
    assert f"s.toml: {key}" in str(error.value)
    assert words in str(error.value)


TERMS = (
    'to = "alarms"\nname = "hot"\nrate_limit_per_s = 0.5\nrate_burst = 3\npriority = -2\n'
    'overflow = "drop-oldest"\nspool_max_observations = 9'
)


@pytest.mark.parametrize("text", [SPEC.replace('to = "alarms"', TERMS), MQTT, NESTED])
def test_a_run_keeps_its_routes_as_they_were_written(text: str) -> None:
    spec = parse_spec(text)
    assert parse_spec(to_toml(spec)) == spec
