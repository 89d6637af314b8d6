"""What the zone answers: tables of questions, and bytes that are no questions."""

from __future__ import annotations

import dns.edns
import dns.flags
import dns.message
import dns.opcode
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.names.messages import Announce, Service, check
from gateway.names.registry import Registry
from gateway.names.zone import Zone, reverse_zones

ADDRESSES = {
    "ns": "10.77.0.1",
    "cam3": "10.77.0.2",
    "gw1": "10.77.0.3",
    "gw2": "10.77.0.4",
    "new": "10.77.0.5",
}
LEASE_S = 15.0


def announced(name: str, *services: Service, aliases: tuple[str, ...] = (), generation: int = 0) -> Announce:
    return Announce(name, LEASE_S, generation, aliases, services, ("role=thing", "kind=image"))


def registry() -> Registry:
    """All but `new` announced themselves at 0."""
    made = Registry()
    made.announce("ns", announced("ns"), 0.0)
    made.announce("cam3", announced("cam3"), 0.0)
    for name, weight in (("gw1", 3), ("gw2", 1)):
        made.announce(name, announced(name, Service("_http._tcp", 80, weight), aliases=("gateway",)), 0.0)
    return made


def zone(of: Registry | None = None) -> Zone:
    return Zone(of or registry(), ADDRESSES, ("ns",))


def ask(
    name: str, kind: str, *, now: float = 1.0, over: str = "udp", of: Zone | None = None, settled: bool = True
) -> dns.message.Message:
    query = dns.message.make_query(name, kind, id=0)
    wire = (of or zone()).answer(query.to_wire(), "tcp" if over == "tcp" else "udp", now, settled)
    assert wire is not None
    response = dns.message.from_wire(wire)
    assert query.is_response(response)
    return response


def data(response: dns.message.Message) -> list[str]:
    return sorted(rdata.to_text() for rrset in response.answer for rdata in rrset)


@pytest.mark.parametrize(
    ("name", "kind", "found"),
    [
        ("cam3.birdhouse.test", "A", ["10.77.0.2"]),
        ("CAM3.Birdhouse.TEST", "A", ["10.77.0.2"]),
        ("gateway.birdhouse.test", "A", ["10.77.0.3", "10.77.0.4"]),
        ("2.0.77.10.in-addr.arpa", "PTR", ["cam3.birdhouse.test."]),
        ("cam3.birdhouse.test", "TXT", ['"role=thing" "kind=image"']),
        ("_http._tcp.birdhouse.test", "SRV", ["0 1 80 gw2.birdhouse.test.", "0 3 80 gw1.birdhouse.test."]),
        ("birdhouse.test", "NS", ["ns.birdhouse.test."]),
        ("0.77.10.in-addr.arpa", "NS", ["ns.birdhouse.test."]),
        ("cam3.birdhouse.test", "ANY", ['"role=thing" "kind=image"', "10.77.0.2"]),
    ],
)
def test_what_is_there_is_found(name: str, kind: str, found: list[str]) -> None:
    response = ask(name, kind)
    assert response.rcode() == dns.rcode.NOERROR
    assert response.flags & dns.flags.AA
    assert data(response) == found


@pytest.mark.parametrize(
    ("name", "kind", "rcode"),
    [
        ("cam4.birdhouse.test", "A", "NXDOMAIN"),
        ("below.cam3.birdhouse.test", "A", "NXDOMAIN"),
        ("cam3.birdhouse.test", "AAAA", "NOERROR"),
        ("_tcp.birdhouse.test", "A", "NOERROR"),
        ("_http._tcp.birdhouse.test", "A", "NOERROR"),
        ("gateway.birdhouse.test", "SRV", "NOERROR"),
        ("5.0.77.10.in-addr.arpa", "PTR", "NXDOMAIN"),
        ("2.0.77.10.in-addr.arpa", "A", "NOERROR"),
        ("new.birdhouse.test", "A", "NXDOMAIN"),
    ],
)
def test_what_is_not_there_is_denied_with_the_soa(name: str, kind: str, rcode: str) -> None:
    """No such name is NXDOMAIN; a name with nothing of that type, or only with names under it, is not."""
    response = ask(name, kind)
    assert dns.rcode.to_text(response.rcode()) == rcode
    assert not response.answer
    (soa,) = response.authority
    assert soa.rdtype == dns.rdatatype.SOA
    assert soa.ttl == soa[0].minimum == 1


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("example.com", "A"),
        ("test", "SOA"),
        ("xbirdhouse.test", "A"),
        ("1.0.88.10.in-addr.arpa", "PTR"),
        (".", "NS"),
        ("birdhouse.test", "AXFR"),
    ],
)
def test_everything_else_is_refused(name: str, kind: str) -> None:
    response = ask(name, kind)
    assert response.rcode() == dns.rcode.REFUSED
    assert not response.answer
    assert not response.flags & dns.flags.AA


