"""Jobs: five million readings beside DuckDB and Dask, thin links, stragglers and lost workers, memory.

1. Group-by over N readings (35,000 keys) with two workers, one CSV file for all. Typed aggregates on our
   engine (two worker processes on loopback, results in a store) beside DuckDB with two threads; raw Python
   functions on our engine beside Dask with the same functions (`bag`, `foldby`) and two worker processes.
2. All links 1 Mbit/s (virtual time): a job where the data are, beside the same job with its only worker on
   the gateway's device, to which every record is shipped. Bytes are of records, pairs and rows between hosts.
3. Eight workers (virtual time): one is ten times slower; one is killed; beside eight that are well.
4. Memory of a map task's process over an input twenty times its budget.

    `python -m bench.mapreduce [--readings N] [--only PART ...]`
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random

from gateway.api.door import http_door
from gateway.gateway import Gateway
from gateway.mapreduce import JobSource
from gateway.mapreduce.coordinator import CoordinatorConfig
from gateway.mapreduce.deployment import jobs_plan
from gateway.mapreduce.executors.deployed import Gateway as Reached
from gateway.mapreduce.executors.deployed import run_deployed
from gateway.messages import NODE
from kv.client import Client
from kv.tiers import Tier, tier
from underlay.emulation.loopback import Hosts, Site, loopback_addresses
from underlay.node import Context
from underlay.plan import DevicePlan, NodePlan

DEVICES, HOURS = 200, 175
TYPED = """
from gateway.mapreduce import Count, Job, Max, Mean, Min, Observations

job = Observations().key("device").window("1h").aggregate(n=Count(), mean=Mean(), min=Min(), max=Max())
"""
RAW = """
from gateway.mapreduce import Job

def mapper(record):
    yield (record.device, int(record.t_event) // 3600), (1, round(record.value * 100))

def reducer(key, values):
    count = total = 0
    for n, value in values:
        count += n
        total += value
    return count, total

job = Job(mapper, reducer, reducer, key_names=("device", "hour"))
"""
DASK = """
import sys
import time
from distributed import Client, LocalCluster
import dask.bag as bag
from gateway.mapreduce.records import Row
from raw import mapper, reducer

def parse(line):
    device, kind, t_event, value = line.rstrip().split(",")
    return Row(device, 0, kind, float(t_event), 0.0, {"value": float(value)})

def first(pair):
    return pair[0]

def add(total, pair):
    return reducer(None, (pair[1],)) if total is None else reducer(None, (total, pair[1]))

def combine(a, b):
    return b if a is None else a if b is None else reducer(None, (a, b))

if __name__ == "__main__":
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None, "host": "127.0.0.1"}
    with LocalCluster(**options) as cluster, Client(cluster):
        began_s = time.perf_counter()
        lines = bag.read_text(sys.argv[1], blocksize=16 << 20)
        readings = lines.filter(lambda line: not line.startswith("device,")).map(parse)
        pairs = readings.map(mapper).flatten()
        found = pairs.foldby(first, add, None, combine, None, split_every=8).compute()
        print(time.perf_counter() - began_s, len(found), sum(n for _, (n, _) in found))
"""
DUCKDB = """
import sys
import time
import duckdb

with duckdb.connect(config={"threads": 2}) as connection:
    began_s = time.perf_counter()
    found = connection.execute(
        "select device, t_event // 3600 as hour, count(*), avg(value), min(value), max(value) "
        f"from read_csv('{sys.argv[1]}') group by all"
    ).fetchall()
    print(time.perf_counter() - began_s, len(found), sum(row[2] for row in found))
