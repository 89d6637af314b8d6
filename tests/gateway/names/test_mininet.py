"""Names on a real network: `dig` and the C library's resolver on a device, while another one dies."""

from __future__ import annotations

import sys
from itertools import groupby
from pathlib import Path

import msgspec
import pytest

from gateway.names.node import Settings
from gateway.names.plan import Served, names_plan
from gateway.names.zone import DOMAIN
from underlay.emulation.blueprint import addresses
from underlay.emulation.fabric import Emulation
from underlay.faults import Crash, Restart, TimedFault
from underlay.link import LinkSpec
from underlay.network import Device, Link, Network
from underlay.plan import Plan, ProgramPlan

pytestmark = [pytest.mark.emulation, pytest.mark.needs("dig")]

WIRE = LinkSpec(rate_kbps=100_000.0, delay_ms=1.0)
SETTINGS = Settings(interval_s=0.5)
SCRIPT = """
sleep 4
for over in notcp tcp; do
    dig +short +time=2 +$over @{ip_of_server} cam3.birdhouse.test A >{dir}/a-$over
    dig +short +time=2 +$over @{ip_of_server} -x 10.77.0.3 >{dir}/ptr-$over
    dig +short +time=2 +$over @{ip_of_server} _http._tcp.birdhouse.test SRV >{dir}/srv-$over
done
dig +time=2 @{ip_of_server} example.com A >{dir}/refused
while true; do
    {python} -c 'import socket; print(socket.getaddrinfo("cam3", 80)[0][4][0])' >>{dir}/seen 2>/dev/null \\
        || echo gone >>{dir}/seen
    sleep 0.2
done
"""


def test_programs_find_devices_by_name_and_see_them_go(tmp_path: Path) -> None:
    network = Network(
        tuple(Device(name) for name in ("hub", "ns", "cam3", "user")),
        tuple(Link("hub", name, WIRE, WIRE) for name in ("ns", "cam3", "user")),
    )
    ips = addresses(network)
    devices = names_plan(ips, ("ns",), served=Served(http={"hub": (8080, 2)}), settings=SETTINGS)
    script = SCRIPT.replace("{ip_of_server}", ips["ns"]).replace("{python}", sys.executable)
    program = ProgramPlan("user", ("sh", "{dir}/script"), {"script": script})
    devices["user"] = msgspec.structs.replace(devices["user"], programs=(program,))
    plan = Plan(
        seed=1,
        duration_s=20.0,
        network=network,
        devices=devices,
        faults=(TimedFault(9.0, Crash("cam3")), TimedFault(14.0, Restart("cam3"))),
        route_convergence_s=0.3,
        name_servers=("ns",),
        search_domain=DOMAIN,
    )
    Emulation().run(plan, tmp_path, verify=False)

    found = tmp_path / "devices" / "user" / "user"
    for over in ("notcp", "tcp"):
        assert (found / f"a-{over}").read_text().split() == [ips["cam3"]]
        assert (found / f"ptr-{over}").read_text().split() == ["cam3.birdhouse.test."]
        assert (found / f"srv-{over}").read_text().splitlines() == ["0 2 8080 hub.birdhouse.test."]
    assert "REFUSED" in (found / "refused").read_text()
    seen = [what for what, _ in groupby((found / "seen").read_text().split())]
    assert seen == [ips["cam3"], "gone", ips["cam3"]]
