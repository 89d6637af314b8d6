"""What a link is asked for, what it is called, and the frames between its two descriptors."""

from __future__ import annotations

import os
import re
import select
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from math import inf
from typing import Any

import pytest

from underlay.emulation.hosts import short_name
from underlay.emulation.links import Interface, TapChannel, TapLink, VethLink, tc_spec
from underlay.emulation.net import Network
from underlay.emulation.unnumbered import configure_unnumbered, replace_routes, route_table
from underlay.errors import InputError
from underlay.link import LinkSpec
from underlay.network import Device, Link
from underlay.network import Network as Plan
from underlay.routes import Routes, shortest_paths


@pytest.mark.parametrize(
    ("name", "suffix", "short"),
    [
        ("cam3", "-eth0", "cam3-eth0"),
        ("tenletters", "-eth0", "tenletters-eth0"),
        ("elevenchars", "-eth0", "eleve-7668-eth0"),
        ("birdhouse-by-the-pond", "-eth12", "bird-796a-eth12"),
        ("birdhouse-by-the-barn", "-eth12", "bird-7f37-eth12"),
    ],
)
def test_a_name_is_kept_if_it_fits_and_else_shortened_the_same_way_each_time(
    name: str, suffix: str, short: str
) -> None:
    assert short_name(name, suffix) == short
    assert len(short) <= 15


@pytest.mark.parametrize(
    ("params", "spec"),
    [
        ({}, LinkSpec(rate_kbps=inf, queue_bytes=1_500_000)),
        ({"bw": 10}, LinkSpec(rate_kbps=10_000, queue_bytes=1_500_000)),
        ({"bw": 0.5, "max_queue_size": 20, "use_htb": True}, LinkSpec(rate_kbps=500, queue_bytes=30_000)),
        ({"delay": "5ms", "jitter": "500us"}, LinkSpec(delay_ms=5, jitter_ms=0.5, queue_bytes=1_500_000)),
        ({"delay": "1.5s", "loss": 10}, LinkSpec(delay_ms=1500, loss_ratio=0.1, queue_bytes=1_500_000)),
    ],
)
def test_parameters_of_mininets_tclink_become_a_spec(params: dict[str, Any], spec: LinkSpec) -> None:
    assert tc_spec(params, "a-b") == spec


@pytest.mark.parametrize(
    ("params", "complaint"),
    [
        ({"delay": 5}, "a-b: delay: cannot read the time 5"),
        ({"delay": "soon"}, "a-b: delay: cannot read the time 'soon'"),
        ({"bw": -1}, "a-b: rate_kbps"),
        ({"loss": 101}, "a-b: loss_ratio"),
        ({"delay": "1ms", "jitter": "2ms"}, "a-b: jitter_ms"),
        ({"enable_ecn": True}, "a-b: the ether has no enable_ecn"),
    ],
)
def test_what_mininet_would_log_and_ignore_is_an_error(params: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InputError, match=re.escape(complaint)):
        tc_spec(params, "a-b")


@pytest.mark.emulation
def test_a_tap_link_hands_out_two_descriptors_and_a_spec_for_each_direction() -> None:
    with Network() as net:
        a, b = net.addHost("a"), net.addHost("b")
        link = net.addLink(a, b, cls=TapLink, delay="1ms", params2={"bw": 2})
        assert (link.name, link.forward.delay_ms, link.backward.delay_ms) == ("a-b", 1, 1)
        assert (link.forward.rate_kbps, link.backward.rate_kbps) == (inf, 2000)
        fast, slow = LinkSpec(rate_kbps=9), LinkSpec(rate_kbps=8)
        other = net.addLink(a, b, cls=TapLink, model=(fast, slow), name="second")
        assert (other.name, other.forward, other.backward) == ("second", fast, slow)
        assert net.tap_links == [link, other]
        assert net.descriptors() == [
            link.fd_a, link.fd_b, other.fd_a, other.fd_b, a.namespace.fd, b.namespace.fd
        ]  # fmt: skip
        net.delLink(other)
        assert (other.fd_a, other.fd_b, a.intfNames()) == (-1, -1, ["a-eth0"])
        assert sorted(a.namespace.links()) == ["a-eth0", "lo"]


