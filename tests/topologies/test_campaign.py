"""Runs, comparisons, sweeps and survivability on the simulation, and the folders they leave."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

import topologies
from topologies import api, campaign, folders, runner
from topologies.campaign import plan_campaign
from topologies.experiment import build_experiment
from topologies.fabrics import choose_fabric
from topologies.folders import building, new_folder
from topologies.manifest import Manifest
from topologies.metrics import read_summary
from topologies.spec_file import load_spec
from topologies.topology import build_topology
from topologies.victims import busiest_first, kill_time_s, random_order
from underlay.errors import InputError, RunFailed

SPEC = """
name = "small"
duration_s = 16
warmup_s = 2
deadline_s = 4
architectures = ["star", "gossip"]
[network]
shape = "tree"
birdhouses = 4
relays = 2
ring = true
[links.radio]
profile = "wifi-good"
[[fault]]
at_s = 5
kind = "crash"
device = "hub"
for_s = 6
"""


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small spec in a directory of its own, where results go as well."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "small.toml"
    path.write_text(SPEC, encoding="utf-8")
    return path


@pytest.fixture
def without_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports have tests of their own, and take longer than these runs."""

    def write(folders: list[Path], target: Path, names: Sequence[str] = ()) -> None:
        assert all((folder / "manifest.json").exists() for folder in folders)
        assert len(names) in (0, len(folders))
        target.write_text("<html>", encoding="utf-8")

    for module in (runner, campaign, api):
        monkeypatch.setattr(module, "write_page", write)


@pytest.mark.usefixtures("without_pages")
class TestRun:
    """One run."""

    def test_leaves_a_folder_with_everything_in_it(self, spec: Path) -> None:
        """Resolved spec, manifest, trace, summary, report."""
        run = topologies.run(spec, "gossip", fabric="simulation", command="birdhouse run")
        assert run.folder == Path("runs/small-1")
        names = {path.name for path in run.folder.iterdir()}
        assert names == {
            "spec.toml",
            "manifest.json",
            "trace.jsonl",
            "summary.json",
            "summary.csv",
            "report.html",
        }
        assert load_spec(run.folder / "spec.toml") == load_spec(spec)
        assert run.manifest.command == "birdhouse run"
        assert next(iter(run.trace()))["event"] == "run-started"
        (row,) = run.table()
        assert row["architecture"] == "gossip"
        assert row["delivery_ratio"] == 1.0

    def test_says_what_it_ran_on(self, spec: Path) -> None:
        """The manifest knows asked and got, and who played which part."""
        manifest = topologies.run(spec, fabric="simulation").manifest
        assert (manifest.chosen.fabric, manifest.chosen.fell_back) == ("simulation", False)
        assert manifest.verdict.validity == "valid"
        assert (manifest.sink, manifest.birdhouses) == ("sink", ("cam1", "cam2", "cam3", "cam4"))
        assert (manifest.warmup_s, manifest.stop_s) == (2, 12)

    def test_twice_is_the_same_trace_byte_for_byte(self, spec: Path) -> None:
        """And has a folder of its own."""
        one, other = (topologies.run(spec, "star", fabric="simulation") for _ in range(2))
        assert (one.folder.name, other.folder.name) == ("small-1", "small-2")
        assert (one.folder / "trace.jsonl").read_bytes() == (other.folder / "trace.jsonl").read_bytes()
        assert topologies.diff(one.folder, other.folder).same_trace

    def test_can_be_replayed_from_its_own_folder(self, spec: Path) -> None:
        """The resolved spec is a spec."""
        one = topologies.run(spec, "star", fabric="simulation", seed=9)
        other = topologies.run(one.folder / "spec.toml", "star", fabric="simulation")
        assert (one.folder / "trace.jsonl").read_bytes() == (other.folder / "trace.jsonl").read_bytes()

    def test_does_not_overwrite(self, spec: Path, tmp_path: Path) -> None:
        """What is there stays there."""
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "thesis.txt").write_text("years", encoding="utf-8")
        with pytest.raises(InputError, match="never overwritten"):
            topologies.run(spec, fabric="simulation", out=tmp_path / "mine")
        assert (tmp_path / "mine" / "thesis.txt").read_text(encoding="utf-8") == "years"

    def test_takes_settings(self, spec: Path) -> None:
        """Over those of the file."""
        run = topologies.run(spec, fabric="simulation", settings={"duration_s": 14, "name": "other"})
        assert (run.manifest.duration_s, run.folder.name) == (14, "other-1")


