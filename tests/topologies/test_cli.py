"""The command line: what it prints, its exit codes, and that it starts quickly."""

from __future__ import annotations

import ast
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import pytest
from typer.testing import CliRunner, Result

import topologies
from topologies import api, campaign, fabrics, runner
from topologies.catalogue import TOPICS, examples
from topologies.cli.app import app
from topologies.cli.settings import parse_settings
from topologies.spec import Spec
from underlay.errors import InputError, Unavailable

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def somewhere_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Results go to the current directory."""
    monkeypatch.chdir(tmp_path)
    for module in (runner, campaign, api):
        monkeypatch.setattr(module, "write_page", lambda _, target, names=(): target.write_text("<html>"))


def birdhouse(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.mark.parametrize("path", examples(), ids=lambda path: path.stem)
def test_every_example_passes_check(path: Path) -> None:
    """And says what it means."""
    result = birdhouse("check", path)
    assert result.exit_code == 0, result.output
    assert "single points of failure" in result.stdout


def test_check_warns_with_computed_times() -> None:
    """Pictures over LoRa."""
    lora = next(path for path in examples() if path.stem == "lora")
    result = birdhouse(
        "check", lora, "--set", "links.radio.profile=lora-sf12", "--set", "sensor[0].kind=photograph"
    )
    assert result.exit_code == 0
    assert "warning: a photograph of" in result.stdout
    assert "on the air of lora-sf12" in result.stdout


def test_new_writes_a_spec_that_runs() -> None:
    """As it is, and once only."""
    assert birdhouse("new", "garden.toml").exit_code == 0
    assert "duration_s = 60" in Path("garden.toml").read_text(encoding="utf-8")
    again = birdhouse("new", "garden")
    assert (again.exit_code, again.stderr) == (
        2,
        "birdhouse: garden.toml: is already there (choose another name)\n",
    )
    result = birdhouse("run", "garden.toml", "--fabric", "simulation", "--json")
    assert result.exit_code == 0, result.output
    row = json.loads(result.stdout)
    assert (row["name"], row["architecture"], row["folder"]) == ("garden", "star", "runs/garden-1")


def test_compare_prints_a_table_and_where_the_report_is() -> None:
    """Progress goes to stderr."""
    topologies.new("garden")
    result = birdhouse("compare", "garden.toml", "--fabric", "simulation", "--set", "duration_s=40")
    assert result.exit_code == 0, result.output
    assert "gossip" in result.stdout
    assert "report: runs/garden-1/report.html" in result.stdout
    assert "birdhouse: [3/3] gossip: 40 s" in result.stderr


def test_compare_gives_survivability_as_json() -> None:
    """One document on stdout, nothing else."""
    topologies.new("garden")
    arguments = ("--kill", "1", "-a", "gossip", "--fabric", "simulation", "--set", "duration_s=40", "--json")
    result = birdhouse("compare", "garden.toml", *arguments)
    assert result.exit_code == 0, result.output
    assert [row["failed"] for row in json.loads(result.stdout)["runs"]] == [0, 1]


def test_diff_and_report_read_folders_alone() -> None:
    """Of runs made before."""
    topologies.new("garden")
    for seed in ("1", "2"):
        assert birdhouse("run", "garden.toml", "--fabric", "simulation", "--seed", seed).exit_code == 0
    different = birdhouse("diff", "runs/garden-1", "runs/garden-2", "--json")
    assert different.exit_code == 0
    assert json.loads(different.stdout)["same_trace"] is False
    assert birdhouse("report", "runs/garden-1", "runs/garden-2", "--out", "both.html").exit_code == 0
    assert Path("both.html").exists()
    nowhere = birdhouse("report", "runs/garden-1", "--out", "missing/both.html")
    assert nowhere.exit_code == 2
    assert nowhere.stderr == "birdhouse: missing/both.html: cannot write it: No such file or directory\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["check", "nothing.toml"], "nothing.toml: cannot read the spec: No such file or directory"),
        (["run", "nothing.toml"], "nothing.toml: cannot read the spec: No such file or directory"),
        (["report", "nothing"], "nothing: is neither a run nor a comparison"),
        (["diff", "a", "b"], "a: is neither a run nor a comparison"),
        (["compare", "--set", "seed"], "--set: 'seed' sets nothing (KEY=VALUE, such as seed=7)"),
        (["compare", "--set", "x=1"], "x: unknown key"),
        (["compare", "--kill", "99"], "--kill: 99 machines cannot fail (1 to 16: all but the sink)"),
        (["compare", "-a", "ring"], "there is no architecture 'ring'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_bad_input_is_one_line_on_stderr_and_exit_code_2(arguments: list[str], message: str) -> None:
    """No traceback, nothing on stdout, nothing left behind."""
    result = birdhouse(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith("birdhouse: ")
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert list(Path.cwd().iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["dance"], "no such command 'dance' (see birdhouse --help)"),
        (["--dance"], "no such option: --dance (see birdhouse --help)"),
        (["run"], "missing argument 'SPEC' (see birdhouse run --help)"),
        (["run", "x", "--dance"], "no such option: --dance (see birdhouse run --help)"),
        (["run", "x", "--fabric", "cloud"], "invalid value for '--fabric': 'cloud' is not one of"),
        (["compare", "--seeds", "0"], "invalid value for '--seeds'"),
        (["compare", "--kill", "-1"], "invalid value for '--kill'"),
        (["compare", "--kill"], "option '--kill' requires an argument"),
        (["list"], "missing argument"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_bad_usage_is_one_line_on_stderr_and_exit_code_2(arguments: list[str], message: str) -> None:
    """In the words of Typer, without its box."""
    result = birdhouse(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(f"birdhouse: {message}")
    assert result.stderr.count("\n") == 1


def test_without_a_command_the_help_is_shown() -> None:
    """As with `--help`."""
    assert "Usage: birdhouse" in birdhouse().output


@pytest.mark.parametrize("topic", TOPICS)
def test_everything_that_can_be_named_is_listed(topic: str) -> None:
    """As a table and as JSON."""
    rows = json.loads(birdhouse("list", topic, "--json").stdout)
    assert rows
    assert all(row["name"] for row in rows)
    assert rows[0]["name"] in birdhouse("list", topic).stdout


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("seed=7", {"seed": [7]}),
        ("links.radio.loss_ratio=0,0.05,0.1", {"links.radio.loss_ratio": [0, 0.05, 0.1]}),
        ("subscribers=all", {"subscribers": ["all"]}),
        ("pcap=true,false", {"pcap": [True, False]}),
        ("architectures=['star', 'gossip']", {"architectures": [["star", "gossip"]]}),
        ('description="a, b"', {"description": ["a, b"]}),
        ("fault[0].changes={a = 3, b = 9}", {"fault[0].changes": [{"a": 3, "b": 9}]}),
    ],
)  # fmt: skip
def test_settings_are_toml_values_and_commas_make_a_sweep(argument: str, expected: object) -> None:
    """Outside brackets and quotes."""
    assert parse_settings([argument]) == expected


def test_a_key_set_twice_is_an_error() -> None:
    """One of the two would be forgotten."""
    with pytest.raises(InputError, match="seed is set twice"):
        parse_settings(["seed=1", "seed=2"])


def test_one_run_does_not_sweep() -> None:
    """`compare` does."""
    topologies.new("garden")
    result = birdhouse("run", "garden.toml", "--set", "seed=1,2")
    assert (result.exit_code, result.stderr) == (
        2,
        "birdhouse: --set: seed has 2 values (`birdhouse compare` runs sweeps)\n",
    )


def test_help_imports_nothing_heavy() -> None:
    """What makes it quick, told without a clock."""
    code = (
        "import sys\n"
        "sys.argv = ['birdhouse', '--help']\n"
        "from topologies.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'numpy', 'matplotlib', 'networkx', 'mininet', 'paho', 'aiocoap', 'scapy', 'jinja2'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert "compare" in done.stdout
    assert ast.literal_eval(done.stderr) == []


@pytest.fixture
def no_mininet(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that cannot emulate."""

    def probe(_: Spec) -> NoReturn:
        raise Unavailable("no /dev/net/tun", hint="modprobe tun")

    monkeypatch.setattr(fabrics, "_probe_mininet", probe)


