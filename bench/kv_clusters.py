"""The two stores that `bench.kv` compares: three hosts of ours, and three etcd servers, on loopback.

Owns how each is started, who leads it, and one load from a client of its own language: redis-benchmark for
us, h2load for etcd's gRPC. Both keep one request of a connection under way unless told to pipeline, and both
write with every acknowledged request on a majority's disks.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import msgspec
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from kv.client.outside import Store
from kv.client.patience import Patience
from kv.paxos import Settings
from kv.redis.binding import PORT, redis_port
from kv.redis.directory import Directory
from kv.redis.router import NODE, Router
from kv.tiers import Tier
from underlay.emulation.loopback import Hosts, Site, loopback_addresses
from underlay.node import Address, Node
from underlay.plan import DevicePlan, NodePlan

HOSTS = ("store1", "store2", "store3")
VALUE_BYTES = 100
SETTINGS = Settings(election_timeout_s=1.0)
"""etcd's own election timeout: a disk that others use too may stall for half a second."""
TRIES = 3
"""Of a load, if leaders change while it runs: clients who have no library that tries again give up then."""
READY_TIMEOUT_S = 20.0
ROUTER_PORT = 7000

_FIRST_IP = "127.77.0.1"
_ETCD_CLIENT_PORT, _ETCD_PEER_PORT = 23790, 23800
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class Load(msgspec.Struct, frozen=True):
    """What a client is to do."""

    clients: int
    requests: int
    writes: bool = True
    pipeline: int = 1
    """Requests that a client sends before it waits for the replies."""
    keys: int = 1
    """Chosen at random; 1: always the same."""


class ClientFailed(Exception):
    """A client ended before its load was done, for the reason that it gives."""


class Measured(msgspec.Struct, frozen=True):
    """What came of it."""

    per_s: float
    p50_ms: float
    client_cpu: float
    """Cores that the client used."""
    servers_cpu: float
    """Cores that the three servers used."""


# ---------------------------------------------------------------------------------------------------- our own


class Ours:
    """A tier whose hosts run, each with a Redis port."""

    name = "birdhouse"

    def __init__(self, tier: Tier, folder: Path) -> None:
        self.tier = tier
        self.addresses = loopback_addresses(tier.hosts, _FIRST_IP)
        groups = {name: list(replicas) for name, replicas in tier.groups.items()}
        router = NodePlan(NODE, partial(_router, tier, groups), ROUTER_PORT)
        plans = {
            host: DevicePlan(nodes=(router, *nodes), bindings=(redis_port(tier.hosts),))
            for host, nodes in tier.nodes().items()
        }
        self.hosts = Hosts(Site(folder, plans, self.addresses))
        self._ports = {node.name: node.port for plan in plans.values() for node in plan.nodes}

    def store(self, patience: Patience | None = None) -> Store:
        """A client of our own."""
        return Store(self.tier.directory(), self._locate, patience)

    def client(self, host: str, timeout_s: float = 5.0) -> redis.Redis:
        """Of that host, which does not try again by itself."""
        return redis.Redis(self.addresses[host], PORT, socket_timeout=timeout_s, retry=Retry(NoBackoff(), 0))

    def leader(self) -> str:
        """The host that executes a write; waits for it."""
        deadline_s = time.monotonic() + READY_TIMEOUT_S
        while time.monotonic() < deadline_s:
            for host in self.hosts.running:
                try:
                    with self.client(host) as client:
                        client.set("ready", "yes")
                except redis.RedisError:
                    continue
                return host
            time.sleep(0.02)
        raise TimeoutError("nobody leads")

    def measure(self, load: Load) -> Measured:
        """Load the leader by redis-benchmark, and wait until it is done."""
        for _ in range(TRIES - 1):
            try:
                return self._measure(load)
            except ClientFailed as error:
                print(f"  (begun again: {error})", file=sys.stderr)
        return self._measure(load)

    def _measure(self, load: Load) -> Measured:
        command = ["redis-benchmark", "-h", self.addresses[self.leader()], "-p", str(PORT), "--csv"]
        command += ["-c", str(load.clients), "-n", str(load.requests), "-d", str(VALUE_BYTES)]
        command += ["-P", str(load.pipeline), "-t", "set" if load.writes else "get"]
        if load.keys > 1:
            command += ["-r", str(load.keys)]
        pids = [self.hosts.pid(host) for host in self.hosts.running]
        output, client_cpu, servers_cpu = _run(command, pids)
        values = dict(zip(*(line.strip('"').split('","') for line in output.splitlines()[-2:]), strict=True))
        return Measured(float(values["rps"]), float(values["p50_latency_ms"]), client_cpu, servers_cpu)

    def _locate(self, replica: Address) -> tuple[str, int] | None:
        device, _, node = replica.partition("/")
        return self.addresses[device], self._ports[node]


@contextmanager
def running(tier: Tier, folder: Path) -> Iterator[Ours]:
    """Start all hosts, wait for a leader; kill all at the end."""
    ours = Ours(tier, folder)
    with ours.hosts:
        ours.hosts.start()
        ours.leader()
        yield ours


def _router(tier: Tier, groups: dict[str, list[str]]) -> Node:
    if tier.controller:
        return Router(Directory(tier.initial(), tier.controller))
    ((group, replicas),) = groups.items()
    return Router(Directory.of_one_group(group, replicas))


# ------------------------------------------------------------------------------------------------------- etcd


