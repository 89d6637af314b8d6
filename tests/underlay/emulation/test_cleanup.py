"""Whatever ends a run, nothing of it remains: no process, interface, namespace, control group or file."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from tests.underlay.emulation.lab import Caller, line, plan
from underlay.emulation import cleanup
from underlay.emulation.cleanup import FAILED, Journal, Kind, clean
from underlay.emulation.fabric import Emulation
from underlay.emulation.processes import die_with_parent, run_to_end
from underlay.network import Network
from underlay.plan import Plan, ProgramPlan

# --------------------------------------------------------------------------------------- the journal, as data


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state directory of this test's own."""
    directory = tmp_path / "state"
    monkeypatch.setattr(cleanup, "state_directory", lambda: directory)
    return directory


def make_everything(journal: Journal, folder: Path) -> None:
    journal.make_folder(folder)
    kinds: tuple[Kind, ...] = ("scratch", "output", "log")
    for kind in kinds:
        journal.record(kind, folder / kind)
        (folder / kind).mkdir()
        (folder / kind / "file").write_text("x")


def run_that_ends_with(error: BaseException, folder: Path) -> None:
    with Journal.open() as journal:
        make_everything(journal, folder)
        raise error


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_a_finished_run_keeps_outputs_and_logs(state: Path, tmp_path: Path) -> None:
    with Journal.open() as journal:
        make_everything(journal, tmp_path / "out" / "run")
        journal.finish()
    assert left(tmp_path / "out" / "run") == ["log", "output"]
    assert left(state) == []


