"""The terminal's comparison."""

import io
from pathlib import Path

from rich.console import Console

from tests.topologies.made_up_runs import arrived, broke, comparison, made, manifest, write_run
from topologies.manifest import Chosen, Verdict
from topologies.metrics import summarize
from topologies.table import comparison as comparison_table
from underlay.faults import Crash, Restart
from underlay.trace import ProcessEnded


def shown(folders: list[Path], width: int = 100) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(comparison_table([summarize(folder) for folder in folders]))
    return console.export_text()


def row(text: str, label: str) -> list[str]:
    """The cells of the first row with that label."""
    line = next(line for line in text.splitlines() if line.strip().startswith(label))
    return [cell.strip() for cell in line.split(label, 1)[1].split("  ") if cell.strip()]


def test_three_architectures_fit_into_eighty_columns(tmp_path: Path) -> None:
    text = shown(comparison(tmp_path), width=80)
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 80
    assert "While the hub was down, 40–65 s" in text
    assert [cell == "100 %" for cell in row(text, "within 10 s")] == [False, False, True]


def test_several_seeds_give_mean_and_range(tmp_path: Path) -> None:
    folders = []
    for seed, latency_s in enumerate((1.0, 2.0, 6.0)):
        records = [made(20.0, "cam1:0"), arrived(20.0 + latency_s, "cam1:0")]
        folders.append(write_run(tmp_path / str(seed), records, manifest(seed=seed)))
    text = shown(folders)
    assert "3 seeds" in text
    assert row(text, "latency p50") == ["3 s (1–6 s)"]


def test_doubt_and_simulation_are_marked(tmp_path: Path) -> None:
    chosen = Chosen("simulation", "simulation", "auto", "there is no Mininet")
    run = manifest(chosen=chosen, verdict=Verdict("invalid", "the ether lagged by 40 ms"))
    text = shown([write_run(tmp_path, [made(20.0, "cam1:0")], run)])
    assert "SIMULATED" in text
    assert "star *" in text
    assert "INVALID, the ether lagged by 40 ms" in text
    assert row(text, "latency p50") == ["∞"]


def test_a_process_that_ended_by_itself_is_named_with_its_last_line(tmp_path: Path) -> None:
    ended = ProcessEnded("reader", 1, ("starting", "OSError: [Errno 98] [/in use]"))
    text = shown([write_run(tmp_path, [made(20.0, "cam1:0"), (21.0, "hub", ended)])])
    assert "on hub: reader ended by itself, status 1: OSError: [Errno 98] [/in use]" in " ".join(text.split())


def test_runs_with_more_failures_only_speak_of_survivability(tmp_path: Path) -> None:
    calm = write_run(tmp_path / "0", [made(20.0, "cam1:0"), arrived(21.0, "cam1:0")])
    harmed = write_run(tmp_path / "1", [broke(15.0, Crash("hub")), made(20.0, "cam1:0")])
    text = shown([calm, harmed])
    assert row(text, "within 10 s") == ["100 %"]
    assert row(text, "none failed") == ["100 %"]
    assert row(text, "1 failed") == ["0 %"]


def test_many_outages_share_the_lines_of_the_worst(tmp_path: Path) -> None:
    """Five crashes of 4 s: what cam1 made during the third came late, all else in time."""
    records = [made(12.0, "cam1:0"), arrived(13.0, "cam1:0")]
    for n, start_s in enumerate((15.0, 25.0, 35.0, 45.0, 55.0), 1):
        late_s = 20.0 if n == 3 else 1.0
        records += [broke(start_s, Crash("cam2")), made(start_s + 1, f"cam1:{n}")]
        records += [broke(start_s + 4, Restart("cam2")), arrived(start_s + 1 + late_s, f"cam1:{n}")]
    text = shown([write_run(tmp_path, sorted(records, key=lambda record: record[0]))])
    assert "While something was broken, 5 times: the worst" in text
    assert "While cam2 was down" not in text
    after = text[text.index("5 times") :]
    assert row(after, "delivered within 10 s") == ["0 %"]
