"""All benchmarks one after another, each in a process of its own: `python -m bench [NAME ...]`.

Nothing runs beside a benchmark, and a failing one does not stop the rest; the exit status says if any failed.
"""

from __future__ import annotations

import subprocess
import sys
import time

BENCHMARKS = {
    "build": "building and removing networks, beside stock Mininet",
    "processes": "devices' processes with their real protocol engines",
    "ether": "lateness and throughput of the ether",
    "simulation": "message deliveries a second, beside SimPy",
    "kv": "the storage tier beside etcd",
    "kv_faults": "the storage tier without its leader, after a million writes, while keys move",
    "kv_links": "the storage tier on slow links",
    "gateway": "ingest by HTTP into the sharded store, beside mosquitto alone",
    "mapreduce": "jobs beside DuckDB and Dask, on thin links, with slow and lost workers",
    "gossip": "messages and latency of a broadcast, crashes, ten thousand birdhouses",
    "machine": "an operation on the key-value machine",
}


def main(names: list[str]) -> int:
    """Run the named benchmarks, or all."""
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        print(f"no such benchmark: {unknown[0]} (there are {', '.join(BENCHMARKS)})", file=sys.stderr)
        return 2
    failed = []
    for name in names or BENCHMARKS:
        print(f"\n== {name}: {BENCHMARKS[name]}\n", flush=True)
        began_s = time.perf_counter()
        if subprocess.run([sys.executable, "-m", f"bench.{name}"], check=False).returncode:
            failed.append(name)
        print(f"\n({time.perf_counter() - began_s:.0f} s)", flush=True)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