@pytest.mark.usefixtures("without_pages")
class TestCompare:
    """Several runs."""

    def test_sets_architectures_side_by_side(self, spec: Path) -> None:
        """The same observations in each; gossip does not need the hub."""
        comparison = topologies.compare(spec, fabric="simulation")
        rows = {row["architecture"]: row for row in comparison.table()}
        assert list(rows) == ["star", "gossip"]
        assert rows["star"]["observations"] == rows["gossip"]["observations"]
        assert rows["gossip"]["delivery_ratio"] > rows["star"]["delivery_ratio"]
        with (comparison.folder / "summary.csv").open(encoding="utf-8") as file:
            assert [row["architecture"] for row in csv.DictReader(file)] == ["star", "gossip"]

    def test_sweeps_settings_over_seeds(self, spec: Path) -> None:
        """Every combination, each in a folder that says which."""
        comparison = topologies.compare(
            spec,
            architectures=["gossip"],
            fabric="simulation",
            seeds=2,
            settings={"links.radio.loss_ratio": [0, 0.05], "duration_s": [14]},
        )
        assert [case.folder for case in comparison.cases] == [
            "gossip,loss_ratio=0,seed=1",
            "gossip,loss_ratio=0,seed=2",
            "gossip,loss_ratio=0.05,seed=1",
            "gossip,loss_ratio=0.05,seed=2",
        ]
        assert [row["links.radio.loss_ratio"] for row in comparison.table()] == [0, 0, 0.05, 0.05]
        (together,) = comparison.together()
        assert together.names == ("loss_ratio=0", "loss_ratio=0", "loss_ratio=0.05", "loss_ratio=0.05")
        assert [path.name for path in comparison.folder.glob("*.html")] == ["report.html"]

    def test_sets_architectures_side_by_side_for_each_setting(self, spec: Path) -> None:
        """A page for each, and all of them told apart where a page is made of everything."""
        comparison = topologies.compare(
            spec, fabric="simulation", settings={"links.radio.loss_ratio": [0, 0.05], "duration_s": [14]}
        )
        assert [(each.settings, each.names) for each in comparison.together()] == [
            ({"links.radio.loss_ratio": 0}, ("star", "gossip")),
            ({"links.radio.loss_ratio": 0.05}, ("star", "gossip")),
        ]
        assert len(set(comparison.names())) == 4
        pages = {path.name for path in comparison.folder.glob("*.html")}
        assert pages == {"report,loss_ratio=0.html", "report,loss_ratio=0.05.html"}

    def test_gives_survivability_over_failures(self, spec: Path) -> None:
        """From none to K, with the same victims in every architecture."""
        comparison = topologies.compare(spec, fabric="simulation", kill=2, seeds=2)
        assert len(comparison.cases) == 2 * 3 * 2
        for seed in (1, 2):
            victims = {c.killed for c in comparison.cases if c.seed == seed and len(c.killed or ()) == 2}
            assert len(victims) == 1
        curves = {curve.architecture: curve for curve in comparison.survivability()}
        assert [point.k for point in curves["gossip"].points] == [0, 1, 2]
        assert curves["gossip"].points[0].ratio == 1.0

    def test_kills_the_busiest_first_if_told_to(self, spec: Path) -> None:
        """By the bytes it sent in the run without failures."""
        comparison = topologies.compare(
            spec, architectures=["star"], fabric="simulation", kill=1, targeted=True
        )
        unharmed, harmed = comparison.runs
        topology = build_topology(load_spec(spec))
        assert comparison.cases[1].killed == (busiest_first(topology, unharmed.folder / "trace.jsonl")[0],)
        assert read_summary(harmed.folder).survivors.k == 1

    def test_loads_again_from_its_folder(self, spec: Path) -> None:
        """As what it is."""
        comparison = topologies.compare(spec, architectures=["gossip"], fabric="simulation")
        loaded = topologies.load(comparison.folder)
        assert isinstance(loaded, topologies.Comparison)
        assert loaded.table() == comparison.table()
        assert isinstance(topologies.load(comparison.folder / "gossip"), topologies.Run)
        with pytest.raises(InputError, match="neither a run nor a comparison"):
            topologies.load(spec.parent)
        with pytest.raises(InputError, match="is a comparison, not a run"):
            topologies.diff(comparison.folder, comparison.folder)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kill": 0}, "--kill: 0 machines cannot fail (1 to 7: all but the sink)"),
        ({"kill": 8}, "--kill: 8 machines cannot fail (1 to 7: all but the sink)"),
        ({"architectures": ["sta"]}, "architectures: there is no architecture 'sta' (did you mean 'star'?)"),
        (
            {"settings": {"links.radio.loss_ratio": [0, 2]}},
            "links.radio.loss_ratio: expected a number <= 1.0, got 2",
        ),
    ],
)
def test_a_campaign_is_checked_before_anything_runs(
    spec: Path, arguments: dict[str, Any], message: str
) -> None:
    """All of its runs are."""
    with pytest.raises(InputError) as caught:
        plan_campaign(spec, **arguments)
    assert str(caught.value) == f"{spec}: {message}"