@pytest.mark.usefixtures("no_mininet")
def test_auto_falls_back_and_says_so() -> None:
    """In the table, and with the reason on stderr."""
    topologies.new("garden")
    result = birdhouse("compare", "garden.toml", "--fabric", "auto", "-a", "gossip")
    assert result.exit_code == 0, result.output
    assert "SIMULATED" in result.stdout
    assert "Mininet is not possible here: no /dev/net/tun (modprobe tun)" in result.stderr


@pytest.mark.usefixtures("no_mininet")
def test_mininet_asked_for_by_name_is_never_replaced() -> None:
    """Exit code 2, and what would make it possible."""
    topologies.new("garden")
    result = birdhouse("compare", "garden.toml", "--fabric", "mininet")
    assert (result.exit_code, result.stderr) == (2, "birdhouse: no /dev/net/tun (modprobe tun)\n")
    assert [path.name for path in Path.cwd().iterdir()] == ["garden.toml"]


@contextmanager
def a_long_run() -> Iterator[subprocess.Popen[str]]:
    """One that is in its middle, and would take minutes."""
    topologies.new("garden")
    code = "from topologies.cli import main; main()"
    command = ["run", "garden.toml", "--fabric", "simulation", "--set", "duration_s=100000"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, "-c", code, *command], stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stderr is not None
        assert "simulation" in process.stderr.readline()
        while not (Path("runs") / "garden-1.partial" / "trace.jsonl").exists():
            assert process.poll() is None
        yield process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_an_interrupt_is_exit_code_130_and_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    """In the middle of a run."""
    with a_long_run() as process:
        process.send_signal(number)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert [path.name for path in tmp_path.iterdir()] == ["garden.toml"]


def test_what_a_killed_run_left_is_cleaned_up(tmp_path: Path) -> None:
    """By what it recorded, not by what it looks like."""
    with a_long_run() as process:
        process.kill()
    lookalike = tmp_path / "runs" / "mine.partial"
    lookalike.mkdir()
    assert (tmp_path / "runs" / "garden-1.partial").exists()
    result = birdhouse("clean")
    assert result.exit_code == 0
    assert f"removed {tmp_path / 'runs' / 'garden-1.partial'}" in result.stdout
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["mine.partial"]
