"""Building and removing a star with a rate on every link: ours against stock Mininet with TCLink.

Both build the same shape: a hub and n hosts around it, 10 Mbit/s on each link, Mininet's addresses.
Stock Mininet is done when its rates are in the kernel (HTB); we are done when every TAP is up, its descriptor
and spec ready for the ether. What the ether, one process for all links, takes to start is not included.

"remove" ends when `stop()` returns, "gone" when the kernel has taken the last namespace apart. "from a plan"
is the star as an experiment builds it: one /32 a device, permanent neighbours, static routes.

Each build is a process of its own. Mininet's global sysctls are left out, in its favour and the machine's.

    python -m bench.build [--runs N]
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

Times = tuple[float, float, float]
"""Seconds until built; from then until `stop` returned; and until the kernel had removed everything."""

SIZES = (50, 100, 200, 400, 800, 1000)
COMPARED = 200


def ours(hosts: int) -> Times:
    """A star of TAP links."""
    from underlay.emulation.links import TapLink
    from underlay.emulation.net import Network

    return _timed(lambda: Network(topo=_star(hosts), link=TapLink))


def planned(hosts: int) -> Times:
    """The same star as an experiment builds it."""
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


def stock(hosts: int) -> Times:
    """Mininet itself, with TCLink."""
    from underlay.emulation.stock import Mininet, TCLink

    Mininet.inited = True
    return _timed(lambda: Mininet(topo=_star(hosts), link=TCLink, controller=None))


def main(arguments: list[str] | None = None) -> None:
    """Print the tables."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--runs", type=int, default=3, help="runs of each, of which the median is shown")
    options.add_argument("--one", nargs=2, metavar=("WHAT", "HOSTS"), help=argparse.SUPPRESS)
    chosen = options.parse_args(arguments)
    if chosen.one:
        what, hosts = chosen.one
        print(json.dumps(_KINDS[what](int(hosts))))
        return
    print(f"star with a rate on every link: seconds, median of {chosen.runs} runs, without the ether's start")
    print(f"{'':>22} {'hosts':>6} {'build':>8} {'ms/host':>8} {'remove':>8} {'gone':>8}")
    theirs = _row("stock Mininet, TCLink", "stock", COMPARED, chosen.runs)
    mine = _row("Birdhouse, TapLink", "ours", COMPARED, chosen.runs)
    build, remove, gone = (a / b for a, b in zip(theirs, mine, strict=True))
    print(f"{'times faster':>22} {'':>6} {build:>8.1f} {'':>8} {remove:>8.1f} {gone:>8.1f}")
    for hosts in SIZES:
        _row("from a plan", "planned", hosts, chosen.runs)


def _row(title: str, what: str, hosts: int, runs: int) -> Times:
    columns = zip(*(_in_own_process(what, hosts) for _ in range(runs)), strict=True)
    build_s, remove_s, gone_s = (median(column) for column in columns)
    per_host_ms = build_s / hosts * 1e3
    print(f"{title:>22} {hosts:>6} {build_s:>8.3f} {per_host_ms:>8.2f} {remove_s:>8.3f} {gone_s:>8.3f}")
    sys.stdout.flush()
    return build_s, remove_s, gone_s


def _in_own_process(what: str, hosts: int) -> Times:
    command = [sys.executable, "-m", "bench.build", "--one", what, str(hosts)]
    ended = subprocess.run(command, stdout=subprocess.PIPE, check=True, cwd=Path(__file__).parents[1])
    build_s, remove_s, gone_s = json.loads(ended.stdout.splitlines()[-1])
    return build_s, remove_s, gone_s


def _timed(build: Callable[[], Any]) -> Times:
    start_s = time.perf_counter()
    net = build()
    net.start()
    built_s = time.perf_counter()
    net.stop()
    stopped_s = time.perf_counter()
    _await_the_kernel()
    return built_s - start_s, stopped_s - built_s, time.perf_counter() - built_s


def _await_the_kernel() -> None:
    """Return once all namespaces closed so far are gone.

    The kernel takes them apart in the order of their end, so a wire into one that we close now stays until
    those before it are done.
    """
    from underlay.emulation.namespace import Namespace
    from underlay.emulation.rtnetlink import veth

    witness, last = Namespace.open(), Namespace.open()
    witness.make(veth("wire", witness.number("wire"), None, "wire", last.number("wire"), None, last.fd))
    last.close()
    while "wire" in witness.links():
        time.sleep(0.001)
    witness.close()


def _star(hosts: int) -> Any:
    from underlay.emulation.stock import Topo

    class Star(Topo):
        def build(self, **_: Any) -> None:
            hub = self.addHost("hub")
            for number in range(1, hosts + 1):
                self.addLink(hub, self.addHost(f"h{number}"), bw=10)

    return Star()


_KINDS: dict[str, Callable[[int], Times]] = {"ours": ours, "planned": planned, "stock": stock}

if __name__ == "__main__":
    if os.geteuid() != 0:
        sys.exit("building networks needs root: use sudo")
    main()