def test_the_target_of_a_service_comes_with_its_address() -> None:
    response = ask("_http._tcp.birdhouse.test", "SRV")
    assert {rrset.name.to_text(): rrset[0].to_text() for rrset in response.additional} == {
        "gw1.birdhouse.test.": "10.77.0.3",
        "gw2.birdhouse.test.": "10.77.0.4",
    }


@pytest.mark.parametrize(("now", "ttl_s"), [(1.0, 5), (11.5, 3), (14.5, 0)])
def test_no_answer_may_be_kept_longer_than_the_lease(now: float, ttl_s: int) -> None:
    assert ask("cam3.birdhouse.test", "A", now=now).answer[0].ttl == ttl_s


@pytest.mark.parametrize(
    "name",
    ["cam3.birdhouse.test", "_http._tcp.birdhouse.test", "gateway.birdhouse.test", "2.0.77.10.in-addr.arpa"],
)
def test_when_the_lease_is_over_the_name_is_gone(name: str) -> None:
    """Whether or not the entry has been removed."""
    assert ask(name, "ANY", now=LEASE_S).rcode() == dns.rcode.NXDOMAIN


def test_a_server_that_may_not_have_heard_of_everybody_denies_nothing() -> None:
    assert ask("cam4.birdhouse.test", "A", settled=False).rcode() == dns.rcode.SERVFAIL
    assert data(ask("cam3.birdhouse.test", "A", settled=False)) == ["10.77.0.2"]


def test_a_replacement_gets_the_name_and_the_replaced_loses_its_records() -> None:
    """Even while both announce; and when the replacement dies, what it replaced is itself again."""
    names = registry()
    names.announce("new", announced("cam3", Service("_coap._udp", 5683), generation=1), 1.0)
    names.announce("cam3", announced("cam3"), 10.0)
    served = zone(names)
    assert data(ask("cam3.birdhouse.test", "A", of=served)) == ["10.77.0.5"]
    assert data(ask("5.0.77.10.in-addr.arpa", "PTR", of=served)) == ["cam3.birdhouse.test."]
    assert ask("2.0.77.10.in-addr.arpa", "PTR", of=served).rcode() == dns.rcode.NXDOMAIN
    assert data(ask("cam3.birdhouse.test", "A", of=served, now=20.0)) == ["10.77.0.2"]


def test_among_equals_a_name_stays_with_who_has_it() -> None:
    names = registry()
    names.announce("new", announced("cam3"), 1.0)
    assert data(ask("cam3.birdhouse.test", "A", of=zone(names))) == ["10.77.0.2"]
    assert data(ask("cam3.birdhouse.test", "A", of=zone(names), now=15.5)) == ["10.77.0.5"]


def test_what_a_device_no_longer_announces_is_gone_at_once() -> None:
    names = registry()
    names.announce("gw1", announced("gw1"), 1.0)
    assert data(ask("_http._tcp.birdhouse.test", "SRV", of=zone(names))) == ["0 1 80 gw2.birdhouse.test."]
    assert data(ask("gateway.birdhouse.test", "A", of=zone(names))) == ["10.77.0.4"]


# -------------------------------------------------------------------------------- sizes and transports


def crowded() -> Zone:
    """A service of 100 devices."""
    names, addresses = registry(), dict(ADDRESSES)
    for n in range(100):
        addresses[f"h{n}"] = f"10.77.1.{n + 1}"
        names.announce(f"h{n}", announced(f"h{n}", Service("_http._tcp", 80)), 0.0)
    return Zone(names, addresses, ("ns",))


def test_what_does_not_fit_a_datagram_is_truncated_and_whole_over_tcp() -> None:
    response = ask("_http._tcp.birdhouse.test", "SRV", of=crowded())
    assert response.flags & dns.flags.TC
    assert not response.answer
    whole = ask("_http._tcp.birdhouse.test", "SRV", of=crowded(), over="tcp")
    assert not whole.flags & dns.flags.TC
    assert len(data(whole)) == 102


