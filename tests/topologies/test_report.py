"""The report: says what the runs say, hides no doubt, needs nothing but itself, opens without complaint."""

import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.topologies.made_up_runs import arrived, broke, caricature, comparison, made, manifest, write_run
from topologies import reporting
from topologies.manifest import Chosen, DeviceInfo, Verdict
from topologies.metrics import read_summary, summarize
from topologies.reporting import palette
from topologies.reporting.answer import answer
from topologies.reporting.canvas import Canvas
from underlay.errors import InputError
from underlay.faults import Crash, Restart


def page(folders: list[Path], target: Path) -> str:
    reporting.write(folders, target)
    return target.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return comparison(tmp_path_factory.mktemp("three"))


def test_the_answer_is_computed_from_the_runs(three: list[Path]) -> None:
    told = answer([read_summary(folder) for folder in three])
    star = read_summary(three[0]).effects[0]
    assert told.headline.startswith(
        "While the hub was down for 25 s, gossip delivered 100 % of the observations"
    )
    assert f"star {star.during.on_time / star.during.expected * 100:.0f} %" in told.headline
    text = next(tale.text for tale in told.tales if tale.architecture == "star")
    assert f"{star.recovered} were recovered afterwards, {star.recovered_late} of them too late" in text
    assert f"{star.lost} are lost for good" in text
    assert told.cost is not None
    assert told.cost.startswith("Star was the cheapest")


def test_the_failure_that_told_them_apart_is_the_one_told(tmp_path: Path) -> None:
    """Both come through the hub's crash; the relay's hurts one."""
    folders = []
    for name in ("star", "gossip"):
        records = [broke(t, verb("hub")) for t, verb in ((20.0, Crash), (25.0, Restart))]
        records += [broke(t, verb("relay9")) for t, verb in ((50.0, Crash), (55.0, Restart))]
        for n in range(10, 90):
            records.append(made(float(n), f"cam1:{n}"))
            if name == "gossip" or not 50 <= n < 55:
                records.append(arrived(n + 0.2, f"cam1:{n}"))
        folders.append(write_run(tmp_path / name, records, manifest(architecture=name)))
    told = answer([summarize(folder) for folder in folders])
    assert told.headline == (
        "While relay9 was down for 5 s, gossip delivered 100 % of the observations within 10 s, star 0 %."
    )
    assert [tale.text.split(".")[0] for tale in told.tales] == [
        "none of the 5 observations made meanwhile arrived before relay9 came back; "
        "nothing was recovered afterwards; 5 are lost for good",
        "all 5 observations made meanwhile arrived before relay9 came back; nothing is lost for good",
    ]


def test_without_failures_the_answer_is_about_delivery(tmp_path: Path) -> None:
    run = write_run(tmp_path, [made(20.0, "cam1:0"), arrived(21.0, "cam1:0"), made(30.0, "cam1:1")])
    assert answer([summarize(run)]).headline == (
        "Star delivered 50 % of the observations within 10 s, and nothing failed."
    )


def test_failures_for_good_are_told_by_survivors(tmp_path: Path) -> None:
    calm = write_run(tmp_path / "0", [made(20.0, "cam1:0"), arrived(21.0, "cam1:0")])
    harmed = write_run(tmp_path / "1", [broke(15.0, Crash("hub")), made(20.0, "cam1:0")])
    text = page([calm, harmed], tmp_path / "report.html")
    assert "With one machine gone for good, star delivered 0" in text
    assert "Who survives" in text


def test_the_page_stands_alone(three: list[Path], tmp_path: Path) -> None:
    """No script, no import, and no address but the names of SVG's own vocabularies."""
    text = page(three, tmp_path / "report.html")
    assert set(re.findall(r"https?://[^\s\"'<)]+", text)) == {
        "http://www.w3.org/1999/xlink",
        "http://www.w3.org/2000/svg",
    } - ({"http://www.w3.org/2000/svg"} if "http://www.w3.org/2000/svg" not in text else set())
    assert not re.search(r"<script|@import|\bsrc=|url\((?!#)", text)
    assert {found for found in re.findall(r'href="([^"]*)"', text) if not found.startswith("#")} == {"data:,"}


def test_ids_are_unique_and_references_resolve(three: list[Path], tmp_path: Path) -> None:
    text = page(three, tmp_path / "report.html")
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r"(?:url\(#|href=\"#)([^)\"]+)", text)) <= set(ids)


