"""The storage tier beside etcd: three servers each, on loopback, on this machine, in the same run.

Both are driven by a client that is not the bottleneck (its use of the processor is printed): redis-benchmark
for us, h2load for etcd's gRPC. Every client has one request under way, always on the same key, against the
leader; values have 100 bytes; every write is on a majority's disks before it is acknowledged; reads are
linearizable. In each round both stores are started anew, on the same file system, one after the other, and
never run at once; what is printed is the median of the rounds, and the ratios are of these.

    `python -m bench.kv [--rounds N] [--folder PATH]`

`--folder` must be on a disk: a file system in memory has nothing to be durable on.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path
from statistics import median

from bench.kv_clusters import (
    HOSTS,
    SETTINGS,
    VALUE_BYTES,
    Load,
    Measured,
    etcd,
    file_system,
    missing_programs,
    running,
)
from kv.tiers import tier

WARM_UP = Load(clients=64, requests=3000)
BESIDE_ETCD = {
    "writes, 1 client": Load(1, 2_000),
    "writes, 64 clients": Load(64, 20_000),
    "writes, 256 clients": Load(256, 20_000),
    "reads, 64 clients": Load(64, 40_000, writes=False),
}
BY_OURSELVES = {
    "writes to 100,000 keys, 64 clients": Load(64, 20_000, keys=100_000),
    "writes, 64 clients, 16 in a pipeline": Load(64, 80_000, pipeline=16),
    "reads, 64 clients, 16 in a pipeline": Load(64, 160_000, writes=False, pipeline=16),
}
READS = "reads, 64 clients"
PIPELINED = "writes, 64 clients, 16 in a pipeline"
PIPELINED_PER_S = 10_000.0
READS_RATIO = 2.0

Round = dict[str, Measured]


def one_round(folder: Path) -> tuple[Round, Round]:
    """All loads on etcd, then all on ours."""
    with etcd(folder / "etcd") as theirs:
        theirs.measure(WARM_UP)
        of_theirs = {name: theirs.measure(load) for name, load in BESIDE_ETCD.items()}
    with running(tier("paxos", HOSTS, settings=SETTINGS), folder / "ours") as ours:
        ours.measure(WARM_UP)
        of_ours = {name: ours.measure(load) for name, load in (BESIDE_ETCD | BY_OURSELVES).items()}
    return of_theirs, of_ours


def middle(rounds: list[Round], name: str) -> Measured:
    """The median of each quantity."""
    fields = Measured.__struct_fields__
    return Measured(*(median(getattr(one[name], field) for one in rounds) for field in fields))


def main() -> int:
    """Print the medians, the ratios, and what was asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=None, help="where both keep their data")
    arguments = parser.parse_args()
    if missing := missing_programs():
        print(f"not installed: {', '.join(missing)}", file=sys.stderr)
        return 1
    theirs, ours = list[Round](), list[Round]()
    with tempfile.TemporaryDirectory(prefix="bench-kv-", dir=arguments.folder) as scratch:
        kind = file_system(Path(scratch))
        if kind in ("tmpfs", "ramfs"):
            print(f"{scratch} is in memory ({kind}): name a --folder on a disk", file=sys.stderr)
            return 1
        print(f"{os.cpu_count()} cores, {kind}, values of {VALUE_BYTES} bytes, {arguments.rounds} rounds")
        for number in range(arguments.rounds):
            of_theirs, of_ours = one_round(Path(scratch) / str(number))
            theirs.append(of_theirs)
            ours.append(of_ours)
    for name in BESIDE_ETCD:
        _compare(name, middle(theirs, name), middle(ours, name), READS_RATIO if name == READS else 1.0)
    for name in BY_OURSELVES:
        measured = middle(ours, name)
        verdict = f" (at least {PIPELINED_PER_S:,.0f}: {_met(measured.per_s >= PIPELINED_PER_S)})"
        print(f"{name}:")
        print(f"  ours  {_shown(measured)}{verdict if name == PIPELINED else ''}")
    return 0


def _compare(name: str, theirs: Measured, ours: Measured, asked: float) -> None:
    ratio = ours.per_s / theirs.per_s
    faster = ours.p50_ms < theirs.p50_ms
    print(f"{name}:")
    print(f"  etcd  {_shown(theirs)}")
    print(f"  ours  {_shown(ours)}")
    print(
        f"  ratio {ratio:.2f} (at least {asked:g}: {_met(ratio >= asked)}), "
        f"p50 {ours.p50_ms / theirs.p50_ms:.2f} (lower: {_met(faster)})"
    )


def _shown(measured: Measured) -> str:
    return (
        f"{measured.per_s:8,.0f} a second, p50 {measured.p50_ms:6.2f} ms; "
        f"cores: client {measured.client_cpu:.2f}, servers {measured.servers_cpu:.2f}"
    )


def _met(well: bool) -> str:
    return "met" if well else "missed"


if __name__ == "__main__":
    sys.exit(main())
