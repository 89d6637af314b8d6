"""The Mininet fabric, really run: messages over real sockets and several hops, faults, programs, failures."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

import pytest

from tests.underlay.emulation.lab import (
    EVERYBODY,
    Broken,
    Caller,
    Framed,
    Records,
    channel,
    line,
    plan,
    run,
)
from underlay.emulation import streams
from underlay.emulation.cleanup import FAILED
from underlay.emulation.processes import leave_mounts, mount_tmpfs, run_to_end
from underlay.errors import InputError, RunFailed
from underlay.faults import Crash, Degrade, Heal, OneWayCut, Partition, Pause, Restart, Resume
from underlay.plan import ProgramPlan

pytestmark = pytest.mark.emulation

LISTEN = """
import socket
server = socket.create_server(("", 8000))
while True:
    peer, _ = server.accept()
    print(peer.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16), flush=True)
"""
SHOW_CONGESTION_CONTROL = """
import socket, time
time.sleep(1)
link = socket.create_connection(("a", 8000))
print(link.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "run"


def test_messages_cross_three_hops_both_ways_by_datagram_and_by_stream(folder: Path) -> None:
    network = line("abcd")
    nodes = {"a": lambda: Caller("d/echo"), "b": lambda: Caller("d/echo", Framed)}
    records = run(plan(network, nodes, 1.5), folder)

    assert records.all[0]["event"] == "run-started"
    assert records.all[-1]["event"] == "run-ended"
    assert [r["t"] for r in records.all] == sorted(r["t"] for r in records.all)
    assert {(r["peer"], r["n"]) for r in records.noted("Datagram", "d")} >= {
        ("a/echo", n) for n in range(1, 6)
    }
    assert {r["n"] for r in records.noted("Answer", "a")} >= set(range(1, 6))
    assert [r["n"] for r in records.noted("FramedAnswer", "b")][:5] == [1, 2, 3, 4, 5]
    sent = next(r for r in records.of("messages-sent", "a") if r["message"] == "Datagram")
    assert sent["hops"] == 3 * sent["count"]
    assert {(r["source"], r["target"]) for r in records.of("link-usage")} >= {("a", "b"), ("d", "c")}
    assert not (folder / "shards").exists()


@pytest.mark.parametrize(
    ("network", "transmissions"), [(line("abc"), 2), (channel("abc"), 1)], ids=["links", "channel"]
)
def test_a_broadcast_reaches_everybody_one_hop_away(
    network: object, transmissions: int, folder: Path
) -> None:
    """From the middle: one copy for each link, but one transmission for a whole channel."""
    records = run(plan(network, {"b": lambda: Caller(EVERYBODY)}, 1.0), folder)  # type: ignore[arg-type]

    for device in "ac":
        assert {r["n"] for r in records.noted("Datagram", device)} >= {1, 2, 3}
    assert not records.noted("Datagram", "b")
    sent = [r for r in records.of("messages-sent", "b") if r["message"] == "Datagram"]
    sends = sum(r["count"] for r in sent) // transmissions
    assert sends >= 5
    assert sum(r["count"] for r in sent) == sends * transmissions


def test_a_crash_is_silence_and_a_restart_finds_what_was_durable(folder: Path) -> None:
    faults = ((1.0, Crash("c")), (2.0, Restart("c")))
    nodes = {"a": lambda: Caller("c/echo", Framed)}
    records = run(plan(line("abc"), nodes, 4.5, faults=faults), folder)

    heard_before = [r for r in records.noted("Framed", "c") if r["t"] < 1.0]
    assert len(heard_before) >= 5
    down = records.noted("down", "a")
    # While c has no power a hears nothing, not even that the connection is gone; the machine that comes back
    # knows nothing of the connection and resets it.
    assert down
    assert down[0]["t"] > 2.0
    started = records.noted("started with", "c")
    assert [r["n"] for r in started] == [0, len(heard_before)]
    assert [r["incarnation"] for r in records.of("node-started", "c")] == [1, 2]
    assert [r for r in records.noted("FramedAnswer", "a") if r["t"] > down[0]["t"]]


def test_without_a_restart_the_peer_learns_of_a_crash_by_a_timeout_only(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "USER_TIMEOUT_MS", 1200)
    nodes = {"a": lambda: Caller("c/echo", Framed)}
    records = run(
        plan(line("abc"), nodes, 4.0, faults=((1.0, Crash("c")),), route_convergence_s=None), folder
    )

    down = records.noted("down", "a")
    assert down
    assert down[0]["t"] > 2.0
    assert not [r for r in records.noted("FramedAnswer", "a") if r["t"] > 1.1]


def test_a_crashed_device_forwards_nothing_until_routes_lead_around_it(folder: Path) -> None:
    from tests.underlay.emulation.lab import WIRE
    from underlay.link import LinkSpec
    from underlay.network import Device, Link, Network

    slow = LinkSpec(rate_kbps=10_000, delay_ms=30)
    ends = (("a", "b", WIRE), ("b", "c", WIRE), ("a", "d", slow), ("d", "c", slow))
    ring = Network(tuple(Device(n) for n in "abcd"), tuple(Link(a, b, spec, spec) for a, b, spec in ends))
    given = plan(
        ring, {"a": lambda: Caller("c/echo")}, 3.0, faults=((1.0, Crash("b")),), route_convergence_s=0.8
    )
    records = run(given, folder)

    heard_s = [r["t"] for r in records.noted("Datagram", "c")]
    assert [t for t in heard_s if t < 1.0]
    assert not [t for t in heard_s if 1.05 < t < 1.8]
    assert [t for t in heard_s if t > 1.9]
    assert len(records.of("routes-changed")) == 1


def test_cuts_partitions_and_degraded_links_act_and_heal(folder: Path) -> None:
    faults = (
        (0.5, OneWayCut("b", "a")),
        (1.0, Heal()),
        (1.5, Partition((("a",), ("b",)))),
        (2.0, Heal()),
        (2.5, Degrade("a", "b", {"delay_ms": 200.0})),
    )
    records = run(
        plan(line("ab"), {"a": lambda: Caller("b/echo", period_s=0.05)}, 3.5, faults=faults), folder
    )

    def within(what: str, device: str, start_s: float, end_s: float) -> list[int]:
        return [r["n"] for r in records.noted(what, device) if start_s + 0.05 < r["t"] < end_s]

    assert within("Datagram", "b", 0.5, 1.0)
    assert not within("Answer", "a", 0.5, 1.0)
    assert within("Answer", "a", 1.0, 1.5)
    assert not within("Datagram", "b", 1.5, 2.0)
    assert within("Answer", "a", 2.0, 2.5)
    assert not within("Answer", "a", 2.5, 2.85)
    assert within("Answer", "a", 3.0, 3.5)
    assert [r["fault"]["fault"] for r in records.of("fault-applied")] == [
        "one-way-cut", "heal", "partition", "heal", "degrade",
    ]  # fmt: skip


def test_a_paused_device_answers_late_but_loses_nothing(folder: Path) -> None:
    faults = ((0.5, Pause("b")), (1.5, Resume("b")))
    records = run(plan(line("ab"), {"a": lambda: Caller("b/echo")}, 2.5, faults=faults), folder)

    answers = records.noted("Answer", "a")
    assert not [r for r in answers if 0.6 < r["t"] < 1.5]
    assert [r["n"] for r in answers][:20] == list(range(1, 21))


SERVER = """
import pathlib, socket, sys, time
starts = pathlib.Path(sys.argv[1]) / "starts"
starts.write_text((starts.read_text() if starts.exists() else "") + "x")
print("serving as", sys.argv[2], starts.read_text(), flush=True)
with socket.create_server((sys.argv[2], 8000)) as server:
    while True:
        server.accept()
"""


def test_a_program_serves_before_nodes_start_and_its_folder_survives_a_crash(folder: Path) -> None:
    server = ProgramPlan(
        "server", (sys.executable, "{dir}/server.py", "{dir}", "{ip}"), {"server.py": SERVER}, ready_port=8000
    )
    faults = ((0.5, Crash("b")), (1.0, Restart("b")))
    run(plan(line("ab"), {}, 2.5, faults=faults, programs={"b": (server,)}), folder)

    lines = (folder / "logs" / "b-server.log").read_text().split("\n")
    assert [text.split()[-1] for text in lines if text] == ["x", "xx"]
    assert (folder / "devices" / "b" / "server" / "starts").read_text() == "xx"


def test_every_device_speaks_the_tcp_that_the_simulation_models(folder: Path) -> None:
    show = ProgramPlan("show", (sys.executable, "-c", SHOW_CONGESTION_CONTROL), expected_to_end=True)
    server = ProgramPlan("server", (sys.executable, "-c", LISTEN), ready_port=8000)
    run(plan(line("abc"), {}, 1.5, programs={"a": (server,), "c": (show,)}), folder)

    assert "cubic" in (folder / "logs" / "c-show.log").read_text()
    assert "cubic" in (folder / "logs" / "a-server.log").read_text()


def test_a_program_that_ends_by_itself_is_reported_with_its_last_lines(folder: Path) -> None:
    dying = ProgramPlan("dying", ("/bin/sh", "-c", "echo I cannot go on; exit 7"))
    records = run(plan(line("ab"), {}, 1.0, programs={"a": (dying,)}), folder)

    (ended,) = records.of("process-ended", "a")
    assert (ended["program"], ended["status"], ended["last_lines"]) == ("dying", 7, ["I cannot go on"])
    assert "I cannot go on" in (folder / "verdict.json").read_text()


def test_a_program_that_does_not_exist_is_wrong_input(folder: Path) -> None:
    missing = ProgramPlan("missing", ("/no/such/program",))
    with pytest.raises(InputError, match="/no/such/program"):
        run(plan(line("ab"), {}, 1.0, programs={"a": (missing,)}), folder)
    assert not folder.exists()


def test_a_handler_that_raises_fails_the_run_and_keeps_the_logs(folder: Path) -> None:
    with pytest.raises(RunFailed, match="this node is broken on purpose"):
        run(plan(line("ab"), {"b": Broken}, 5.0), folder)

    assert "ZeroDivisionError" in (folder / "logs" / "b.log").read_text()
    assert "broken on purpose" in (folder / FAILED).read_text()
    assert sorted(path.name for path in folder.iterdir()) == [FAILED, "logs"]


def test_two_runs_side_by_side_do_not_disturb_each_other(tmp_path: Path) -> None:
    folders = [tmp_path / "one", tmp_path / "two"]
    nodes = {"a": lambda: Caller("c/echo")}
    runs = [threading.Thread(target=run, args=(plan(line("abc"), nodes, 1.5), folder)) for folder in folders]
    for each in runs:
        each.start()
    for each in runs:
        each.join()

    for folder in folders:
        assert [r["n"] for r in Records(folder).noted("Answer", "a")][:8] == list(range(1, 9))


def test_a_full_disk_is_one_clear_error(tmp_path: Path) -> None:
    """The run's folder is on a tiny file system, which only a child of this test ever sees."""
    small = tmp_path / "small"
    small.mkdir()
    said_by, says = os.pipe()
    pid = os.fork()
    if pid == 0:
        run_to_end(lambda: _fill_the_disk(small, says))
    os.close(says)
    with open(said_by) as pipe:
        said = pipe.read()
    os.waitpid(pid, 0)

    assert said.startswith("RunFailed: the disk is full"), said


def _fill_the_disk(small: Path, says: int) -> None:
    leave_mounts()
    mount_tmpfs(small, 256 * 1024)
    nodes = {device: (lambda: Caller(EVERYBODY, period_s=0.001)) for device in "abc"}
    try:
        run(plan(line("abc"), nodes, 20.0), small / "run")
        said = "no error"
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
    os.write(says, said.encode())
