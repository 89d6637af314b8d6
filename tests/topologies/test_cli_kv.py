"""`birdhouse kv`: a store is served by real processes, used, changed, broken, and found again."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from redis.cluster import RedisCluster

COMMAND = [sys.executable, "-c", "from topologies.cli import main; main()", "kv"]
PATIENCE_S = 40.0
PHOTOGRAPH = bytes(range(256)) * 234
"""More than a log takes."""


def free_ports(count: int) -> int:
    """The first of so many free ports in a row."""
    for first in range(20_000 + os.getpid() % 400 * 20, 32_000, 20):
        taken = False
        for port in range(first, first + count):
            with socket.socket() as probe:
                taken |= probe.connect_ex(("127.0.0.1", port)) == 0
        if not taken:
            return first
    raise AssertionError("no ports are free")


def kv(*arguments: str | Path, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [*COMMAND, *map(str, arguments)], input=stdin, capture_output=True, timeout=PATIENCE_S, check=False
    )


def done(*arguments: str | Path) -> bytes:
    """What a command prints that must succeed."""
    result = kv(*arguments)
    assert result.returncode == 0, result.stderr.decode()
    return result.stdout


class Serving:
    """A running `birdhouse kv serve`."""

    def __init__(self, process: subprocess.Popen[bytes], said: Path) -> None:
        self.process = process
        self._said = said

    def said(self) -> str:
        return self._said.read_text()

    def until(self, words: str) -> None:
        """Wait for it to say that."""
        end_s = time.monotonic() + PATIENCE_S
        while words not in self.said():
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < end_s, self.said()
            time.sleep(0.05)

    def pid_of(self, host: str) -> int:
        (line,) = [line for line in self.said().splitlines() if f"{host}: redis-cli" in line]
        return int(line.split()[-1])


@contextmanager
def serving(folder: Path, *options: str) -> Iterator[Serving]:
    """Serve until the block ends, and check that nothing is left of it then."""
    said = folder.with_suffix(".log")
    with said.open("wb") as file:
        process = subprocess.Popen(
            [*COMMAND, "serve", "--dir", str(folder), *options], stdout=file, stderr=subprocess.STDOUT
        )
    running = Serving(process, said)
    try:
        running.until("ready")
        yield running
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE_S) == 0, running.said()


@pytest.mark.timeout(180)
def test_a_sharded_store_is_served_used_broken_changed_and_found_again(tmp_path: Path) -> None:
    folder, port = tmp_path / "store", free_ports(8)
    photograph = tmp_path / "photograph"
    photograph.write_bytes(PHOTOGRAPH)
    at = ("--dir", folder)
    with serving(folder, "--port", str(port)) as running:
        done("put", "hello", "world", *at)
        done("put", "photo", f"@{photograph}", *at)
        assert done("get", "hello", *at) == b"world"
        assert kv("get", "nothing", *at).returncode == 1
        client = RedisCluster(host="127.0.0.1", port=port)
        for number in range(30):
            client.set(f"obs:{{cam3}}:{number:02}", number)
        assert client.get("photo") == PHOTOGRAPH
        assert done("scan", "obs:", *at).splitlines() == [b"obs:{cam3}:%02d" % number for number in range(30)]
        assert done("range", "obs:{cam3}:07", "obs:{cam3}:09", *at) == b"obs:{cam3}:07\t7\nobs:{cam3}:08\t8\n"
        assert b"16384 of 16384 slots are served" in done("status", *at)

        os.kill(running.pid_of("store2"), signal.SIGKILL)
        running.until("store2 has ended")
        done("put", "hello", "again", *at)
        assert client.get("photo") == PHOTOGRAPH

        done("move", "0-99", "g2", *at)
        done("join", "g4", "store1", "store3", "store5", *at)
        for group in ("g1", "g2", "g3"):  # wherever the photograph is, it moves
            done("leave", group, *at)
            assert done("get", "photo", *at) == PHOTOGRAPH
        client.close()
    with serving(folder):
        assert done("get", "hello", *at) == b"again"
        assert done("get", "photo", *at) == PHOTOGRAPH
        assert len(done("scan", "obs:", *at).splitlines()) == 30


@pytest.mark.timeout(120)
@pytest.mark.parametrize("kind", ["paxos", "primary-backup"])
def test_a_store_of_one_group_survives_the_death_of_who_serves_it(kind: str, tmp_path: Path) -> None:
    folder = tmp_path / "store"
    with serving(folder, "--kind", kind, "--port", str(free_ports(6))) as running:
        done("put", "k", "v", "--dir", folder)
        os.kill(running.pid_of("store1"), signal.SIGKILL)
        running.until("store1 has ended")
        assert done("get", "k", "--dir", folder) == b"v"
        done("put", "k", "w", "--dir", folder)
        assert done("get", "k", "--dir", folder) == b"w"


@pytest.mark.timeout(120)
def test_nothing_is_left_of_a_store_whose_parent_was_killed(tmp_path: Path) -> None:
    folder, port = tmp_path / "store", free_ports(6)
    said = tmp_path / "said"
    with said.open("wb") as file:
        command = [*COMMAND, "serve", "--kind", "paxos", "--dir", str(folder), "--port", str(port)]
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
    running = Serving(process, said)
    running.until("ready")
    hosts = [running.pid_of(f"store{number}") for number in (1, 2, 3)]
    process.kill()
    process.wait(PATIENCE_S)
    end_s = time.monotonic() + PATIENCE_S
    while any(_lives(pid) for pid in hosts):
        assert time.monotonic() < end_s, "hosts outlived their parent"
        time.sleep(0.05)
    with serving(folder):
        done("put", "k", "v", "--dir", folder)


def test_wrong_input_is_one_line_and_leaves_nothing_behind(tmp_path: Path) -> None:
    port = free_ports(3)
    with socket.create_server(("127.0.0.1", port + 1)):
        result = kv("serve", "--kind", "paxos", "--dir", tmp_path / "store", "--port", str(port))
    assert result.returncode == 2
    assert f"port {port + 1} is taken, which is store2's" in result.stderr.decode()
    assert not (tmp_path / "store").exists()

    result = kv("get", "k", "--dir", tmp_path / "nowhere")
    assert (result.returncode, len(result.stderr.splitlines())) == (2, 1)
    assert "there is no store" in result.stderr.decode()

    (tmp_path / "mine").write_text("precious")
    result = kv("serve", "--dir", tmp_path)
    assert (result.returncode, len(result.stderr.splitlines())) == (2, 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine"]


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
