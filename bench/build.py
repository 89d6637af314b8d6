"""Building and removing a star with a rate on every link: ours against stock Mininet with TCLink.

Both build the same shape, a hub and n hosts around it, each link limited to 10 Mbit/s, each host with Mininet's own
address. Stock Mininet's ends when its rates are in the kernel (HTB). Ours ends when every TAP is up and its
descriptor and spec are ready to be handed to the ether; starting the ether, one process for all links, is measured
where it is tested. Removal ends when `stop()` returns; that of stock includes its shells, of which ours has none.

Each build is a process of its own, medians of several runs; the kernel takes namespaces apart in its own time, so
each run waits until the one before is gone. Mininet's global sysctls are skipped, in its favour and the machine's.

    `python -m bench.build [--runs N]`
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

SIZES = (50, 100, 200, 400, 800, 1000)
COMPARED = 200


def ours(hosts: int) -> tuple[float, float]:
    """Seconds to build and to remove a star of TAP links."""
    from underlay.emulation.links import TapLink
    from underlay.emulation.net import Network

    return _timed(lambda: Network(topo=_star(hosts), link=TapLink))


def planned(hosts: int) -> tuple[float, float]:
    """The same star as a plan builds it: unnumbered links, permanent neighbours, static routes."""
    from underlay.emulation.links import TapLink
    from underlay.emulation.net import Network
    from underlay.emulation.unnumbered import configure_unnumbered
    from underlay.link import LinkSpec

    spec = LinkSpec(rate_kbps=10_000)
    names = [f"h{number}" for number in range(1, hosts + 1)]
    addresses = {name: f"10.1.{number >> 8}.{number & 255}" for number, name in enumerate(["hub", *names])}
    routes = {name: [("hub", "hub", f"{name}-eth0")] for name in names}
    routes["hub"] = [(name, name, f"hub-eth{port}") for port, name in enumerate(names)]

    def build() -> Network:
        net = Network(link=TapLink)
        with net.batch():
            hub = net.addHost("hub", ip=None)
            for name in names:
                net.addLink(hub, net.addHost(name, ip=None), model=spec)
            configure_unnumbered(net, addresses, routes)
        return net

    return _timed(build)


def stock(hosts: int) -> tuple[float, float]:
    """Seconds that Mininet itself takes, with TCLink."""
    from underlay.emulation.stock import Mininet, TCLink

    Mininet.inited = True
    return _timed(lambda: Mininet(topo=_star(hosts), link=TCLink, controller=None))


def main() -> None:
    """Print the tables."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--runs", type=int, default=3, help="runs of each, of which the median is shown")
    options.add_argument("--one", nargs=2, metavar=("WHAT", "HOSTS"), help=argparse.SUPPRESS)
    chosen = options.parse_args()
    if chosen.one:
        what, hosts = chosen.one
        print(json.dumps(_KINDS[what](int(hosts))))
        return
    print(
        f"star with a rate on every link, seconds, median of {chosen.runs} runs, without the ether's own start"
    )
    print(f"{'':>24} {'hosts':>6} {'build':>8} {'ms/host':>8} {'remove':>8}")
    theirs = _row("stock Mininet, TCLink", "stock", COMPARED, chosen.runs)
    mine = _row("Birdhouse, TapLink", "ours", COMPARED, chosen.runs)
    print(f"{'times faster':>24} {'':>6} {theirs[0] / mine[0]:>8.1f} {'':>8} {theirs[1] / mine[1]:>8.1f}")
    for hosts in SIZES:
        _row("from a plan", "planned", hosts, chosen.runs)


def _row(title: str, what: str, hosts: int, runs: int) -> tuple[float, float]:
    times = [_in_own_process(what, hosts) for _ in range(runs)]
    build_s, remove_s = median(time[0] for time in times), median(time[1] for time in times)
    print(
        f"{title:>24} {hosts:>6} {build_s:>8.3f} {build_s / hosts * 1e3:>8.2f} {remove_s:>8.3f}", flush=True
    )
    sys.stdout.flush()
    return build_s, remove_s


def _in_own_process(what: str, hosts: int) -> tuple[float, float]:
    command = [sys.executable, "-m", "bench.build", "--one", what, str(hosts)]
    ended = subprocess.run(command, stdout=subprocess.PIPE, check=True, cwd=Path(__file__).parents[1])
    build_s, remove_s = json.loads(ended.stdout.splitlines()[-1])
    return build_s, remove_s


def _timed(build: Callable[[], Any]) -> tuple[float, float]:
    start_s = time.perf_counter()
    net = build()
    net.start()
    built_s = time.perf_counter()
    net.stop()
    return built_s - start_s, time.perf_counter() - built_s


def _star(hosts: int) -> Any:
    from underlay.emulation.stock import Topo

    class Star(Topo):
        def build(self, **_: Any) -> None:
            hub = self.addHost("hub")
            for number in range(1, hosts + 1):
                self.addLink(hub, self.addHost(f"h{number}"), bw=10)

    return Star()


_KINDS: dict[str, Callable[[int], tuple[float, float]]] = {"ours": ours, "planned": planned, "stock": stock}

if __name__ == "__main__":
    if os.geteuid() != 0:
        sys.exit("building networks needs root: use sudo")
    main()
