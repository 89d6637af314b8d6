"""netem itself, on a kernel that has it: `make netem` boots one in an emulated machine and runs these there.

That machine is slow and its timers are late: delays are compared by their medians, and what is held against
the verdict on a link is everything but its lateness.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from math import inf
from pathlib import Path
from statistics import median
from time import monotonic
from typing import Any

import pytest

from tests.underlay.emulation.lab import STALL_S, Caller, Records, line, plan, silenced
from underlay.emulation import doctor, netem_qdisc
from underlay.emulation.blueprint import addresses
from underlay.emulation.enforcers import Enforcer, EnforcerName, build_for, conclude, enforce, verify_links
from underlay.emulation.fabric import Emulation
from underlay.emulation.layout import Layout
from underlay.emulation.net import Network
from underlay.emulation.netem import NetemLink
from underlay.emulation.netem_verification import loss_bounds
from underlay.emulation.reactor import Reactor
from underlay.emulation.stock import LinearTopo
from underlay.emulation.unnumbered import configure_unnumbered, route_table
from underlay.faults import Degrade, LinkDown, LinkUp, OneWayCut
from underlay.link import LinkSpec
from underlay.network import Network as Graph
from underlay.routes import shortest_paths

pytestmark = [pytest.mark.netem, pytest.mark.timeout(600)]

SPEC = LinkSpec(rate_kbps=500, delay_ms=30, jitter_ms=5, loss_ratio=0.05, burst_frames=2, overhead_bytes=20)
CLEAN = LinkSpec(rate_kbps=500, delay_ms=30, overhead_bytes=20)
PINGS = 300
RTT_TOLERANCE_RATIO = 0.1
"""Between the medians under either enforcer, on a machine that is late by milliseconds itself."""
DELAY_TOLERANCE_MS = 5.0
"""Of a median, or of a mean where there is jitter, on that machine: half of the shortest delay here."""
ATTEMPTS = 3
"""An emulated machine that gets no processor for a second drops frames in its own backlog, and says so."""


@contextmanager
def enforced(name: EnforcerName, graph: Graph, folder: Path) -> Iterator[tuple[Network, Enforcer]]:
    """A network under that enforcer, its run not started."""
    with build_for(name, graph) as network:
        configure_unnumbered(network, addresses(graph), route_table(network, shortest_paths(graph)))
        layout = Layout(folder)
        layout.shards.mkdir(parents=True)
        enforcer = enforce(name, plan(graph, {}, 10.0), network, Reactor(), layout)
        try:
            yield network, enforcer
        finally:
            enforcer.kill()


def ping(network: Any, source: str, ip: str, count: int) -> list[float]:
    """Round-trip times, ms."""
    return [
        float(ms)
        for ms in re.findall(r"time=([\d.]+)", network[source].cmd(f"ping -n -i 0.1 -c {count} {ip}"))
    ]


def test_the_kernel_has_netem_and_it_counts() -> None:
    assert netem_qdisc.counts_its_losses()
    assert doctor.choose_enforcer("netem", shared=False)[0] == "netem"
    assert doctor.choose_enforcer("auto", shared=False)[0] == "ether"


def test_ether_and_netem_agree_on_a_line_of_three(tmp_path: Path) -> None:
    graph = line("abc", SPEC)
    target = addresses(graph)["c"]
    rtt_ms: dict[str, float] = {}
    passed: dict[str, int] = {}
    for name in ("ether", "netem"):
        with enforced(name, graph, tmp_path / name) as (network, enforcer):
            enforcer.start(monotonic())
            times_ms = ping(network, "a", target, PINGS)
            rtt_ms[name], passed[name] = median(times_ms), len(times_ms)
            for count in conclude(enforcer, network).directions:
                assert count.status == "ok", count
    print(f"median RTT, ms: {rtt_ms}; answers to {PINGS} pings: {passed}")
    assert rtt_ms["netem"] == pytest.approx(rtt_ms["ether"], rel=RTT_TOLERANCE_RATIO)
    # Four passages in a row, nearly independent: each enforcer loses what they lose together.
    through = LinkSpec(loss_ratio=1.0 - (1.0 - SPEC.loss_ratio) ** 4, burst_frames=SPEC.burst_frames)
    fewest, most = loss_bounds(through, PINGS)
    assert all(fewest <= PINGS - answers <= most for answers in passed.values())


@pytest.mark.parametrize("spec", [CLEAN, SPEC, LinkSpec(delay_ms=10)])
def test_links_are_measured_to_be_what_the_spec_says(spec: LinkSpec, tmp_path: Path) -> None:
    graph = line("abc", spec)
    with enforced("netem", graph, tmp_path / "run") as (network, enforcer):
        verification = verify_links(enforcer, graph, network)
        for _ in range(ATTEMPTS - 1):
            if "missing" in verification.reason:
                verification = verify_links(enforcer, graph, network)
    print(f"{verification.verdict} in {verification.took_s} s: {verification.reason}")
    for check in verification.directions:
        print(check)
        assert check.delay_ms_achieved == pytest.approx(spec.delay_ms, abs=DELAY_TOLERANCE_MS)
        assert check.lost_observed == check.lost_decided
        if check.rate_kbps_asked is not None:
            assert check.rate_kbps_achieved == pytest.approx(spec.rate_kbps, rel=0.05)
        for problem in check.reason.split("; "):
            assert not problem or "delay" in problem


def test_a_run_with_faults_keeps_its_books(tmp_path: Path) -> None:
    faults = (
        (2.0, LinkDown("b", "c")),
        (5.0, LinkUp("b", "c")),
        (7.0, OneWayCut("b", "a")),
        (10.0, LinkUp("a", "b")),
        (12.0, Degrade("a", "b", {"loss_ratio": 1.0})),
        (15.0, Degrade("a", "b", {})),
    )
    nodes = {
        "a": lambda: Caller("c/echo", period_s=0.05),
        "c": lambda: Caller("a/echo", period_s=0.05),
    }
    given = plan(line("abc", CLEAN), nodes, 18.0, faults=faults, route_convergence_s=None)
    folder = tmp_path / "run"
    Emulation().run(given, folder, verify=False, enforcer="netem")
    records = Records(folder)
    down_s, up_s, cut_s, mended_s, lossy_s, clean_s = records.faults_s()
    at_c, at_a = (set(records.numbers("Datagram", device)) for device in "ca")
    for source, arrived, begin_s, end_s in (
        ("a", at_c, down_s, up_s),
        ("c", at_a, down_s, up_s),
        ("c", at_a, cut_s, mended_s),
        ("a", at_c, lossy_s, clean_s),
        ("c", at_a, lossy_s, clean_s),
    ):
        # What is sent just before the end may reach the bad link after it.
        assert silenced(records.sent(source, begin_s, end_s - STALL_S), arrived)
    assert at_c & set(records.sent("a", cut_s, mended_s))
    for begin_s, end_s in ((0.0, down_s), (up_s, cut_s), (mended_s, lossy_s), (clean_s, inf)):
        assert at_c & set(records.sent("a", begin_s, end_s))
        assert at_a & set(records.sent("c", begin_s, end_s))
    usage = records.of("link-usage")
    assert sum(record["cut"] for record in usage if record["link"] == "b-c") > 10
    assert sum(record["cut"] for record in usage if record["source"] == "b" and record["target"] == "a") > 5
    assert sum(record["lost"] for record in usage if record["source"] == "a") > 10
    verdict = json.loads((folder / "verdict.json").read_text())
    assert [row["run_status"] for row in verdict["links"] if row["medium"] == "b-c"] == ["ok", "ok"]
    assert {row["run_status"] for row in verdict["links"] if row["medium"] == "a-b"} == {"not verified"}
    assert "netem keeps no record of single frames" in verdict["reason"] or verdict["validity"] == "invalid"


def test_an_existing_topology_runs_on_links_with_mininets_own_parameters() -> None:
    link = {"bw": 10, "delay": "20ms", "loss": 0, "max_queue_size": 100}
    with Network(topo=LinearTopo(2, lopts=link), link=NetemLink) as network:
        times_ms = ping(network, "h1", network["h2"].IP(), 10)
    assert len(times_ms) == 10
    assert 120.0 <= min(times_ms) < 160.0  # three links there and back, on a slow machine
