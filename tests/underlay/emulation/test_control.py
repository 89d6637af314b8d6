"""Looking inside a run from outside, through its control socket; and Mininet's command line in a run."""

from __future__ import annotations

import os
import pty
import signal
import sys
import time
from collections.abc import Iterator
from math import inf
from pathlib import Path

import pytest

from tests.underlay.emulation.lab import Caller, Records, line, plan
from underlay.emulation import control
from underlay.emulation.fabric import Emulation
from underlay.emulation.processes import die_with_parent, run_to_end
from underlay.errors import InputError
from underlay.faults import Crash, Degrade, LinkDown
from underlay.plan import Plan, ProgramPlan

pytestmark = pytest.mark.emulation

TALKER = ProgramPlan("talker", ("/bin/sh", "-c", "echo I am $BIRDHOUSE_DEVICE; exec sleep 1000"))


@pytest.fixture
def up(tmp_path: Path) -> Iterator[str]:
    """A network of three that stays up; its run's name."""
    folder = tmp_path / "run"
    given = plan(line("abc"), {"a": lambda: Caller("c/echo")}, inf, programs={"b": (TALKER,)})
    says, tells = os.pipe()
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        run_to_end(lambda: _keep_up(given, folder, tells))
    try:
        os.read(says, 1)
        (run,) = (run for run in control.runs() if run.startswith(f"{pid}-"))
        yield run
        control.stop(run)
    except BaseException:
        os.kill(pid, signal.SIGKILL)
        raise
    finally:
        _, ended = os.waitpid(pid, 0)
        os.close(says)
        os.close(tells)
    assert ended == 0
    assert Records(folder).all[-1]["event"] == "run-ended"
    assert run not in control.runs()


def _keep_up(given: Plan, folder: Path, tells: int) -> None:
    die_with_parent()

    def started() -> None:
        os.write(tells, b"!")

    Emulation().run(given, folder, verify=False, on_start=started)


def output_of(run: str, device: str, *argv: str) -> tuple[int, str]:
    """A command's exit status and what it printed."""
    says, tells = os.pipe()
    sys.stdout.flush()
    stdout = os.dup(1)
    os.dup2(tells, 1)
    try:
        status = control.execute(device, argv, run)
    finally:
        os.dup2(stdout, 1)
        os.close(stdout)
        os.close(tells)
    with open(says) as pipe:
        return status, pipe.read()


def test_a_command_runs_inside_a_device_and_knows_the_others_by_name(up: str) -> None:
    status, text = output_of(up, "a", "ping", "-c", "1", "-W", "2", "c")
    assert status == 0
    assert "1 received" in text
    assert output_of(up, "a", "cat", "/proc/net/dev")[1].count("-eth") == 1
    assert output_of(up, "b", "cat", "/proc/net/dev")[1].count("-eth") == 2


def test_exit_statuses_come_through(up: str) -> None:
    assert output_of(up, "a", "sh", "-c", "exit 7")[0] == 7
    assert output_of(up, "a", "sh", "-c", "kill -9 $$")[0] == 137
    assert output_of(up, "a", "no-such-program")[0] == 127


def test_faults_can_be_made_by_hand_and_are_seen(up: str) -> None:
    control.inject(Crash("b"), up)
    devices = control.status(up)["devices"]
    assert [devices[name]["up"] for name in "abc"] == [True, False, True]
    assert output_of(up, "a", "ping", "-c", "1", "-W", "1", "c")[0] == 1


def test_logs_are_found_by_device(up: str) -> None:
    (log,) = (path for path in control.logs("b", up) if path.name == "b-talker.log")
    for _ in range(500):
        if log.read_text():
            break
        time.sleep(0.02)
    assert log.read_text() == "I am b\n"


def test_a_device_that_is_not_there_is_wrong_input(up: str) -> None:
    with pytest.raises(InputError, match="no device 'd'"):
        control.execute("d", ("true",), up)
    with pytest.raises(InputError, match="no device 'd'"):
        control.logs("d", up)
    with pytest.raises(InputError, match="'d'"):
        control.inject(Crash("d"), up)
    with pytest.raises(InputError, match="a and c are no neighbours"):
        control.inject(LinkDown("a", "c"), up)
    with pytest.raises(InputError, match="loss_ratio"):
        control.inject(Degrade("a", "b", {"loss_ratio": 2.0}), up)


def up_with_command_line(folder: str) -> None:
    Emulation().run(plan(line("abc"), {}, inf), Path(folder), verify=False, cli=True)


def test_mininets_command_line_works_on_a_terminal_and_leaving_it_ends_the_run(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    pid, terminal = pty.fork()
    if pid == 0:
        # A fresh interpreter, whose standard streams are the terminal and not what pytest made of them.
        script = f"import {__name__} as test; test.up_with_command_line({str(folder)!r})"
        run_to_end(lambda: os.execv(sys.executable, [sys.executable, "-c", script]))
    typed = [b"a ping -c 1 -W 2 c\n", b"nodes\n", b"exit\n"]
    said = b""
    while True:
        try:
            said += os.read(terminal, 4096)
        except OSError:  # the other side is gone
            break
        if said.count(b"mininet> ") > 3 - len(typed) and typed:
            os.write(terminal, typed.pop(0))
    _, ended = os.waitpid(pid, 0)
    os.close(terminal)
    assert ended == 0, said.decode()
    assert b"1 received" in said
    assert b"a b c" in said
    assert Records(folder).all[-1]["event"] == "run-ended"