@pytest.mark.parametrize("call", ["check", "run", "compare"])
def test_traffic_to_nowhere_is_refused_before_anything_starts(call: str, tmp_path: Path) -> None:
    """With the file, the key and the nearest device."""
    path = tmp_path / "noise.toml"
    path.write_text('[[traffic]]\nsource = "cam1"\ntarget = "hubb"\nrate_kbps = 10\n')
    out = {} if call == "check" else {"out": tmp_path / "run"}
    with pytest.raises(InputError) as caught:
        getattr(topologies, call)(path, **out)
    assert (caught.value.key, caught.value.file) == ("traffic[0].target", str(path))
    assert caught.value.hint == "did you mean 'hub'?"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.sweep(20)
def test_victims_are_nested_and_never_the_sink(seed: int, tmp_path: Path) -> None:
    """So that k + 1 failures are k failures and one more."""
    path = tmp_path / "small.toml"
    path.write_text(SPEC, encoding="utf-8")
    topology = build_topology(load_spec(path))
    order = random_order(topology, seed)
    assert order == random_order(topology, seed)
    assert set(order) == set(topology.roles) - {"sink"}


def test_victims_fail_a_quarter_into_the_counted_time(spec: Path) -> None:
    """2 to 12 s are counted."""
    assert kill_time_s(load_spec(spec)) == 4.5


class TestFolders:
    """Built aside, put in place whole, or not at all."""

    def test_a_folder_appears_when_it_is_complete(self, tmp_path: Path) -> None:
        """Not before."""
        target = tmp_path / "runs" / "a"
        with building(target) as partial:
            (partial / "x").write_text("1", encoding="utf-8")
            assert not target.exists()
        assert (target / "x").exists()
        assert [path.name for path in target.parent.iterdir()] == ["a"]

    def test_a_failure_leaves_its_log_and_nothing_else(self, tmp_path: Path) -> None:
        """Of a bug too."""

        def fail() -> None:
            with building(tmp_path / "a") as partial:
                (partial / "run" / "logs").mkdir(parents=True)
                (partial / "run" / "logs" / "cam1.log").write_text("ouch", encoding="utf-8")
                (partial / "trace.jsonl").write_text("{}", encoding="utf-8")
                raise RunFailed("the ether died")

        with pytest.raises(RunFailed):
            fail()
        left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
        assert left == {"a.failed/error.log", "a.failed/run/logs/cam1.log"}
        assert "the ether died" in (tmp_path / "a.failed" / "error.log").read_text(encoding="utf-8")

    @pytest.mark.parametrize("error", [KeyboardInterrupt(), InputError("no")], ids=["Ctrl-C", "bad input"])
    def test_what_was_given_up_leaves_nothing(self, tmp_path: Path, error: BaseException) -> None:
        """Nor do the folders above it that were made for it."""
        with pytest.raises(type(error)), building(tmp_path / "runs" / "deep" / "a"):
            raise error
        assert list(tmp_path.iterdir()) == []

    def test_a_full_disk_is_a_failed_run(self, tmp_path: Path) -> None:
        """With the system's reason."""
        with (
            pytest.raises(RunFailed, match="No space left on device"),
            building(tmp_path / "a"),
        ):
            raise OSError(28, "No space left on device")

    def test_numbers_pass_over_what_is_there_in_any_state(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Also over what another run is just building."""
        monkeypatch.chdir(tmp_path)
        for name in ("x-1", "x-2.partial", "x-3.failed"):
            (folders.DEFAULT_PARENT / name).mkdir(parents=True)
        assert new_folder("x", None) == Path("runs/x-4")

    def test_a_place_that_cannot_be_written_is_an_error(self, tmp_path: Path) -> None:
        """A file is in the way."""
        (tmp_path / "file").write_text("", encoding="utf-8")
        with pytest.raises(InputError, match="cannot make the folder"), building(tmp_path / "file" / "a"):
            pass


def test_a_manifest_reads_back_as_itself(tmp_path: Path, spec: Path) -> None:
    """Unlimited rates included."""
    experiment = build_experiment(load_spec(spec, [("links.radio.profile", "ideal")]), "star")
    chosen = choose_fabric(experiment.spec, "simulation")
    manifest = runner.manifest_of(experiment, chosen, runner._verdict(tmp_path, chosen))
    manifest.write(tmp_path)
    assert Manifest.read(tmp_path) == manifest
    assert msgspec.json.decode((tmp_path / "manifest.json").read_bytes())["links"][0]["rate_kbps"] is not None