@pytest.mark.emulation
def test_frames_written_to_one_descriptor_are_those_read_from_the_other() -> None:
    with Network() as net:
        a, b = (net.addHost(name, ip=f"10.0.0.{number}/8") for number, name in enumerate("ab", 1))
        link = net.addLink(a, b, cls=TapLink)
        net.start()
        with joined(link):
            assert net.ping([a, b], timeout="2") == 0
        sent, received = a.namespace.links()["a-eth0"], b.namespace.links()["b-eth0"]
        assert sent.tx_packets == received.rx_packets > 0
        assert sent.tx_bytes == received.rx_bytes


@pytest.mark.emulation
def test_a_wire_refuses_limits_and_names_them() -> None:
    with Network() as net:
        a, b = net.addHost("a"), net.addHost("b")
        with pytest.raises(InputError, match="a-b: a wire cannot enforce bw, delay"):
            net.addLink(a, b, bw=1, params2={"delay": "1ms"})


@pytest.mark.emulation
def test_a_line_of_devices_forwards_and_a_leaf_has_one_route() -> None:
    with unnumbered(["ab", "bc", "cd"], cls=VethLink) as net:
        assert net.pingAll(timeout="2") == 0
        assert net["a"].namespace.addresses("lo") == [("127.0.0.1", 8), ("10.9.0.1", 32)]
        assert net["a"].namespace.addresses("a-eth0") == []
        assert (
            net["a"].cmd("ip route").strip()
            == "default via 10.9.0.2 dev a-eth0 proto static src 10.9.0.1 onlink congctl cubic"
        )
        assert net["b"].cmd("ip route").split("\r\n")[:3] == [
            "10.9.0.1 dev b-eth0 proto static scope link src 10.9.0.2 congctl cubic ",
            "10.9.0.3 dev b-eth1 proto static scope link src 10.9.0.2 congctl cubic ",
            "10.9.0.4 via 10.9.0.3 dev b-eth1 proto static src 10.9.0.2 onlink congctl cubic ",
        ]
        assert net["a"].IP() == net["a"].intf().updateIP() == "10.9.0.1"
        # Nobody asked who has which address, however much was sent.
        assert all("PERMANENT" in line for line in net["b"].cmd("ip neighbour").splitlines())


@pytest.mark.emulation
def test_a_ring_routes_around_a_device_once_its_routes_are_replaced() -> None:
    with unnumbered(["ab", "bc", "cd", "da"], cls=VethLink) as net:
        assert "10.9.0.3 via 10.9.0.2" in net["a"].cmd("ip route")
        around = {"a": {"b": "d", "c": "d", "d": "d"}, "c": {"a": "d", "d": "d"}}
        replace_routes(net, route_table(net, around))
        routes = net["a"].cmd("ip route")
        assert "10.9.0.3 via 10.9.0.4" in routes
        assert "10.9.0.2 via 10.9.0.4" in routes
        assert "10.9.0.2" not in net["c"].cmd("ip route")
        assert net.ping([net["a"], net["c"]], timeout="2") == 0
        replace_routes(net, {"a": []})
        assert net["a"].cmd("ip route").strip() == ""


@pytest.mark.emulation
def test_a_link_that_was_down_has_its_neighbours_and_routes_again() -> None:
    with unnumbered(["ab", "bc"], cls=VethLink) as net:
        before = net["a"].cmd("ip route; ip neighbour")
        net.configLinkStatus("a", "b", "down")
        assert net["a"].cmd("ip route") == ""
        net.configLinkStatus("a", "b", "up")
        assert net["a"].cmd("ip route; ip neighbour") == before
        assert net.pingAll(timeout="2") == 0


@pytest.mark.emulation
def test_mininets_own_addresses_stay_away_from_an_unnumbered_network() -> None:
    with unnumbered(["ab"], cls=VethLink) as net:
        net.start()
        assert net["a"].namespace.addresses("a-eth0") == []
        assert net["a"].IP() == "10.9.0.1"