def test_every_tag_is_closed(three: list[Path], tmp_path: Path) -> None:
    open_: list[str] = []

    class Tags(HTMLParser):
        def handle_starttag(self, tag: str, attrs: object) -> None:
            if tag not in ("meta", "link", "br"):
                open_.append(tag)

        def handle_endtag(self, tag: str) -> None:
            assert open_.pop() == tag

    Tags().feed(page(three, tmp_path / "report.html"))
    assert open_ == []


def test_the_same_runs_give_the_same_bytes(three: list[Path], tmp_path: Path) -> None:
    assert page(three, tmp_path / "a.html") == page(three, tmp_path / "b.html")


def test_colours_are_left_to_the_style_sheet(three: list[Path], tmp_path: Path) -> None:
    """A chart that names a colour itself would be wrong in the dark."""
    drawings = re.findall(r"<svg.*?</svg>", page(three, tmp_path / "report.html"), flags=re.DOTALL)
    assert drawings
    assert {colour for drawing in drawings for colour in re.findall(r"#[0-9a-f]{6}\b", drawing)} == set()


def test_numbers_in_a_chart_keep_their_digits() -> None:
    """Coordinates are rounded to shrink the page; what is written and how it is painted is not."""
    canvas = Canvas(100, 100, left=10, right=10, top=10, bottom=10)
    canvas.axes.plot([0, 1], [0, 0.123456], color=palette.INK, alpha=0.16)
    canvas.axes.set_yticks([0.25], ["0.25 s"])
    drawing = canvas.svg("digits", "digits", palette.Palette([]))
    assert ">0.25 s</text>" in drawing
    assert "stroke-opacity: 0.16" in drawing
    assert not re.search(r'\bd="[^"]*\d\.\d\d', drawing)


def test_doubt_is_visible(tmp_path: Path) -> None:
    records = [made(20.0, "cam1:0"), arrived(21.0, "cam1:0")]
    lost_probes = {
        "medium": "cam1-hub", "source": "cam1", "target": "hub", "status": "invalid",
        "reason": "3 probes went astray",
        "delay_ms_asked": 10.0, "delay_ms_achieved": None, "lost_decided": 1, "lost_observed": 4,
    }  # fmt: skip
    lagging = manifest(
        verdict=Verdict("invalid", "the ether lagged by 40 ms", links=(lost_probes,)),
        chosen=Chosen("simulation", "simulation", "auto", "there is no Mininet"),
        notes=("collisions are not modelled",),
    )
    text = page([write_run(tmp_path / "run", records, lagging)], tmp_path / "report.html")
    assert '<span class="pill invalid">invalid</span>' in text
    assert "The ether lagged by 40 ms" in text
    assert "SIMULATED" in text
    assert "0 of 1" in text
    assert "cam1 → hub: invalid, 3 probes went astray" in text
    assert "Collisions are not modelled" in text


def test_names_cannot_break_out_of_the_page(tmp_path: Path) -> None:
    run = manifest(name="<script>alert(1)</script>", command="birdhouse run 'a&b.toml'")
    text = page([write_run(tmp_path / "run", [made(20.0, "cam1:0")], run)], tmp_path / "report.html")
    assert "<script" not in text
    assert "a&amp;b.toml" in text


def test_a_run_in_which_nothing_happened_still_has_a_page(tmp_path: Path) -> None:
    run = manifest(devices=tuple(DeviceInfo(f"d{i}", "birdhouse", "") for i in range(80)), links=())
    text = page([write_run(tmp_path / "run", [], run)], tmp_path / "report.html")
    assert "Nothing was observed." in text


def test_no_runs_is_the_users_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no run to report on"):
        reporting.write([], tmp_path / "report.html")


CHROMIUM = ("chromium", "chromium-browser", "google-chrome")


@pytest.mark.needs(*CHROMIUM)
def test_chromium_opens_it_without_complaint(three: list[Path], tmp_path: Path) -> None:
    """With four architectures of three seeds, one of them a variant, and a picture to prove it was drawn."""
    chromium = next(filter(shutil.which, CHROMIUM))
    variants = [caricature(tmp_path / f"star-standby-{seed}", "star-standby", seed) for seed in (1, 2)]
    page([*three, *variants], tmp_path / "report.html")
    picture = tmp_path / "report.png"
    found = subprocess.run(
        [
            chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            f"--user-data-dir={tmp_path / 'profile'}", "--enable-logging=stderr", "--window-size=400,900",
            f"--screenshot={picture}", (tmp_path / "report.html").as_uri(),
        ],
        capture_output=True, text=True, timeout=50, check=True,
    )  # fmt: skip
    assert "CONSOLE" not in found.stderr
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert picture.stat().st_size > 20_000