@pytest.mark.parametrize(
    ("payload", "at_most"), [(None, 512), (0, 512), (700, 700), (1232, 1232), (65535, 1232)]
)
def test_a_datagram_is_as_long_as_the_client_takes_and_never_longer_than_fits(
    payload: int | None, at_most: int
) -> None:
    query = dns.message.make_query("_http._tcp.birdhouse.test", "SRV", use_edns=-1)
    if payload is not None:
        query.use_edns(0, payload=payload)
    names = registry()
    for n in range(25):
        names.announce(f"h{n}", announced(f"h{n}", Service("_http._tcp", 80)), 0.0)
    addresses = ADDRESSES | {f"h{n}": f"10.77.1.{n + 1}" for n in range(25)}
    wire = Zone(names, addresses, ("ns",)).answer(query.to_wire(), "udp", 1.0)
    assert wire is not None
    assert len(wire) <= at_most
    response = dns.message.from_wire(wire)
    assert (response.edns == 0) == (payload is not None)
    assert bool(response.flags & dns.flags.TC) == (at_most < 1232)


def test_addresses_nobody_asked_for_give_way_before_the_answer_does() -> None:
    names, addresses = registry(), dict(ADDRESSES)
    for n in range(10):
        addresses[f"h{n}"] = f"10.77.1.{n + 1}"
        names.announce(f"h{n}", announced(f"h{n}", Service("_http._tcp", 80)), 0.0)
    query = dns.message.make_query("_http._tcp.birdhouse.test", "SRV", use_edns=0, payload=512)
    whole = Zone(names, addresses, ("ns",)).answer(query.to_wire(), "tcp", 1.0)
    query.use_edns(0, payload=560)
    wire = Zone(names, addresses, ("ns",)).answer(query.to_wire(), "udp", 1.0)
    assert whole is not None
    assert wire is not None
    response = dns.message.from_wire(wire)
    assert len(whole) > 560
    assert dns.message.from_wire(whole).additional
    assert not response.additional
    assert len(data(response)) == 12


def test_a_later_edns_is_answered_with_badvers() -> None:
    query = dns.message.make_query("cam3.birdhouse.test", "A", use_edns=1)
    wire = zone().answer(query.to_wire(), "udp", 1.0)
    assert wire is not None
    response = dns.message.from_wire(wire)
    assert response.rcode() == dns.rcode.BADVERS
    assert not response.answer


# --------------------------------------------------------------------------------- what is no question at all

QUERY = dns.message.make_query("cam3.birdhouse.test", "A", id=0x1234).to_wire()


@pytest.mark.parametrize(
    ("wire", "rcode"),
    [
        (QUERY[:-1], dns.rcode.FORMERR),
        (QUERY[:12], dns.rcode.FORMERR),
        (QUERY + b"x", dns.rcode.FORMERR),
        (QUERY[:4] + b"\0\2" + QUERY[6:], dns.rcode.FORMERR),
        (QUERY[:4] + b"\0\0" + QUERY[6:12], dns.rcode.FORMERR),
        (QUERY[:12] + b"\xc0\x0c\0\1\0\1", dns.rcode.FORMERR),  # a name that points at itself
        (QUERY[:12] + b"\xff" * 40, dns.rcode.FORMERR),
        (QUERY + bytes(5000), dns.rcode.FORMERR),
        (QUERY[:2] + b"\x28" + QUERY[3:], dns.rcode.NOTIMP),  # an update
    ],
)
def test_a_malformed_message_gets_an_error_that_bears_its_number(wire: bytes, rcode: int) -> None:
    answer = zone().answer(wire, "udp", 1.0)
    assert answer is not None
    assert len(answer) == 12
    assert answer[:2] == b"\x12\x34"
    assert answer[2] & 0x80
    assert answer[3] & 0xF == rcode


@pytest.mark.parametrize("wire", [b"", QUERY[:11], QUERY[:2] + b"\x81" + QUERY[3:]])
def test_less_than_a_header_and_responses_are_dropped(wire: bytes) -> None:
    """Two servers must not talk to each other for ever."""
    assert zone().answer(wire, "udp", 1.0) is None


def answers_or_drops(wire: bytes) -> None:
    answer = zone().answer(wire, "udp", 1.0)
    if answer is not None:
        assert answer[:2] == wire[:2]
        assert answer[2] & 0x80
        dns.message.from_wire(answer)  # whatever it is, it is one