@pytest.mark.emulation
def test_a_link_that_fails_to_be_made_keeps_no_descriptor() -> None:
    class Faulty(Interface):
        def config(self, *args: Any, **params: Any) -> dict[str, Any]:
            if self.node.name == "b":
                raise RuntimeError("no power")
            return super().config(*args, **params)

    with Network(intf=Faulty) as net:
        a, b = net.addHost("a"), net.addHost("b")
        before = os.listdir("/proc/self/fd")
        for cls in (TapLink, VethLink):
            with pytest.raises(RuntimeError, match="no power"):
                net.addLink(a, b, cls=cls)
        assert os.listdir("/proc/self/fd") == before


@pytest.mark.emulation
def test_a_neighbour_that_is_gone_is_silence_and_not_an_error() -> None:
    with unnumbered(["ab"], cls=TapLink) as net:
        answer = net["a"].cmd("ping -c1 -W1 10.9.0.2")
        assert "0 received" in answer
        assert "nreachable" not in answer


@pytest.mark.emulation
def test_an_idle_link_carries_nothing() -> None:
    with unnumbered(["ab"], cls=VethLink) as net:
        time.sleep(1.5)  # by then IPv6 would have looked for routers and for namesakes
        assert net["a"].namespace.links()["a-eth0"].tx_packets == 0
        assert net["b"].namespace.links()["b-eth0"].tx_packets == 0


@pytest.mark.emulation
def test_members_of_a_channel_have_one_interface_and_many_neighbours() -> None:
    with Network() as net:
        hosts = [net.addHost(name, ip=None) for name in "abc"]
        channel = net.addChannel("air", hosts)
        addresses = {name: f"10.9.0.{number}" for number, name in enumerate("abc", 1)}
        # a and c are out of each other's range: what is for c goes by b, in and out of the same interface.
        hops = {"a": {"b": "b", "c": "b"}, "b": {"a": "a", "c": "c"}, "c": {"a": "b", "b": "b"}}
        configure_unnumbered(net, addresses, route_table(net, hops))
        assert net["a"].intfNames() == ["a-eth0"]
        with heard(channel, [("a", "b"), ("b", "c")]):
            assert net.pingAll(timeout="2") == 0
        assert len(net["a"].cmd("ip neighbour").splitlines()) == 2


@contextmanager
def unnumbered(links: list[str], cls: type) -> Iterator[Network]:
    """A network of devices named by a letter, 10.9.0.1 and on, with shortest routes; `"ab"` links a to b."""
    names = sorted(set("".join(links)))
    with Network() as net:
        with net.batch():
            for name in names:
                net.addHost(name, ip=None)
            for link in links:
                net.addLink(link[0], link[1], cls=cls)
            addresses = {name: f"10.9.0.{number}" for number, name in enumerate(names, 1)}
            configure_unnumbered(net, addresses, route_table(net, shortest(links)))
        yield net


def shortest(links: list[str]) -> Routes:
    """Next hops where all links are alike."""
    devices = tuple(Device(name) for name in sorted(set("".join(links))))
    spec = LinkSpec(delay_ms=1)
    return shortest_paths(Plan(devices, tuple(Link(link[0], link[1], spec, spec) for link in links)))


@contextmanager
def joined(link: TapLink) -> Iterator[None]:
    """Move every frame of a link at once."""
    with relaying({link.fd_a: [link.fd_b], link.fd_b: [link.fd_a]}):
        yield


@contextmanager
def heard(channel: TapChannel, pairs: list[tuple[str, str]]) -> Iterator[None]:
    """Give every frame of a channel to those in range."""
    outputs: dict[int, list[int]] = {fd: [] for fd in channel.fds.values()}
    for a, b in pairs:
        outputs[channel.fds[a]].append(channel.fds[b])
        outputs[channel.fds[b]].append(channel.fds[a])
    with relaying(outputs):
        yield


@contextmanager
def relaying(outputs: dict[int, list[int]]) -> Iterator[None]:
    ended = threading.Event()

    def move() -> None:
        waiting = select.poll()
        for fd in list(outputs):
            waiting.register(fd, select.POLLIN)
        while not ended.is_set():
            for fd, _ in waiting.poll(50):
                frame = os.read(fd, 2048)
                for output in outputs[fd]:
                    os.write(output, frame)

    mover = threading.Thread(target=move)
    mover.start()
    try:
        yield
    finally:
        ended.set()
        mover.join()
