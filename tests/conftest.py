"""What all tests share: how many seeds a sweep tries, how it is replayed, when a test may be skipped.

A test of seeded behaviour takes the argument ``seed`` and says how many to try::

    @pytest.mark.sweep(20)
    def test_everyone_hears_everything(seed: int) -> None: ...

``@pytest.mark.sweep(20, fresh=5)`` tries five more that nobody has tried before, from a base that the header
shows. ``pytest --seeds 1000`` tries more (``make soak`` does), ``--first-seed 417 --seeds 1`` tries just one,
and a failing seed prints the command that replays it. Hypothesis tests get the same number of examples.
"""

import os
import random
import shlex
import shutil
from collections.abc import Generator, Iterator
from typing import Any

import hypothesis
import pytest

# A slow machine is no failure: nothing here asserts timing, Hypothesis' deadline included.
hypothesis.settings.register_profile("birdhouse", deadline=None, print_blob=True)
hypothesis.settings.load_profile("birdhouse")

FRESH = pytest.StashKey[int]()
"""The first of the seeds that are tried in this run only."""


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("birdhouse")
    group.addoption(
        "--seeds", type=int, metavar="N", help="seeds a sweep tries (default: each test's own number)"
    )
    group.addoption(
        "--first-seed", type=int, default=0, metavar="K", help="the first seed of a sweep (default: 0)"
    )


def pytest_configure(config: pytest.Config) -> None:
    workerinput = getattr(config, "workerinput", {})
    config.stash[FRESH] = workerinput.get("fresh") or random.SystemRandom().randrange(10**6, 10**9)
    seeds = config.getoption("--seeds")
    if seeds:
        hypothesis.settings.register_profile("soak", hypothesis.settings(), max_examples=seeds)
        hypothesis.settings.load_profile("soak")


def pytest_report_header(config: pytest.Config) -> str:
    return f"fresh seeds: from {config.stash[FRESH]} on"


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Workers of pytest-xdist must all try the same seeds."""
    node.workerinput["fresh"] = node.config.stash[FRESH]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    sweep = metafunc.definition.get_closest_marker("sweep")
    if sweep is None:
        return
    (default,) = sweep.args
    first = metafunc.config.getoption("--first-seed")
    count = metafunc.config.getoption("--seeds")
    seeds = list(range(first, first + (count or default)))
    if not count:
        base = metafunc.config.stash[FRESH]
        seeds += range(base, base + sweep.kwargs.get("fresh", 0))
    metafunc.parametrize("seed", seeds, ids=lambda seed: f"seed {seed}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed and item.get_closest_marker("sweep") and isinstance(item, pytest.Function):
        test = item.nodeid.partition("[")[0]
        replay = ["pytest", test, "--first-seed", str(item.callspec.params["seed"]), "--seeds", "1"]
        report.sections.append(("replay this seed with", shlex.join(replay)))
    return report


def pytest_runtest_setup(item: pytest.Item) -> None:
    """A test is skipped where its machine lacks what it needs. In CI that is promised, so its absence is a
    failure."""
    missing = [*missing_programs(item), *missing_for_emulation(item)]
    if missing:
        reason = f"needs {' and '.join(missing)}"
        if os.environ.get("CI"):
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)


def missing_programs(item: pytest.Item) -> Iterator[str]:
    for marker in item.iter_markers("needs"):
        if not any(map(shutil.which, marker.args)):
            yield " or ".join(marker.args)


def missing_for_emulation(item: pytest.Item) -> Iterator[str]:
    netem = item.get_closest_marker("netem")
    if not (netem or item.get_closest_marker("emulation")):
        return
    if netem and not has_netem():
        yield "a kernel with sch_netem (`make netem` boots one)"
    if os.geteuid() != 0:
        yield "root"
    if shutil.which("mnexec") is None:
        yield "Mininet's mnexec"
    if not os.path.exists("/dev/net/tun"):
        yield "/dev/net/tun"


def has_netem() -> bool:
    from underlay.emulation import doctor

    return any(finding.name == "netem" and finding.good for finding in doctor.examine())