class Etcd:
    """Three servers that run."""

    name = "etcd"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._servers: list[subprocess.Popen[bytes]] = []
        key = _field(1, b"key:__rand_int__")
        (folder / "put").write_bytes(_grpc(key + _field(2, b"x" * VALUE_BYTES)))
        (folder / "get").write_bytes(_grpc(key))

    @property
    def pids(self) -> list[int]:
        """Of the servers."""
        return [server.pid for server in self._servers]

    def start(self) -> None:
        """All three; returns when one leads."""
        numbers = range(len(HOSTS))
        cluster = ",".join(f"{HOSTS[n]}=http://127.0.0.1:{_ETCD_PEER_PORT + n}" for n in numbers)
        for n in numbers:
            client, peer = (f"http://127.0.0.1:{port + n}" for port in (_ETCD_CLIENT_PORT, _ETCD_PEER_PORT))
            command = ["etcd", "--name", HOSTS[n], "--data-dir", str(self._folder / HOSTS[n])]
            command += ["--listen-client-urls", client, "--advertise-client-urls", client]
            command += ["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer]
            command += [
                "--initial-cluster",
                cluster,
                "--initial-cluster-state",
                "new",
                "--log-level",
                "error",
            ]
            with (self._folder / f"{HOSTS[n]}.log").open("wb") as log:
                self._servers.append(subprocess.Popen(command, stderr=log))
        self.leader()

    def stop(self) -> None:
        """Kill all."""
        for server in self._servers:
            server.kill()
            server.wait()

    def leader(self) -> str:
        """Where the leader listens; waits for it."""
        deadline_s = time.monotonic() + READY_TIMEOUT_S
        while time.monotonic() < deadline_s:
            for endpoint, status in self._statuses():
                if status["leader"] == status["header"]["member_id"]:
                    return endpoint
            time.sleep(0.1)
        raise TimeoutError("etcd has no leader")

    def measure(self, load: Load) -> Measured:
        """Load the leader by h2load, one request of a connection under way at a time. Raises where not every
        write has been executed: gRPC tells failures where h2load does not look."""
        leader, log = self.leader(), self._folder / "times"
        log.unlink(missing_ok=True)
        path = "Put" if load.writes else "Range"
        before = self._revision(leader)
        command = ["h2load", "-t1", f"-c{load.clients}", "-m1", f"-n{load.requests}"]
        command += ["-d", str(self._folder / ("put" if load.writes else "get")), f"--log-file={log}"]
        command += ["-H", "content-type: application/grpc", "-H", "te: trailers"]
        output, client_cpu, servers_cpu = _run(
            [*command, f"http://{leader}/etcdserverpb.KV/{path}"], self.pids
        )
        executed = self._revision(leader) - before
        if executed != (load.requests if load.writes else 0):
            raise RuntimeError(f"etcd executed {executed} of {load.requests} writes")
        took = re.search(r"finished in ([\d.]+)(us|ms|s), ([\d.]+) req/s", output)
        assert took is not None, output
        times_us = [int(line.split("\t")[2]) for line in log.read_text().splitlines()]
        return Measured(float(took[3]), median(times_us) / 1e3, client_cpu, servers_cpu)

    def _statuses(self) -> list[tuple[str, Any]]:
        endpoints = ",".join(f"127.0.0.1:{_ETCD_CLIENT_PORT + n}" for n in range(len(HOSTS)))
        asked = subprocess.run(
            ["etcdctl", "--endpoints", endpoints, "endpoint", "status", "--write-out", "json"],
            capture_output=True,
            env={**os.environ, "ETCDCTL_API": "3"},
            check=False,
        )
        said = json.loads(asked.stdout) if asked.stdout.strip() else []
        return [(each["Endpoint"], each["Status"]) for each in said]

    def _revision(self, leader: str) -> int:
        return int(dict(self._statuses())[leader]["header"]["revision"])


@contextmanager
def etcd(folder: Path) -> Iterator[Etcd]:
    """Start it, wait for a leader; kill it at the end."""
    folder.mkdir(parents=True)
    servers = Etcd(folder)
    try:
        servers.start()
        yield servers
    finally:
        servers.stop()


def _field(number: int, data: bytes) -> bytes:
    """A field of bytes, shorter than 128, as protocol buffers have it."""
    return bytes((number << 3 | 2, len(data))) + data


def _grpc(message: bytes) -> bytes:
    return b"\0" + struct.pack(">I", len(message)) + message


# ---------------------------------------------------------------------------------------------------- helpers


def missing_programs() -> list[str]:
    """What is needed and not installed."""
    return [name for name in ("etcd", "etcdctl", "h2load", "redis-benchmark") if not shutil.which(name)]


def file_system(folder: Path) -> str:
    """The type of the one that a folder is on."""
    asked = subprocess.run(
        ["stat", "--file-system", "--format=%T", str(folder)], capture_output=True, text=True, check=True
    )
    return asked.stdout.strip()


def cpu_s(pids: Iterable[int]) -> float:
    """Processor time that these processes have used, user and system."""
    total = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / _TICKS_PER_S


def _run(command: list[str], servers: list[int]) -> tuple[str, float, float]:
    """Run a client to its end: its output, and how many cores it and the servers used."""
    began_s, before_s = time.monotonic(), cpu_s(servers)
    client = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert client.stdout is not None
    output = client.stdout.read()
    _, status, usage = os.wait4(client.pid, 0)
    client.returncode = os.waitstatus_to_exitcode(status)
    took_s = time.monotonic() - began_s
    if client.returncode:
        raise ClientFailed(f"{command[0]}: {output.strip()[:200]}")
    return output, (usage.ru_utime + usage.ru_stime) / took_s, (cpu_s(servers) - before_s) / took_s