@given(st.binary(max_size=600))
def test_no_bytes_make_it_fail(wire: bytes) -> None:
    answers_or_drops(wire)


@given(
    st.lists(st.tuples(st.integers(0, len(QUERY) - 1), st.integers(0, 255)), max_size=4),
    st.binary(max_size=40),
)
def test_no_spoilt_question_makes_it_fail(changes: list[tuple[int, int]], more: bytes) -> None:
    wire = bytearray(QUERY)
    for at, value in changes:
        wire[at] = value
    answers_or_drops(bytes(wire) + more)


@given(
    st.integers(0, 65535), st.integers(0, 65535), st.sampled_from(["cam3.birdhouse.test", "birdhouse.test"])
)
def test_every_type_and_class_is_answered(kind: int, rdclass: int, name: str) -> None:
    query = dns.message.Message(id=7)
    question = dns.message.make_query(name, "A", id=7).to_wire()
    assert len(question) == len(query.to_wire()) + len(name) + 2 + 4
    answers_or_drops(question[:-4] + kind.to_bytes(2) + rdclass.to_bytes(2))


def test_packets_that_scapy_spoils_do_not_make_it_fail() -> None:
    from scapy.layers.dns import DNS, DNSQR, DNSRR, DNSRROPT
    from scapy.packet import fuzz

    question = DNSQR(qname="cam3.birdhouse.test")
    for _ in range(50):
        answers_or_drops(bytes(fuzz(DNS(qd=question))))
        answers_or_drops(bytes(fuzz(DNS(qr=0, opcode=0, qd=fuzz(DNSQR())))))
    for lie in (
        DNS(qd=question, qdcount=1, ancount=7),
        DNS(qd=question, ar=DNSRROPT(rclass=0, version=9), arcount=1),
        DNS(qd=question, ar=DNSRROPT() / DNSRROPT(), arcount=2),
        DNS(qd=question, an=DNSRR(rrname="x", type="A", rdlen=60000), ancount=1),
    ):
        answers_or_drops(bytes(lie))


# --------------------------------------------------------------------------------------------- announcements


@pytest.mark.parametrize(
    "wrong",
    [
        Announce("", 1.0),
        Announce("a..b", 1.0),
        Announce("x" * 64, 1.0),
        Announce(".".join(["abcdefgh"] * 30), 1.0),
        Announce("bird house", 1.0),
        Announce("ä", 1.0),
        Announce("cam", 0.0),
        Announce("cam", float("nan")),
        Announce("cam", float("inf")),
        Announce("cam", 1.0, aliases=("-",)),
        Announce("cam", 1.0, aliases=("a",) * 17),
        Announce("cam", 1.0, services=(Service("_http._tcp", 0),)),
        Announce("cam", 1.0, services=(Service("_http._tcp", 65536),)),
        Announce("cam", 1.0, services=(Service("_http._tcp", 80, -1),)),
        Announce("cam", 1.0, texts=("é" * 128,)),
    ],
)
def test_what_cannot_be_in_a_zone_is_not_taken(wrong: Announce) -> None:
    names = Registry()
    with pytest.raises(ValueError, match=r"."):
        names.announce("cam", wrong, 0.0)
    assert names.changes == 0


def test_the_longest_names_that_are_taken_can_be_answered() -> None:
    longest = ".".join(["a" * 59] * 3)
    check(announced(longest))
    with pytest.raises(ValueError, match="they end at"):
        check(announced(longest + ".bb"))
    names = registry()
    names.announce("cam3", announced(longest), 0.0)
    assert data(ask(f"{longest}.birdhouse.test", "A", of=zone(names))) == ["10.77.0.2"]


@pytest.mark.parametrize(
    ("ips", "zones"),
    [
        (["10.77.0.1"], ("0.77.10.in-addr.arpa.",)),
        (["10.77.0.1", "10.77.1.1"], ("77.10.in-addr.arpa.",)),
        (["10.77.0.1", "10.78.0.1"], ("10.in-addr.arpa.",)),
        (["127.0.1.1", "10.77.0.1"], ("1.0.127.in-addr.arpa.", "0.77.10.in-addr.arpa.")),
    ],
)
def test_reverse_zones_are_no_larger_than_the_network(ips: list[str], zones: tuple[str, ...]) -> None:
    assert reverse_zones(ips) == zones