def test_a_failed_run_keeps_its_logs_and_says_so(state: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no good"):
        run_that_ends_with(ValueError("no good"), tmp_path / "run")
    assert left(tmp_path / "run") == [FAILED, "log"]
    assert (tmp_path / "run" / FAILED).read_text() == "no good\n"


def test_an_interrupted_run_leaves_nothing_not_even_the_folders_above(state: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_that_ends_with(KeyboardInterrupt(), tmp_path / "out" / "run")
    assert not (tmp_path / "out").exists()


def test_a_folder_that_was_there_before_stays_with_what_was_in_it(state: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "notes").write_text("precious")
    with pytest.raises(KeyboardInterrupt):
        run_that_ends_with(KeyboardInterrupt(), folder)
    assert left(folder) == ["notes"]


def killed_while_making(folder: Path) -> None:
    """A run whose runner dies without a chance to tidy up."""
    pid = os.fork()
    if pid == 0:
        journal = Journal.open()
        make_everything(journal, folder)
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)


def test_clean_removes_what_a_killed_run_left_and_nothing_twice(state: Path, tmp_path: Path) -> None:
    killed_while_making(tmp_path / "run")
    assert left(tmp_path / "run") == ["log", "output", "scratch"]
    assert str(tmp_path / "run") in clean()
    assert not (tmp_path / "run").exists()
    assert clean() == []


def test_clean_leaves_runs_alone_whose_runner_lives(state: Path, tmp_path: Path) -> None:
    with Journal.open() as journal:
        make_everything(journal, tmp_path / "run")
        assert clean() == []
        assert left(tmp_path / "run") == ["log", "output", "scratch"]
        journal.finish()


def test_clean_knows_a_reused_process_id(state: Path, tmp_path: Path) -> None:
    """The journal names this very process's id, but another start time: its runner is gone."""
    killed_while_making(tmp_path / "run")
    (journal,) = state.iterdir()
    lines = (journal / "journal.jsonl").read_text().splitlines()
    first = msgspec.json.decode(lines[0])
    first["runner"]["pid"] = os.getpid()
    (journal / "journal.jsonl").write_text(
        "\n".join((msgspec.json.encode(first).decode(), *lines[1:])) + "\n"
    )
    clean()
    assert not (tmp_path / "run").exists()


def test_clean_survives_a_torn_last_line(state: Path, tmp_path: Path) -> None:
    killed_while_making(tmp_path / "run")
    (journal,) = state.iterdir()
    with (journal / "journal.jsonl").open("ab") as file:
        file.write(b'{"kind":"scra')
    clean()
    assert not (tmp_path / "run").exists()
    assert left(state) == []


# ------------------------------------------------------------------------------------------ real runs, killed


def busy_plan(duration_s: float) -> Plan:
    """Several hops, streams and datagrams, a program that has forked away, and a CPU limit."""
    graph = line("abcd")
    devices = (msgspec.structs.replace(graph.devices[0], cpu_share=0.5, memory_mb=200), *graph.devices[1:])
    daemon = ProgramPlan("daemon", ("/bin/sh", "-c", "setsid sleep 1000 & sleep 1000"))
    graph = Network(devices, graph.links)
    return plan(graph, {"a": lambda: Caller("d/echo")}, duration_s, programs={"b": (daemon,)})


class Traces:
    """What the run of one runner could leave behind on this machine, where others may be running theirs."""

    def __init__(self, runner: int) -> None:
        self._runner = runner
        self._worlds = {_world(child) for child in _children(runner)} - {_world(runner)}

    def found(self) -> list[str]:
        """Living processes of its PID namespace, interfaces, control groups, state."""
        interfaces = {
            line.split(":")[0].strip() for line in Path("/proc/net/dev").read_text().splitlines()[2:]
        }
        return [
            *(
                path.parent.name
                for path in Path("/proc").glob("[0-9]*/ns")
                if _world(path.parent.name) in self._worlds
            ),
            *(name for name in interfaces if name.endswith(("-eth0", "-eth1"))),
            *(str(path) for path in Path("/sys/fs/cgroup").glob(f"*/birdhouse-{self._runner}-*")),
            *(str(path) for path in cleanup.state_directory().glob(f"{self._runner}-*")),
        ]


def _world(pid: int | str) -> str:
    """Which PID namespace a process lives in; of zombies nothing is left but their exit status."""
    try:
        return os.readlink(f"/proc/{pid}/ns/pid")
    except OSError:
        return ""


def _children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def settled(condition: Callable[[], object]) -> bool:
    """Whether `condition` comes true within seconds: the kernel takes a namespace down in its own time."""
    for _ in range(1000):
        if condition():
            return True
        time.sleep(0.02)
    return False


@contextmanager
def running(folder: Path, duration_s: float = 60.0) -> Iterator[int]:
    """A runner in a process of its own; its id."""
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        run_to_end(lambda: _run_quietly(folder, duration_s))
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _run_quietly(folder: Path, duration_s: float) -> None:
    die_with_parent()
    try:
        Emulation().run(busy_plan(duration_s), folder, verify=False)
    except KeyboardInterrupt:
        os._exit(130)


def wait_for(path: Path) -> None:
    """Until the run is under way."""
    for _ in range(1000):
        if path.exists() and path.stat().st_size:
            return
        time.sleep(0.02)
    raise AssertionError(f"{path} never came")


@pytest.mark.emulation
@pytest.mark.sweep(5)
def test_a_runner_killed_at_any_moment_leaves_nothing_after_clean(seed: int, tmp_path: Path) -> None:
    with running(tmp_path / "out" / "run") as pid:
        time.sleep(random.Random(seed).uniform(0.0, 0.8))
        traces = Traces(pid)
        os.kill(pid, signal.SIGKILL)
        # Processes end by themselves; files and control groups are for `clean`.
        assert settled(lambda: not any(found.isdigit() for found in traces.found())), traces.found()
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        clean()
        assert traces.found() == []
    assert not (tmp_path / "out").exists()


@pytest.mark.emulation
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_an_interrupted_run_cleans_up_by_itself(number: signal.Signals, tmp_path: Path) -> None:
    with running(tmp_path / "out" / "run") as pid:
        wait_for(tmp_path / "out" / "run" / "shards" / "2-a.1.jsonl")
        traces = Traces(pid)
        assert len(traces.found()) > 5
        os.kill(pid, number)
        ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        assert ended is not None
        assert ended.si_status == 130
        assert traces.found() == []
    assert not (tmp_path / "out").exists()


@pytest.mark.emulation
def test_what_the_run_did_not_make_is_not_touched(tmp_path: Path) -> None:
    """A process of the same name, and a file beside the run's folder, are none of `clean`'s business."""
    stranger = os.fork()
    if stranger == 0:
        os.execvp("sleep", ["sleep", "60"])
    try:
        (tmp_path / "run-notes").write_text("precious")
        with running(tmp_path / "run") as pid:
            wait_for(tmp_path / "run" / "shards" / "2-a.1.jsonl")
            os.kill(pid, signal.SIGKILL)
        clean()
        assert os.waitpid(stranger, os.WNOHANG) == (0, 0)
        assert (tmp_path / "run-notes").read_text() == "precious"
    finally:
        os.kill(stranger, signal.SIGKILL)
        os.waitpid(stranger, 0)


@pytest.mark.emulation
def test_a_device_gets_its_share_of_cpu_and_memory(tmp_path: Path) -> None:
    with running(tmp_path / "run"):
        wait_for(tmp_path / "run" / "shards" / "2-a.1.jsonl")
        groups = {path.parent.name: path for path in Path("/sys/fs/cgroup").glob("*/birdhouse-*/a")}
        limits = [
            (path / name).read_text().strip()
            for path in Path("/sys/fs/cgroup").glob("**/birdhouse-*/a")
            for name in ("cpu.max", "cpu.cfs_quota_us", "memory.max", "memory.limit_in_bytes")
            if (path / name).exists()
        ]
        if not groups and not limits:
            pytest.skip("this machine lets nobody make control groups")
        assert sorted(limit.split()[0] for limit in limits) == ["209715200", "50000"]
    clean()
