"""Mininet as its users know it, on our classes: topologies, commands, the command line; and nothing left."""

from __future__ import annotations

import atexit
import io
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from underlay.emulation.hosts import Host
from underlay.emulation.links import TapLink
from underlay.emulation.namespace import Namespace
from underlay.emulation.net import Network
from underlay.emulation.rtnetlink import NetlinkError, set_link
from underlay.emulation.stock import (
    CLI,
    LinearTopo,
    Mininet,
    Node,
    SingleSwitchTopo,
    TCLink,
    Topo,
    TreeTopo,
    lg,
)
from underlay.errors import InputError, Unavailable

pytestmark = pytest.mark.emulation


class Lab(Topo):
    """A student's own: two routed subnets, long names, a router of Mininet's own Node class."""

    def build(self, **_: Any) -> None:
        router = self.addNode("r0", cls=Router, ip="10.0.1.254/24")
        for number, name in ((1, "birdhouse-by-the-pond"), (2, "birdhouse-by-the-barn")):
            switch = self.addSwitch(f"{name}-switch")
            host = self.addHost(name, ip=f"10.0.{number}.1/24", defaultRoute=f"via 10.0.{number}.254")
            self.addLink(host, switch)
            self.addLink(switch, router, params2={"ip": f"10.0.{number}.254/24"})


class Router(Node):
    """As in Mininet's examples: forwards, and says so through its shell."""

    def config(self, **params: Any) -> None:
        super().config(**params)
        self.cmd("sysctl net.ipv4.ip_forward=1")


