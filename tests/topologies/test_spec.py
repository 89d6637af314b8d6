"""Specs: what may be written, and what is said about what may not."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from topologies import quickstart
from topologies.catalogue import examples
from topologies.schema import field_docs, schema_text
from topologies.shapes import Grid, Tree
from topologies.spec import LinkSettings, Spec
from topologies.spec_file import load_spec, parse_spec, to_toml
from topologies.topology import build_topology
from underlay.errors import InputError

ROOT = Path(__file__).parents[2]

BAD_SPECS = {
    "a misspelt key at the top": (
        "durration_s = 3",
        "s.toml: durration_s: unknown key (did you mean 'duration_s'?)",
    ),
    "a misspelt key in a table": (
        "[links.radio]\nlosss_ratio = 0.1",
        "s.toml: links.radio.losss_ratio: unknown key (did you mean 'loss_ratio'?)",
    ),
    "a misspelt key in the second table of a list": (
        '[[sensor]]\nkind = "motion"\nperiod_s = 1\n[[sensor]]\nkind = "motion"\nperiode_s = 1',
        "s.toml: sensor[1].periode_s: unknown key (did you mean 'period_s'?)",
    ),
    "a parameter that another shape has": (
        '[network]\nshape = "line"\ncolumns = 4',
        "s.toml: network.columns: unknown key (known are sink_at, birdhouses, relays, shape)",
    ),
    "a misspelt option of an architecture": (
        "[star]\nqoss = 1",
        "s.toml: star.qoss: unknown key (did you mean 'qos'?)",
    ),
    "a misspelt option of a variant": (
        '[variant.loud]\nof = "gossip"\noptions = { eager_maxx = 9 }',
        "s.toml: variant.loud.options.eager_maxx: unknown key (did you mean 'eager_max'?)",
    ),
    "an unknown shape": (
        '[network]\nshape = "strar"',
        "s.toml: network.shape: there is no shape 'strar' (did you mean 'star'?)",
    ),
    "a network without a shape": (
        "[network]\nbirdhouses = 4",
        "s.toml: network.shape: is missing (one of star, tree, line, ring, grid, geometric, graphml, custom)",
    ),
    "an unknown link profile": (
        '[links.radio]\nprofile = "wifi-egde"',
        "s.toml: links.radio.profile: there is no link profile 'wifi-egde' (did you mean 'wifi-edge'?)",
    ),
    "an unknown architecture": (
        'architectures = ["star", "gosip"]',
        "s.toml: architectures[1]: there is no architecture 'gosip' (did you mean 'gossip'?)",
    ),
    "an unknown kind of observation": (
        '[[sensor]]\nkind = "temprature"\nperiod_s = 1',
        "s.toml: sensor[0].kind: 'temprature' is not known (did you mean 'temperature'?)",
    ),
    "a run without end": (
        "duration_s = inf",
        "s.toml: duration_s: expected a number <= 100000000.0, got inf",
    ),
    "a rate that carries nothing in a lifetime": (
        "[links.radio]\nrate_kbps = 1e-300",
        "s.toml: links.radio.rate_kbps: expected a number >= 0.001, got 1e-300",
    ),
    "a name too long for a folder": (
        'name = "' + 300 * "x" + '"',
        "s.toml: name: expected text of length <= 80, got '" + 36 * "x" + "...",
    ),
    "a word where others are known": (
        'subscribers = "nobody"',
        "s.toml: subscribers: 'nobody' is not known (one of all, storage)",
    ),
    "a key that is missing": (
        '[[sensor]]\nkind = "motion"',
        "s.toml: sensor[0].period_s: is missing",
    ),
    "a number below its range": ("duration_s = -3", "s.toml: duration_s: expected a number > 0.0, got -3"),
    "a number above its range": (
        "[links.radio]\nloss_ratio = 1.5",
        "s.toml: links.radio.loss_ratio: expected a number <= 1.0, got 1.5",
    ),
    "a fraction where a count is wanted": ("seed = 1.5", "s.toml: seed: expected a whole number, got 1.5"),
    "text where a number is wanted": (
        'duration_s = "long"',
        "s.toml: duration_s: expected a number, got 'long'",
    ),
    "a value where a table is wanted": (
        "[links]\nradio = 3",
        "s.toml: links.radio: expected a table, got 3",
    ),
    "no architecture": (
        "architectures = []",
        "s.toml: architectures: expected a list of length >= 1, got []",
    ),
    "the same architecture twice": (
        'architectures = ["star", "star"]',
        "s.toml: architectures: an architecture is named twice",
    ),
    "a cool-down shorter than the deadline": (
        "cooldown_s = 1",
        "s.toml: cooldown_s: 1 s is below deadline_s = 60: late ones would count as lost "
        "(at least 60, or leave it out)",
    ),
    "a run with nothing to count": (
        "duration_s = 20",
        "s.toml: duration_s: 20 s leaves nothing to count: the first 5 s are warm-up, "
        "the last 60 s cool-down (more than 65, or a shorter deadline_s)",
    ),
    "a fault after the end": (
        '[[fault]]\nat_s = 500\nkind = "crash"\ndevice = "hub"',
        "s.toml: fault[0].at_s: 500 s is after the end of the run (below 120)",
    ),
    "a variant with a name that is taken": (
        '[variant.star]\nof = "star"',
        "s.toml: variant.star: this variant is built in (choose another name)",
    ),
    "a duty cycle on links of their own": (
        "[links.radio]\nduty_cycle_ratio = 0.1",
        "s.toml: links.radio.duty_cycle_ratio: only a shared channel has one (set shared = true)",
    ),
    "no TOML": ("x = ", "s.toml: is no TOML: Invalid value (at end of document)"),
}


@pytest.mark.parametrize(("text", "message"), BAD_SPECS.values(), ids=BAD_SPECS.keys())
def test_a_bad_spec_is_one_exact_error(text: str, message: str) -> None:
    """The error names the file, the key, what is wrong, and what would be right."""
    with pytest.raises(InputError) as caught:
        parse_spec(text, file="s.toml")
    assert str(caught.value) == message
    assert caught.value.exit_code == 2


def test_an_empty_spec_is_a_whole_experiment() -> None:
    """Everything has a default."""
    spec = parse_spec("")
    assert spec == Spec()
    assert spec.counted_s == (5.0, 60.0)


def test_only_what_differs_needs_writing() -> None:
    """A class of links that overrides one figure keeps its profile."""
    radio = parse_spec("[links.radio]\nloss_ratio = 0.3").links.radio
    assert (radio.profile, radio.loss_ratio, radio.delay_ms) == ("wifi-edge", 0.3, None)


@pytest.mark.parametrize(
    ("key", "value", "found"),
    [
        pytest.param("seed", 9, lambda s: s.seed == 9, id="a key at the top"),
        pytest.param(
            "links.radio.loss_ratio", 0.2, lambda s: s.links.radio.loss_ratio == 0.2, id="a table not written"
        ),
        pytest.param(
            "sensor[1].period_s",
            7.0,
            lambda s: s.sensor[1].period_s == 7,
            id="an element of a list in brackets",
        ),
        pytest.param(
            "sensor.0.period_s",
            7.0,
            lambda s: s.sensor[0].period_s == 7,
            id="an element of a list by its number",
        ),
        pytest.param(
            "network.birdhouses", 3, lambda s: s.network.birdhouses == 3, id="a parameter of the shape"
        ),
    ],
)
def test_an_override_replaces_one_key(key: str, value: object, found: object) -> None:
    """`--set` reaches every key by its dotted name."""
    assert callable(found)
    assert found(load_spec(quickstart(), [(key, value)]))


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("sensor[9].period_s", "there is no element '9' (there are 0 to 2)"),
        ("fault.x.at_s", "there is no element 'x' (there are 0 to 2)"),
        ("seed.x", "'seed' is a value, not a table"),
        ("links.radoi.loss_ratio", "unknown key (did you mean 'radio'?)"),
    ],
)
def test_an_override_of_what_is_not_there_is_an_error(key: str, message: str) -> None:
    """An override is checked like the file itself."""
    with pytest.raises(InputError, match="quickstart") as caught:
        load_spec(quickstart(), [(key, 1)])
    assert message in str(caught.value)


def test_a_file_that_is_not_there_is_an_error() -> None:
    """Said with its name and the system's reason."""
    with pytest.raises(InputError) as caught:
        load_spec("no-such.toml")
    assert str(caught.value) == "no-such.toml: cannot read the spec: No such file or directory"


