"""`birdhouse up`: the whole system is used from outside with everybody's tools, broken, and taken down."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from redis.cluster import RedisCluster
from redis.exceptions import RedisError

from underlay.emulation import control
from underlay.emulation.cleanup import state_directory
from underlay.faults import Crash, Restart

pytestmark = pytest.mark.emulation

COMMAND = [sys.executable, "-c", "from topologies.cli import main; main()"]
PATIENCE_S = 40.0
SPEC = """
name = "small"
architectures = ["star", "caching"]

[network]
shape = "grid"
birdhouses = 4
relays = 1

[storage]
kind = "sharded"
hosts = 3
groups = 2
replicas = 3

[[sensor]]
kind = "temperature"
period_s = 0.5

[[sensor]]
kind = "photograph"
period_s = 5.0
"""


class Up:
    """A system that is up."""

    def __init__(self, process: subprocess.Popen[bytes], ways: dict[str, dict[str, Any]]) -> None:
        self.process = process
        self.ways = ways
        self.run = control.runs()[-1]

    def port(self, way: str) -> int:
        port: int = self.ways[way]["local_port"]
        return port

    def http(self) -> httpx.Client:
        return httpx.Client(base_url=f"http://127.0.0.1:{self.port('http')}", timeout=20.0)


@contextmanager
def up(tmp_path: Path, *options: str) -> Iterator[Up]:
    """Bring it up; whatever happens it is down at the end."""
    (tmp_path / "small.toml").write_text(SPEC)
    said, errors = tmp_path / "said", tmp_path / "errors"
    with said.open("wb") as out, errors.open("wb") as err:
        process = subprocess.Popen(
            [*COMMAND, "up", "small.toml", "--json", *options], stdout=out, stderr=err, cwd=tmp_path
        )
    try:
        await_(lambda: said.read_text().rstrip().endswith("]"), process, errors)
        yield Up(process, {way["name"]: way for way in json.loads(said.read_text())})
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(PATIENCE_S)


def await_(
    true: Callable[[], bool], process: subprocess.Popen[bytes] | None = None, log: Path = Path()
) -> None:
    """Until it is true, while the process lives."""
    end_s = time.monotonic() + PATIENCE_S
    while not true():
        assert process is None or process.poll() is None, log.read_text()
        assert time.monotonic() < end_s
        time.sleep(0.1)


def output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=True).stdout


@pytest.mark.timeout(180)
@pytest.mark.needs("mosquitto_sub", "dig", "redis-cli", "curl")
def test_everybodys_tools_reach_it_a_crash_is_seen_and_nothing_is_left(tmp_path: Path) -> None:
    with up(tmp_path, "-a", "star") as system:
        with system.http() as http:
            await_(lambda: http.get("/readyz").status_code == 200)
            await_(lambda: len(http.get("/api/v1/devices").json()) == 4)
            await_(lambda: http.get("/api/v1/devices/cam1/photograph/latest.jpg").status_code == 200)
            shown = json.loads(output("curl", "-sSf", f"{http.base_url}/api/v1/state"))
            assert {device["name"] for device in shown["devices"]} >= {"cam1", "hub", "sink", "store1"}
            await_(lambda: any(link["bytes_per_s"] for link in http.get("/api/v1/network").json()["links"]))

            line = output(
                "mosquitto_sub", "-p", str(system.port("mqtt")), "-t", "birdhouse/+/+", "-C", "1", "-F", "%t"
            )
            assert re.fullmatch(r"birdhouse/cam\d/\w+\n", line)
            for transport in ("+notcp", "+tcp"):
                found = output(
                    "dig",
                    "+short",
                    transport,
                    "@127.0.0.1",
                    "-p",
                    str(system.port("dns")),
                    "cam1.birdhouse.test",
                )
                assert found.strip() == control.status(system.run)["devices"]["cam1"]["ip"]
            for n in range(20):
                host = f"redis-store{1 + n % 3}"
                output("redis-cli", "-c", "-p", str(system.port(host)), "SET", f"k{n}", str(n))

            with RedisCluster(host="127.0.0.1", port=system.port("redis-store1")) as redis:
                assert [redis.get(f"k{n}") for n in range(20)] == [b"%d" % n for n in range(20)]
                assert {node.host for node in redis.get_nodes()} == {"127.0.0.1"}
                http.post("/api/v1/faults", json={"fault": "crash", "device": "store3"}).raise_for_status()
                await_(lambda: not _state(http, "store3")["up"])
                await_(lambda: _served(redis))
                assert http.post("/api/v1/faults", json={"fault": "crash", "device": "x"}).status_code == 409
            control.inject(Crash("cam2"), system.run)
            await_(lambda: not _state(http, "cam2")["up"])
            before = _state(http, "cam2")["kept"]
            control.inject(Restart("cam2"), system.run)
            await_(lambda: _state(http, "cam2")["kept"] > before)
        system.process.send_signal(signal.SIGINT)
        assert system.process.wait(PATIENCE_S) == 130
    assert not (state_directory() / system.run).exists()
    assert not (tmp_path / "runs").exists()


@pytest.mark.timeout(120)
@pytest.mark.needs("coap-client-notls")
def test_coap_reaches_the_caches_and_a_killed_system_is_cleaned_up(tmp_path: Path) -> None:
    with up(tmp_path, "-a", "caching") as system:
        address = f"coap://127.0.0.1:{system.port('coap')}/cam1/temperature"
        await_(lambda: _coap(address) != b"")
        door = f"coap://127.0.0.1:{system.port('coap-ingest')}/observations"
        seen = '{"device": "phone", "sequence": 1, "kind": "temperature", "payload": {"h": 2150, "u": "Cel"}}'
        post = ("coap-client-notls", "-m", "post", "-t", "50", "-B", "3", "-e", seen, door)
        assert _said(post) == b"", "it is kept"
        assert _said(post) == b"duplicate"
        children = _descendants(system.process.pid)
        system.process.kill()
        system.process.wait(PATIENCE_S)
        await_(lambda: not any(_lives(pid) for pid in children))
        subprocess.run([*COMMAND, "clean"], check=True, timeout=PATIENCE_S)
        assert not (state_directory() / system.run).exists()


@pytest.mark.timeout(60)
def test_a_port_that_is_not_to_be_had_is_one_line_and_nothing_is_built(tmp_path: Path) -> None:
    (tmp_path / "small.toml").write_text(SPEC)
    for option, words in (("gopher=70", "no way in called 'gopher'"), ("http", "names no port")):
        done = subprocess.run(
            [*COMMAND, "up", "small.toml", "--port", option],
            capture_output=True,
            check=False,
            text=True,
            cwd=tmp_path,
        )
        assert (done.returncode, len(done.stderr.strip().splitlines())) == (2, 1), done.stderr
        assert words in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["small.toml"]


def _state(http: httpx.Client, device: str) -> dict[str, Any]:
    devices = http.get("/api/v1/state").json()["devices"]
    found: dict[str, Any] = next(each for each in devices if each["name"] == device)
    return found


def _served(redis: RedisCluster) -> bool:
    try:
        return all(redis.set(f"again{n}", n) for n in range(10))
    except RedisError:
        return False


def _coap(address: str) -> bytes:
    return _said(("coap-client-notls", "-m", "get", "-B", "3", address))


def _said(command: Sequence[str]) -> bytes:
    ran = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE_S, check=False
    )
    return ran.stdout.strip()


def _descendants(pid: int) -> list[int]:
    found = [pid]
    for parent in found:
        for task in Path(f"/proc/{parent}/task").iterdir():
            found += [int(child) for child in (task / "children").read_text().split()]
    return found[1:]


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