@pytest.fixture(autouse=True)
def screen(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What Mininet shows its user."""
    shown = io.StringIO()
    monkeypatch.setattr(lg.handlers[0], "stream", shown)
    return shown


@pytest.fixture(autouse=True)
def _untouched_machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every test leaves the machine as it found it: interfaces, settings, descriptors, no process inside."""
    made: list[str] = []
    really_open = Namespace.open

    def opened() -> Namespace:
        namespace = really_open()
        made.append(f"net:[{namespace.inode}]")
        return namespace

    monkeypatch.setattr(Namespace, "open", opened)
    before = machine()
    yield
    assert machine() == before
    assert processes_by_namespace().keys().isdisjoint(made)


def machine() -> dict[str, Any]:
    settings = [
        path for path in Path("/proc/sys/net").rglob("*") if path.is_file() and os.access(path, os.R_OK)
    ]
    settings += [Path("/proc/sys/fs/file-max"), Path("/proc/sys/kernel/pty/max")]
    return {
        "interfaces": [line.split(":")[0] for line in Path("/proc/net/dev").read_text().splitlines()],
        "settings": {path: value for path in settings if (value := reading(path)) is not None},
        "descriptors": len(os.listdir("/proc/self/fd")),
    }


def reading(path: Path) -> str | None:
    try:
        return None if path.name in _MOVES_BY_ITSELF else path.read_text()
    except OSError:
        return None


_MOVES_BY_ITSELF = {"nf_conntrack_count"}


def processes_by_namespace() -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                found.setdefault(os.readlink(entry / "ns/net"), []).append(int(entry.name))
            except OSError:
                continue
    return found


def inside(host: Any) -> list[int]:
    """Process ids that live in a host."""
    return processes_by_namespace().get(f"net:[{host.namespace.inode}]", [])


# ------------------------------------------------------------------------------------------- Mininet as known


@pytest.mark.parametrize(
    "topo",
    [SingleSwitchTopo(3), LinearTopo(3), TreeTopo(depth=2, fanout=2), Lab()],
    ids=["single switch", "line of switches", "tree", "a student's own with a router"],
)
def test_a_topology_written_for_mininet_runs_unchanged(topo: Topo) -> None:
    with Network(topo=topo) as net:
        assert net.pingAll(timeout="2") == 0


def test_no_shell_runs_until_somebody_types() -> None:
    with Network(topo=SingleSwitchTopo(2)) as net:
        assert inside(net["h1"]) == []
        assert repr(net["h1"]).endswith("h1-eth0:10.0.0.1 pid=None>")
        assert inside(net["h1"]) == []
        assert net["h1"].cmd("echo hello") == "hello\r\n"
        assert inside(net["h1"]) == [net["h1"].pid]


def test_commands_run_in_the_host_by_every_way_mininet_offers() -> None:
    with Network(topo=SingleSwitchTopo(2)) as net:
        h1, h2 = net["h1"], net["h2"]
        assert "10.0.0.1/8" in h1.cmd("ip -brief address show dev h1-eth0")
        assert h1.cmd("ls /sys/class/net").split() == ["h1-eth0", "lo"]
        assert h1.pexec("ip -brief link show dev h2-eth0")[2] == 1
        out, _, code = h2.pexec(["ip", "-brief", "link", "show", "dev", "h2-eth0"])
        assert code == 0
        assert h2.MAC() in out
        assert h1.pexec("echo $((6 * 7))", shell=True) == ("42\n", "", 0)
        with h1.popen("cat", stdin=subprocess.PIPE) as cat:
            assert cat.communicate(b"echo")[0] == b"echo"


def test_a_command_in_front_can_be_interrupted_and_its_process_found() -> None:
    with Network(topo=SingleSwitchTopo(2)) as net:
        h1 = net["h1"]
        h1.sendCmd("sleep 1000", printPid=True)
        while h1.lastPid is None:
            h1.monitor()
        assert Path(f"/proc/{h1.lastPid}/comm").read_text() in ("sh\n", "sleep\n")
        h1.sendInt()
        h1.waitOutput()
        assert not Path(f"/proc/{h1.lastPid}").exists()
        h1.cmd("sleep 1000 &")
        assert h1.lastPid in inside(h1)


def test_the_command_line_runs_a_script(tmp_path: Path, screen: io.StringIO) -> None:
    script = tmp_path / "script"
    script.write_text(
        "nodes\nnet\nlinks\nh1 ping -c1 h2\nlink h1 s1 down\npy str(h1.defaultIntf().isUp())\ndump\n"
    )
    with Network(topo=SingleSwitchTopo(2)) as net, open(os.devnull) as nothing:
        CLI(net, stdin=nothing, script=str(script))
    shown = screen.getvalue()
    assert "h1 h2 s1" in shown
    assert "h1 h1-eth0:s1-eth1" in shown
    assert "h1-eth0<->s1-eth1 (OK OK)" in shown
    assert "1 packets transmitted, 1 received" in shown
    assert "False\n" in shown
    assert "<Bridge s1:" in shown


def test_hosts_and_links_come_and_go_while_it_runs() -> None:
    with Network(topo=SingleSwitchTopo(1)) as net:
        h2 = net.addHost("h2", ip="10.0.0.2/8")
        link = net.addLink("h2", "s1")
        h2.configDefault()
        assert net.pingAll(timeout="2") == 0
        net.delLink(link)
        assert list(h2.namespace.links()) == ["lo"]
        assert net.pingAll(timeout="1") == 100
        net.addLink("h2", "s1")
        h2.setIP("10.0.0.2/8")
        net["h1"].cmd("ip neighbour flush all")  # the new interface has a new MAC address
        assert net.pingAll(timeout="2") == 0
        net.delHost(net["h1"])
        assert net.keys() == ["h2", "s1"]
        assert net.links == net.linksBetween(h2, net["s1"])


def test_an_interface_takes_mininets_calls() -> None:
    with Network() as net:
        h1, h2 = net.addHost("h1"), net.addHost("h2")
        net.addLink(h1, h2)
        h1.setIP("192.0.2.1", 24)
        h2.setIP("192.0.2.77/24")
        h2.setIP("192.0.2.2/24")
        h1.setMAC("02:00:00:00:00:01")
        interface = h1.intf()
        assert (h1.IP(), h1.MAC(), interface.updateAddr()) == (
            "192.0.2.1",
            "02:00:00:00:00:01",
            ("192.0.2.1", "02:00:00:00:00:01"),
        )
        assert h2.namespace.addresses("h2-eth0") == [("192.0.2.2", 24)]
        assert net.ping([h1, h2], timeout="2") == 0
        h1.cmd("ip address del 192.0.2.1/24 dev h1-eth0; ip address add 192.0.2.9/24 dev h1-eth0")
        assert interface.updateIP() == "192.0.2.9"
        interface.rename("uplink")
        assert h1.intfNames() == ["uplink"]
        assert interface.isUp()
        interface.ifconfig("down")
        assert not h1.intfIsUp("uplink")
        assert interface.isUp(setUp=True)
        assert h1.namespace.links()["uplink"].up


def test_routes_and_neighbours_take_mininets_calls() -> None:
    with Network(topo=SingleSwitchTopo(2), autoStaticArp=True) as net:
        h1 = net["h1"]
        assert f"10.0.0.2 dev h1-eth0 lladdr {net['h2'].MAC()} PERMANENT" in h1.cmd("ip neighbour")
        h1.setDefaultRoute("via 10.0.0.2")
        h1.setHostRoute("192.0.2.1", "h1-eth0")
        assert h1.cmd("ip route show default").split()[:5] == ["default", "via", "10.0.0.2", "dev", "h1-eth0"]
        h1.setDefaultRoute(h1.defaultIntf())
        routes = h1.cmd("ip route")
        assert "default dev h1-eth0" in routes
        assert "via" not in routes
        assert "192.0.2.1 dev h1-eth0" in routes
        with pytest.raises(InputError, match="default route"):
            h1.setDefaultRoute("by way of 10.0.0.2")


def test_private_directories_are_private() -> None:
    with Network() as net:
        h1, h2 = (net.addHost(name, privateDirs=["/mnt"]) for name in ("h1", "h2"))
        h1.cmd("echo one > /mnt/file")
        assert h1.pexec("cat /mnt/file")[0] == "one\n"
        assert h2.cmd("ls /mnt") == ""
        assert not Path("/mnt/file").exists()


def test_mininets_own_limited_link_works_between_our_hosts() -> None:
    with Network() as net:
        h1, h2 = net.addHost("h1"), net.addHost("h2")
        net.addLink(h1, h2, cls=TCLink, bw=10)
        net.start()
        assert "rate 10Mbit" in h1.cmd("tc class show dev h1-eth0")
        assert net.pingAll(timeout="2") == 0


def test_a_switch_can_be_stopped_and_started_again() -> None:
    with Network(topo=SingleSwitchTopo(2)) as net:
        net["s1"].stop(deleteIntfs=False)
        assert net.pingAll(timeout="1") == 100
        net["s1"].start(net.controllers)
        assert net.pingAll(timeout="2") == 0


def test_a_loop_of_switches_is_cut_by_the_spanning_tree() -> None:
    with Network() as net:
        switches = [net.addSwitch(f"s{number}", stp=True) for number in (1, 2, 3)]
        for a, b in ((0, 1), (1, 2), (2, 0)):
            net.addLink(switches[a], switches[b])
        for number, switch in enumerate(switches, 1):
            host = net.addHost(f"h{number}", ip=f"10.0.0.{number}/8")
            net.addLink(host, switch)
            host.configDefault()
        net.start()
        deadline_s = time.monotonic() + 20
        while net.pingAll(timeout="1") > 0:
            assert time.monotonic() < deadline_s


def test_two_networks_with_the_same_names_and_addresses_do_not_meet() -> None:
    with Network(topo=SingleSwitchTopo(2)) as one, Network(topo=SingleSwitchTopo(2)) as other:
        assert one.pingAll(timeout="2") == other.pingAll(timeout="2") == 0
        assert "h2-eth0" not in one["h1"].cmd("ip link")
        one.stop()
        assert other.pingAll(timeout="2") == 0


# ---------------------------------------------------------------------------------------- nothing left behind

_DEAF = 'trap "" HUP TERM INT; while :; do sleep 0.01; done'


def test_whatever_runs_in_a_host_ends_with_the_network() -> None:
    with Network(topo=SingleSwitchTopo(1)) as net:
        h1 = net["h1"]
        children = [h1.popen("sleep 1000", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)]
        h1.cmd("sleep 1001 &")
        # The hard ones: left its session and parent; other user; deaf to polite signals; forks without end.
        for hard in ("sleep 1002", "setpriv --reuid 65534 --clear-groups sleep 1003", f"sh -c '{_DEAF}'"):
            h1.cmd(f"setsid --fork {hard} < /dev/null > /dev/null 2>&1")
        outsider = subprocess.Popen(["sleep", "1002"])
        assert len(inside(h1)) >= 6
    assert inside(h1) == []
    assert children[0].returncode == -signal.SIGKILL
    assert outsider.poll() is None
    outsider.kill()
    outsider.wait()


def test_stopping_twice_is_harmless_and_a_stopped_host_says_so(screen: io.StringIO) -> None:
    net = Network(topo=SingleSwitchTopo(1))
    net.start()
    net["h1"].cmd("true")
    net.stop()
    net.stop()
    assert net["h1"].cmd("echo hello") is None
    assert "h1 exited" in screen.getvalue()


def test_an_error_in_the_middle_of_building_leaves_nothing() -> None:
    class Faulty(Host):
        def config(self, *args: Any, **params: Any) -> dict[str, Any]:
            if self.name == "h3":
                self.cmd("sleep 1000 &")
                raise RuntimeError("no power")
            return super().config(*args, **params)

    with pytest.raises(RuntimeError, match="no power"):
        Network(topo=LinearTopo(4), host=Faulty)
    with pytest.raises(InputError, match="cannot enforce bw, loss"):
        Network(topo=Limited())
    with pytest.raises(ZeroDivisionError), Network(topo=Limited(), link=TapLink):
        raise ZeroDivisionError


class Limited(Topo):
    """Two hosts, and a link that only an enforcer can make."""

    def build(self, **_: Any) -> None:
        self.addLink(self.addHost("h1"), self.addHost("h2"), bw=1, loss=10)


def test_a_refused_request_is_named_and_takes_the_network_down() -> None:
    net = Network()
    host = net.addHost("h1")
    good, bad = set_link(1, up=True), set_link(4711, up=True)
    with pytest.raises(NetlinkError, match="set link 4711 up"), net.batch():
        host.namespace.submit(good, bad, good)
    assert host.namespace.closed


def test_a_script_that_forgets_to_stop_leaves_no_process(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(
            """
            from underlay.emulation.net import Network
            from underlay.emulation.stock import SingleSwitchTopo
            net = Network(topo=SingleSwitchTopo(1))
            print(net["h1"].popen("sleep 1000").pid, flush=True)
            raise SystemExit(3)
            """
        )
    )
    root = Path(__file__).parents[3]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    ended = subprocess.run([sys.executable, script], env=environment, capture_output=True, check=False)
    assert ended.returncode == 3
    assert not Path(f"/proc/{int(ended.stdout)}").exists()


def test_it_works_in_a_pid_and_mount_namespace_too() -> None:
    program = """
        from underlay.emulation.net import Network
        from underlay.emulation.stock import SingleSwitchTopo
        with Network(topo=SingleSwitchTopo(2)) as net:
            net["h1"].cmd("setsid --fork sleep 1000 < /dev/null > /dev/null 2>&1")
            assert net.pingAll(timeout="2") == 0
        # Orphans that have ended are for the namespace's first process to reap: no business of the network.
        from pathlib import Path
        states = Path("/proc").glob("[0-9]*/stat")
        print([state.parent.name for state in states if ") Z " not in state.read_text()])
    """
    root = Path(__file__).parents[3]
    alone = ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-c", textwrap.dedent(program)]
    ended = subprocess.run(
        alone, env={**os.environ, "PYTHONPATH": str(root)}, capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stdout) == (0, "['1']\n"), ended.stderr


def test_a_wire_into_the_machines_own_namespace_is_taken_out_again() -> None:
    with Network() as net:
        outside = net.addHost("outside", inNamespace=False, ip=None)
        net.addLink(outside, net.addHost("h1", ip=None))
        assert "outside-eth0:" in Path("/proc/net/dev").read_text()
        assert outside.intf().isUp()


def test_a_forked_child_that_ends_does_not_take_the_network_along() -> None:
    with Network(topo=SingleSwitchTopo(2)) as net:
        running = net["h1"].popen("sleep 1000", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        child = os.fork()
        if child == 0:
            atexit._run_exitfuncs()
            os._exit(0)
        assert os.waitpid(child, 0) == (child, 0)
        assert running.poll() is None
        assert net.pingAll(timeout="2") == 0


def test_mininets_global_settings_are_not_even_attempted(monkeypatch: pytest.MonkeyPatch) -> None:
    # They might be there already, from an earlier Mininet, and then writing them again would change nothing.
    attempts: list[str] = []
    monkeypatch.setattr("mininet.net.fixLimits", lambda: attempts.append("limits"))
    monkeypatch.setattr(Mininet, "inited", False)
    with Network(topo=SingleSwitchTopo(2)):
        assert attempts == []
    assert not Mininet.inited
    Mininet(controller=None)
    assert attempts == ["limits"]


def test_settings_can_be_written_only_in_a_namespace_of_ours() -> None:
    for foreign in (Namespace.of_process(None), Namespace.of_process(os.getpid())):
        with pytest.raises(PermissionError, match="ipv4/ip_forward"):
            foreign.configure({"ipv4/ip_forward": 1})
        foreign.close()
    own = Namespace.open()
    own.configure({"ipv4/ip_forward": 1})
    with own.enter():
        assert Path("/proc/sys/net/ipv4/ip_forward").read_text() == "1\n"
    own.close()


def test_without_root_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(Unavailable, match="needs root"):
        Network()