"""


def write_readings(path: Path, count: int) -> None:
    """In the order of their times, as they would have come."""
    rng = Random(1)
    step_s = HOURS * 3600 / (count / DEVICES)
    with path.open("w") as file:
        file.write("device,kind,t_event,value\n")
        for n in range(count // DEVICES):
            t_event = 1_357_000_000 // 3600 * 3600 + int(n * step_s)
            file.writelines(
                f"cam{device},temperature,{t_event},{rng.randint(-1000, 3500) / 100}\n"
                for device in range(DEVICES)
            )


class Place:
    """A store of one host, a gateway, and two workers, on loopback."""

    def __init__(self, folder: Path, budget_bytes: int) -> None:
        from gateway.mapreduce.worker import WorkerConfig

        made = tier("paxos", ("sink",), 1, 1)
        connect = partial(_client, made)
        workers = ("worker1", "worker2")
        addresses = loopback_addresses(("sink", *workers), "127.89.0.1")
        engine = jobs_plan(
            "sink",
            workers,
            connect,
            config=CoordinatorConfig(()),
            worker=WorkerConfig("", budget_bytes=budget_bytes),
        )
        devices = dict(engine)
        node = NodePlan(NODE, partial(Gateway, connect), 7000)
        own = engine["sink"]
        devices["sink"] = DevicePlan((*made.nodes()["sink"], node, *own.nodes), (*own.bindings, http_door()))
        self.hosts = Hosts(Site(folder, devices, addresses))
        self.url = f"http://{addresses['sink']}:8080"

    def await_ready(self) -> None:
        """The store answers and both workers are there."""
        while True:
            try:
                with urllib.request.urlopen(f"{self.url}/api/v1/jobs", timeout=5) as answer:
                    workers = json.loads(answer.read())["workers"]
                with urllib.request.urlopen(f"{self.url}/readyz", timeout=5):
                    if all(doing == "idle" for doing in workers.values()):
                        return
            except OSError:
                pass
            time.sleep(0.1)


def _client(made: Tier, lanes: int) -> Client[Context]:
    return Client(made.directory(), lanes=lanes)


def group_by(count: int) -> None:
    """Part 1."""
    with tempfile.TemporaryDirectory(prefix="birdhouse-bench-") as name:
        folder = Path(name)
        path = folder / "readings.csv"
        write_readings(path, count)
        print(f"{count:,} readings of {DEVICES} devices in {HOURS} hours, {path.stat().st_size / 1e6:.0f} MB")
        place = Place(folder, 64 << 20)
        with place.hosts:
            place.hosts.start("sink", "worker1", "worker2")
            place.await_ready()
            ours = {name: _ours(place, name, text, path) for name, text in (("typed", TYPED), ("raw", RAW))}
        duckdb_s = _other(folder, "duckdb", DUCKDB, path)
        dask_s = _other(folder, "dask", DASK, path)
    print(f"typed aggregates: {ours['typed'] / duckdb_s:.2f} times DuckDB's time (asked: at most 2)")
    print(f"raw functions: {ours['raw'] / dask_s:.2f} times Dask's time (asked: at most 1)")


def _ours(place: Place, name: str, text: str, path: Path) -> float:
    began_s = time.perf_counter()
    state, result = run_deployed(Reached(place.url), JobSource(name, f"{name}.py", text), [path])
    took_s = time.perf_counter() - began_s
    print(
        f"  our engine, {name}: {took_s:.2f} s, of which {state.seconds:.2f} s from submission to the end; "
        f"{state.maps} maps, {state.rows:,} rows, {state.records:,} records, {len(result.data):,} bytes"
    )
    return took_s


def _other(folder: Path, name: str, text: str, path: Path) -> float:
    script = folder / f"{name}_job.py"
    script.write_text(text)
    (folder / "raw.py").write_text(RAW)
    environment = {**os.environ, "PYTHONPATH": f"{folder}:{Path.cwd()}"}
    command = [sys.executable, str(script), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise RuntimeError(done.stderr)
    took_s, keys, records = done.stdout.split()[-3:]
    print(f"  {name}: {float(took_s):.2f} s, {int(keys):,} keys, {int(records):,} records")
    return float(took_s)


def thin_links() -> None:
    """Part 2."""
    from bench.mapreduce_simulated import thin

    near, far = thin(near=True), thin(near=False)
    print(f"  where the data are: {near.seconds:.1f} s, {near.bytes / 1e3:.0f} kB between hosts")
    print(f"  shipped to the gateway: {far.seconds:.1f} s, {far.bytes / 1e3:.0f} kB")
    fewer, sooner = far.bytes / near.bytes, far.seconds / near.seconds
    print(f"{fewer:.1f} times fewer bytes (asked: 10), {sooner:.1f} times sooner (asked: 5)")


def stragglers() -> None:
    """Part 3."""
    from bench.mapreduce_simulated import eight

    plain = eight()
    for told, took_s in (
        ("one of eight ten times slower", eight(slow=True)),
        ("the same without backups", eight(slow=True, backups=False)),
        ("one of eight killed", eight(kill=True)),
    ):
        print(
            f"  {told}: {took_s:.1f} s, {took_s / plain:.2f} times the {plain:.1f} s of eight that are well"
        )
    print("(asked: at most 1.3 times, with backups)")


def memory() -> None:
    """Part 4."""
    budget_mb = 8
    with tempfile.TemporaryDirectory(prefix="birdhouse-bench-") as name:
        path = Path(name, "readings.csv")
        write_readings(path, 20 * (budget_mb << 20) // 32)
        size_mb = path.stat().st_size / (1 << 20)
        for what, text in (
            ("raw, no combiner", RAW.replace("reducer, reducer,", "reducer,")),
            ("raw, combined", RAW),
        ):
            read_end, write_end = os.pipe()
            pid = os.fork()
            if pid == 0:
                os.write(write_end, f"{_grown_mb(path, text, budget_mb, Path(name)):.1f}".encode())
                os._exit(0)
            os.close(write_end)
            with os.fdopen(read_end) as pipe:
                grown_mb = float(pipe.read())
            os.waitpid(pid, 0)
            told = f"{size_mb:.0f} MB of input, a budget of {budget_mb} MB"
            print(f"  {what}: {told}: the process grew by {grown_mb:.0f} MB")


def _grown_mb(path: Path, text: str, budget_mb: int, folder: Path) -> float:
    from gateway.mapreduce.inputs import FileSplit
    from gateway.mapreduce.scratch import DiskScratch
    from gateway.mapreduce.tasks import MapOrder, ReduceOrder, map_task, reduce_task

    source = JobSource("memory", "memory.py", text)
    scratch = DiskScratch(folder / "scratch", isolated=False)
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins here
    before_mb = _status_mb("VmRSS")
    order = MapOrder(source, FileSplit(str(path), 0, path.stat().st_size), "m", budget_bytes=budget_mb << 20)
    mapped = map_task(order, scratch)
    assert not mapped.failure, mapped.failure
    reduce_task(ReduceOrder(source, ("m.0",), "r"), scratch)
    return _status_mb("VmHWM") - before_mb


def _status_mb(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = [line for line in lines if line.startswith(f"{field}:")]
    return int(line.split()[1]) / 1024


PARTS: dict[str, Callable[[], None]] = {"links": thin_links, "stragglers": stragglers, "memory": memory}


def main() -> None:
    """All parts, or some."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--readings", type=int, default=5_000_000)
    parser.add_argument("--only", nargs="*", default=["group", *PARTS])
    given = parser.parse_args()
    for part in given.only:
        print(f"\n{part}")
        if part == "group":
            group_by(given.readings)
        else:
            PARTS[part]()


if __name__ == "__main__":
    main()
