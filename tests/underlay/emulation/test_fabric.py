"""The Mininet fabric, really run: messages over real sockets and several hops, faults, programs, failures."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

import pytest

from tests.underlay.emulation.lab import (
    EVERYBODY,
    STALL_S,
    WIRE,
    Broken,
    Caller,
    Framed,
    Records,
    channel,
    line,
    plan,
    run,
    silenced,
)
from underlay.emulation import streams
from underlay.emulation.cleanup import FAILED
from underlay.emulation.processes import leave_mounts, mount_tmpfs, run_to_end
from underlay.errors import InputError, RunFailed
from underlay.faults import (
    Crash,
    Degrade,
    FailDisk,
    Heal,
    LoseDisk,
    OneWayCut,
    Partition,
    Pause,
    Restart,
    Resume,
    RotDisk,
    SlowDisk,
)
from underlay.link import LinkSpec
from underlay.network import Device, Link, Network
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
    records = run(plan(network, nodes, 3.0), folder)

    assert records.all[0]["event"] == "run-started"
    assert records.all[-1]["event"] == "run-ended"
    assert [r["t"] for r in records.all] == sorted(r["t"] for r in records.all)
    assert {(r["peer"], r["n"]) for r in records.noted("Datagram", "d")} >= {
        ("a/echo", n) for n in range(1, 6)
    }
    assert set(records.numbers("Answer", "a")) >= set(range(1, 6))
    assert records.numbers("FramedAnswer", "b")[:5] == [1, 2, 3, 4, 5]
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
    records = run(plan(network, {"b": lambda: Caller(EVERYBODY)}, 2.5), folder)  # type: ignore[arg-type]

    for device in "ac":
        assert set(records.numbers("Datagram", device)) >= {1, 2, 3}
    assert not records.noted("Datagram", "b")
    sent = [r for r in records.of("messages-sent", "b") if r["message"] == "Datagram"]
    sends = sum(r["count"] for r in sent) // transmissions
    assert sends >= 5
    assert sum(r["count"] for r in sent) == sends * transmissions


def test_a_crash_is_silence_and_a_restart_finds_what_was_durable(folder: Path) -> None:
    faults = ((1.5, Crash("c")), (2.5, Restart("c")))
    nodes = {"a": lambda: Caller("c/echo", Framed)}
    records = run(plan(line("abc"), nodes, 7.0, faults=faults), folder)

    down = records.noted("down", "a")
    # While c has no power a hears nothing, not even that the connection is gone; the machine that comes back
    # knows nothing of the connection and resets it.
    assert down
    _, restarted_s = records.faults_s()
    assert down[0]["t"] > restarted_s
    first, second = records.noted("started with", "c")
    heard = [r for r in records.noted("Framed", "c") if r["t"] < second["t"]]
    answered = [r for r in records.noted("FramedAnswer", "a") if r["t"] < down[0]["t"]]
    assert answered
    assert first["n"] == 0
    # What was answered was durable before; of what was heard the power cut may have come first.
    assert len(answered) <= second["n"] <= len(heard)
    assert [r["incarnation"] for r in records.of("node-started", "c")] == [1, 2]
    assert [r for r in records.noted("FramedAnswer", "a") if r["t"] > down[0]["t"]]


def test_a_failing_disk_ends_the_nodes_and_not_the_run_and_a_lost_one_is_empty(folder: Path) -> None:
    faults = (
        (1.0, SlowDisk("b", 2.0)),
        (2.0, FailDisk("b")),
        (4.0, Restart("b")),
        (6.0, LoseDisk("b")),
        (7.0, Crash("b")),
        (8.0, Restart("b")),
    )
    nodes = {"a": lambda: Caller("b/echo", Framed)}
    records = run(plan(line("ab"), nodes, 11.0, faults=faults), folder)
    (ended,) = records.of("process-ended")
    assert (ended["device"], ended["program"]) == ("b", "nodes")
    assert records.noted("down", "a"), "its kernel closed the stream"
    starts = records.noted("started with", "b")
    assert [start["n"] > 0 for start in starts] == [False, True, False]
    assert [r["incarnation"] for r in records.of("node-started", "b")] == [1, 2, 3]
    assert any(r["t"] > starts[1]["t"] for r in records.noted("FramedAnswer", "a"))


def test_a_rotten_disk_ends_who_reads_it_and_that_is_a_finding(folder: Path) -> None:
    """This node does not know what to do about damage; the run fails and says why."""
    faults = ((3.0, Crash("b")), (3.5, RotDisk("b")), (4.0, Restart("b")))
    nodes = {"a": lambda: Caller("b/echo", Framed)}
    with pytest.raises(RunFailed, match="b: Damaged"):
        run(plan(line("ab"), nodes, 6.0, faults=faults), folder)


@pytest.mark.parametrize("timeout_ms", [1200, 60_000], ids=["within the run", "later"])
def test_without_a_restart_the_peer_learns_of_a_crash_by_a_timeout_only(
    timeout_ms: int, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "USER_TIMEOUT_MS", timeout_ms)
    nodes = {"a": lambda: Caller("c/echo", Framed)}
    given = plan(line("abc"), nodes, 6.0, faults=((1.5, Crash("c")),), route_convergence_s=None)
    records = run(given, folder)

    (crashed_s,) = records.faults_s()
    assert bool(records.noted("down", "a")) == (timeout_ms == 1200)
    answered = records.numbers("FramedAnswer", "a")
    assert answered
    sent_later = records.sent("a", crashed_s + STALL_S)
    assert sent_later
    assert not set(answered) & set(sent_later)


def test_a_crashed_device_forwards_nothing_until_routes_lead_around_it(folder: Path) -> None:
    slow = LinkSpec(rate_kbps=10_000, delay_ms=30)
    ends = (("a", "b", WIRE), ("b", "c", WIRE), ("a", "d", slow), ("d", "c", slow))
    ring = Network(tuple(Device(n) for n in "abcd"), tuple(Link(a, b, spec, spec) for a, b, spec in ends))
    nodes = {"a": lambda: Caller("c/echo", period_s=0.05)}
    given = plan(ring, nodes, 6.0, faults=((1.5, Crash("b")),), route_convergence_s=1.5)
    records = run(given, folder)

    heard = set(records.numbers("Datagram", "c"))
    (crashed_s,) = records.faults_s()
    (changed,) = records.of("routes-changed")
    assert heard & set(records.sent("a", end_s=crashed_s))
    assert silenced(records.sent("a", crashed_s, crashed_s + 1.5), heard)
    assert heard & set(records.sent("a", changed["t"]))


def test_cuts_partitions_and_degraded_links_act_and_heal(folder: Path) -> None:
    """Both call each other on a link that loses nothing by itself."""
    faults = (
        (0.5, OneWayCut("b", "a")),
        (2.0, Heal()),
        (3.5, Partition((("a",), ("b",)))),
        (5.0, Heal()),
        (6.5, Degrade("a", "b", {"delay_ms": 200.0})),
    )
    nodes = {"a": lambda: Caller("b/echo", period_s=0.05), "b": lambda: Caller("a/echo", period_s=0.05)}
    records = run(plan(line("ab"), nodes, 9.5, faults=faults), folder)

    assert [r["fault"]["fault"] for r in records.of("fault-applied")] == [
        "one-way-cut", "heal", "partition", "heal", "degrade",
    ]  # fmt: skip
    cut_s, mended_s, parted_s, joined_s, degraded_s = records.faults_s()
    at_a, at_b = (set(records.numbers("Datagram", device)) for device in "ab")
    assert silenced(records.sent("b", cut_s, mended_s), at_a)
    assert at_b >= set(records.sent("a", cut_s, mended_s))
    assert at_a & set(records.sent("b", mended_s, parted_s))
    assert silenced(records.sent("a", parted_s, joined_s), at_b)
    assert silenced(records.sent("b", parted_s, joined_s), at_a)
    assert at_a & set(records.sent("b", joined_s, degraded_s))
    assert at_b & set(records.sent("a", joined_s, degraded_s))

    sent_s = {r["n"]: r["t"] for r in records.noted("sent", "a")}
    took_s = {r["n"]: r["t"] - sent_s[r["n"]] for r in records.noted("Answer", "a")}
    assert min(took_s[n] for n in records.sent("a", joined_s, degraded_s) if n in took_s) < 0.4
    assert min(took_s[n] for n in records.sent("a", degraded_s + STALL_S) if n in took_s) >= 0.4


def test_a_paused_device_answers_late_but_loses_nothing(folder: Path) -> None:
    faults = ((0.5, Pause("b")), (2.0, Resume("b")))
    records = run(plan(line("ab"), {"a": lambda: Caller("b/echo")}, 4.5, faults=faults), folder)

    paused_s, resumed_s = records.faults_s()
    answered_before = [r["n"] for r in records.noted("Answer", "a") if r["t"] < resumed_s]
    assert silenced(records.sent("a", paused_s, resumed_s), answered_before)
    answers = records.numbers("Answer", "a")
    assert answers == list(range(1, len(answers) + 1))
    assert set(answers) >= set(records.sent("a", end_s=resumed_s))


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
    run(plan(line("ab"), {}, 4.0, faults=faults, programs={"b": (server,)}), folder)

    lines = (folder / "logs" / "b-server.log").read_text().split("\n")
    assert [text.split()[-1] for text in lines if text] == ["x", "xx"]
    assert (folder / "devices" / "b" / "server" / "starts").read_text() == "xx"


def test_every_device_speaks_the_tcp_that_the_simulation_models(folder: Path) -> None:
    show = ProgramPlan("show", (sys.executable, "-c", SHOW_CONGESTION_CONTROL), expected_to_end=True)
    server = ProgramPlan("server", (sys.executable, "-c", LISTEN), ready_port=8000)
    run(plan(line("abc"), {}, 4.0, programs={"a": (server,), "c": (show,)}), folder)

    assert "cubic" in (folder / "logs" / "c-show.log").read_text()
    assert "cubic" in (folder / "logs" / "a-server.log").read_text()


def test_a_program_that_ends_by_itself_is_reported_with_its_last_lines(folder: Path) -> None:
    dying = ProgramPlan("dying", ("/bin/sh", "-c", "echo I cannot go on; exit 7"))
    records = run(plan(line("ab"), {}, 2.5, programs={"a": (dying,)}), folder)

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
    runs = [threading.Thread(target=run, args=(plan(line("abc"), nodes, 4.0), folder)) for folder in folders]
    for each in runs:
        each.start()
    for each in runs:
        each.join()

    for folder in folders:
        assert Records(folder).numbers("Answer", "a")[:8] == list(range(1, 9))


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
        run(plan(line("abc"), nodes, 600.0), small / "run")
        said = "no error"
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
    os.write(says, said.encode())