@pytest.mark.parametrize("path", examples(), ids=lambda path: path.stem)
def test_a_resolved_spec_reads_back_as_itself(path: Path) -> None:
    """What a run's folder keeps is the spec that ran."""
    spec = load_spec(path)
    assert parse_spec(to_toml(spec)) == spec


SPECS_MD = (ROOT / "docs" / "specs.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("text", re.findall(r"```toml\n(.*?)```", SPECS_MD, re.DOTALL))
def test_what_the_documentation_shows_is_a_spec(text: str) -> None:
    """Each of its blocks can be pasted, and means something."""
    build_topology(parse_spec(text))


def test_writing_toml_keeps_odd_values() -> None:
    """Quotes, control characters, tables in lists, dots in names."""
    spec = Spec(
        name="odd",
        description='say "hi"\n\\ and \x01 and ü',
        network=Grid(birdhouses=3, sink_at=("hub", "cam1")),
        variant={},
    )
    assert parse_spec(to_toml(spec)) == spec


def test_the_published_schema_is_current() -> None:
    """`python -m topologies.schema > docs/spec.schema.json` makes it."""
    assert (ROOT / "docs" / "spec.schema.json").read_text(encoding="utf-8") == schema_text()


def test_the_schema_knows_every_key_and_its_bounds() -> None:
    """It is made from the types, descriptions and all."""
    schema = msgspec.json.decode(schema_text())
    spec = schema["$defs"]["Spec"]
    assert set(spec["properties"]) == set(Spec.__struct_fields__)
    assert spec["additionalProperties"] is False
    radio = schema["$defs"]["RadioLinks"]["properties"]
    assert radio["loss_ratio"]["anyOf"][0] == {"type": "number", "minimum": 0, "maximum": 1}
    assert radio["burst_frames"]["description"] == "Mean length of a burst of losses."


def test_fields_are_described_by_the_docstrings_below_them() -> None:
    """Those of base classes too."""
    assert field_docs(Tree)["ring"].startswith("Whether relays also hear their neighbours")
    assert "sink_at" in field_docs(Tree)
    assert "delay_ms" not in field_docs(LinkSettings)
