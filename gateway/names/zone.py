"""The zone: a DNS message in, a DNS message out.

Owns what an authoritative server answers: records made from the registry, negative answers with the SOA
record (RFC 2308), names without records of their own that exist nevertheless (RFC 8020), truncation, EDNS
(RFC 6891), and what becomes of messages that are none. Owns no socket, no clock, and no data: it is asked
what is true at a given moment. It is authoritative for its domain and for the in-addr.arpa zones of the
network's addresses, refuses everything else, transfers no zone and takes no update.

Source: RFC 1034, 1035, 2308, 2782 (SRV), 6891, 8482 (ANY).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rdtypes.ANY.NS
import dns.rdtypes.ANY.PTR
import dns.rdtypes.ANY.SOA
import dns.rdtypes.ANY.TXT
import dns.rdtypes.IN.A
import dns.rdtypes.IN.SRV
import dns.rrset
import msgspec

from gateway.names.messages import labels_of
from gateway.names.registry import Entry, Labels, Registry

DOMAIN = "birdhouse.test"
"""`test` is reserved for this (RFC 6761): nothing of that name is ever outside."""
QUERY_BYTES_MAX = 4096
"""Longer ones are not looked into."""

_HEADER_BYTES = 12
_UDP_BYTES = 512
_TCP_BYTES = 0xFFFF
_IN = dns.rdataclass.IN
_A, _NS, _PTR, _SOA, _SRV, _TXT, _ANY = (
    dns.rdatatype.A,
    dns.rdatatype.NS,
    dns.rdatatype.PTR,
    dns.rdatatype.SOA,
    dns.rdatatype.SRV,
    dns.rdatatype.TXT,
    dns.rdatatype.ANY,
)
_TRANSFERS = (dns.rdatatype.AXFR, dns.rdatatype.IXFR)
_NO_DATA_TYPES = range(128, 255)
"""Meta-types beside ANY (RFC 6895, 3.1): nothing is ever stored under these. OPT is one too."""

Records = dict[dns.rdatatype.RdataType, tuple[int, list[dns.rdata.Rdata]]]
"""At one name: time to live in seconds, and data."""


class ZoneSettings(msgspec.Struct, frozen=True):
    """What the zone's answers say about themselves."""

    domain: str = DOMAIN
    ttl_s: int = 5
    """How long an answer may be kept, at most: no longer than the lease of the device that it is about."""
    negative_ttl_s: int = 1
    """How long it may be kept that something does not exist."""
    udp_bytes_max: int = 1232
    """Of a response by UDP, whatever the client would take: it should fit a packet everywhere."""


class Zone:
    """What is authoritative here.

    Args:
        registry: who is there.
        addresses: IPv4 address of every device, by its name.
        servers: devices with a name server.
    """

    def __init__(
        self,
        registry: Registry,
        addresses: Mapping[str, str],
        servers: Sequence[str],
        settings: ZoneSettings | None = None,
    ) -> None:
        self._registry = registry
        self._addresses = addresses
        self._servers = tuple(servers)
        self._settings = settings or ZoneSettings()
        self._origin = dns.name.from_text(self._settings.domain)
        self._reverse = tuple(dns.name.from_text(zone) for zone in reverse_zones(addresses.values()))
        self._pointers: dict[Labels, str] = {}
        """Device by the labels of its address, reversed, up to the root."""
        self._under: dict[Labels, list[str]] = {}
        """Devices whose address is at or under these."""
        for device, ip in addresses.items():
            labels = _reversed(ip).labels
            self._pointers[labels] = device
            for n in range(len(labels) - 3):  # from the address to its first octet
                self._under.setdefault(labels[n:], []).append(device)

    def answer(
        self, wire: bytes, over: Literal["udp", "tcp"], now: float, settled: bool = True
    ) -> bytes | None:
        """The response to `wire`; None where there must be none: it is itself one, or not even a header.

        Args:
            settled: whether a device that is not in the registry is known not to be there. Before that, what
                is not found is a failure of this server (SERVFAIL): a resolver asks the next one.
        """
        if len(wire) < _HEADER_BYTES or wire[2] & 0x80:
            return None
        if wire[2] >> 3 & 0xF != dns.opcode.QUERY:
            return _header(wire, dns.rcode.NOTIMP)
        if len(wire) > QUERY_BYTES_MAX or wire[4:6] != b"\0\1":
            return _header(wire, dns.rcode.FORMERR)
        try:
            query = dns.message.from_wire(wire)
        except dns.message.UnknownTSIGKey:
            return _header(wire, dns.rcode.NOTAUTH)
        except Exception:  # whatever the parser says of bytes from the network: they are no message
            return _header(wire, dns.rcode.FORMERR)
        response = dns.message.make_response(query, our_payload=self._settings.udp_bytes_max, pad=0)
        if query.edns > 0:
            response.set_rcode(dns.rcode.BADVERS)
        else:
            self._fill(response, now, settled)
        return _fitted(response, self._bytes_max(query, over))

    def _bytes_max(self, query: dns.message.Message, over: Literal["udp", "tcp"]) -> int:
        if over == "tcp":
            return _TCP_BYTES
        if query.edns < 0:
            return _UDP_BYTES
        return max(_UDP_BYTES, min(query.payload, self._settings.udp_bytes_max))

    def _fill(self, response: dns.message.Message, now: float, settled: bool) -> None:
        question = response.question[0]
        name, kind = question.name, question.rdtype
        origin = self._zone_of(name)
        if origin is None or question.rdclass != _IN or kind in _TRANSFERS:
            response.set_rcode(dns.rcode.REFUSED)
            return
        if kind == dns.rdatatype.OPT or (kind in _NO_DATA_TYPES):
            response.set_rcode(dns.rcode.NOTIMP)
            return
        response.flags |= dns.flags.AA
        records, exists = self._records(origin, name, now)
        if not exists and not settled:
            response.flags &= ~dns.flags.AA
            response.set_rcode(dns.rcode.SERVFAIL)
            return
        wanted = {k: v for k, v in records.items() if kind in (k, _ANY)}
        for ttl_s, data in wanted.values():
            turn = response.id % len(data)  # takers of the first one share the load
            response.answer.append(_rrset(name, ttl_s, data[turn:] + data[:turn]))
            self._add_targets(response, data, now)
        if not wanted:
            if not exists:
                response.set_rcode(dns.rcode.NXDOMAIN)
            response.authority.append(_rrset(origin, self._settings.negative_ttl_s, [self._soa(origin)]))

    def _add_targets(self, response: dns.message.Message, data: list[dns.rdata.Rdata], now: float) -> None:
        """Addresses of what is pointed to, so that nobody has to ask again."""
        for rdata in data:
            target = getattr(rdata, "target", None)
            if rdata.rdtype not in (_SRV, _NS) or target is None:
                continue
            found = self._records(self._origin, target, now)[0].get(_A)
            if found is not None and not any(rrset.name == target for rrset in response.additional):
                response.additional.append(_rrset(target, *found))

    # ------------------------------------------------------------------------------------------------ records

    def _zone_of(self, name: dns.name.Name) -> dns.name.Name | None:
        return next((origin for origin in (self._origin, *self._reverse) if name.is_subdomain(origin)), None)

    def _records(self, origin: dns.name.Name, name: dns.name.Name, now: float) -> tuple[Records, bool]:
        """What is at `name`, and whether the name exists."""
        records: Records = {}
        if name == origin:
            records[_SOA] = self._settings.ttl_s, [self._soa(origin)]
            records[_NS] = self._settings.ttl_s, [self._ns(server) for server in self._servers]
            return records, True
        labels = tuple(label.lower() for label in name.labels)
        if origin is not self._origin:
            device = self._pointers.get(labels)
            entry = None if device is None else self._registry.entry(device, now)
            if entry is not None:
                target = self._host(entry.announced.name)
                pointer = dns.rdtypes.ANY.PTR.PTR(_IN, _PTR, target)
                records[_PTR] = self._ttl_s([entry], now), [pointer]
            return records, any(self._registry.entry(other, now) for other in self._under.get(labels, ()))
        within = labels[: -len(origin.labels)]
        entries = self._registry.at(within, now)
        holder = self._registry.holder(within, now)
        self._add_addresses(records, within, entries, now)
        services = [
            dns.rdtypes.IN.SRV.SRV(
                _IN,
                _SRV,
                service.priority,
                service.weight,
                service.port,
                self._host(entry.announced.name),
            )
            for entry in entries
            for service in entry.announced.services
            if _same(service.name, within)
        ]
        if services:
            records[_SRV] = self._ttl_s(entries, now), [*services]
        if holder is not None and holder.announced.texts:
            texts = tuple(text.encode("utf-8", "surrogatepass") for text in holder.announced.texts)
            records[_TXT] = self._ttl_s([holder], now), [dns.rdtypes.ANY.TXT.TXT(_IN, _TXT, texts)]
        return records, self._registry.exists(within, now)

    def _add_addresses(self, records: Records, within: Labels, entries: list[Entry], now: float) -> None:
        """Those of who has that name, alone or among others."""
        hosts = [
            entry
            for entry in entries
            if any(_same(name, within) for name in (entry.announced.name, *entry.announced.aliases))
        ]
        if hosts:
            data: list[dns.rdata.Rdata] = [
                dns.rdtypes.IN.A.A(_IN, _A, self._addresses[entry.device]) for entry in hosts
            ]
            records[_A] = self._ttl_s(hosts, now), data

    def _ttl_s(self, entries: list[Entry], now: float) -> int:
        """No longer than the first of these leases runs."""
        return max(0, min(self._settings.ttl_s, *(int(entry.until_s - now) for entry in entries)))

    def _host(self, name: str) -> dns.name.Name:
        return dns.name.from_text(name, self._origin)

    def _soa(self, origin: dns.name.Name) -> dns.rdata.Rdata:
        # Nobody transfers the zone: the times for secondaries only have to be there.
        settings = self._settings
        return dns.rdtypes.ANY.SOA.SOA(
            _IN,
            _SOA,
            self._host(self._servers[0]),
            self._host("hostmaster"),
            self._registry.changes & 0xFFFF_FFFF,
            settings.ttl_s,
            settings.ttl_s,
            settings.ttl_s,
            settings.negative_ttl_s,
        )

    def _ns(self, server: str) -> dns.rdata.Rdata:
        return dns.rdtypes.ANY.NS.NS(_IN, _NS, self._host(server))


def reverse_zones(ips: Iterable[str]) -> tuple[str, ...]:
    """The smallest in-addr.arpa zones that hold these addresses, one for each first octet.

    >>> reverse_zones(["10.77.0.1", "10.77.0.2", "127.0.1.1"])
    ('0.77.10.in-addr.arpa.', '1.0.127.in-addr.arpa.')
    >>> reverse_zones(["10.77.0.1", "10.78.0.1"])
    ('10.in-addr.arpa.',)
    """
    common: dict[str, list[str]] = {}
    for ip in ips:
        octets = ip.split(".")[:3]
        known = common.setdefault(octets[0], octets)
        same = 0
        while same < min(len(known), 3) and known[same] == octets[same]:
            same += 1
        common[octets[0]] = known[:same]
    return tuple(".".join((*reversed(octets), "in-addr.arpa.")) for octets in common.values())


def _reversed(ip: str) -> dns.name.Name:
    return dns.name.from_text(".".join((*reversed(ip.split(".")), "in-addr.arpa.")))


def _same(name: str, labels: Labels) -> bool:
    return labels_of(name) == labels


def _rrset(name: dns.name.Name, ttl_s: int, data: Sequence[dns.rdata.Rdata]) -> dns.rrset.RRset:
    return dns.rrset.from_rdata_list(name, ttl_s, data)


def _header(wire: bytes, rcode: dns.rcode.Rcode) -> bytes:
    """A response without a question, where that could not be read."""
    flags = 0x80 | (wire[2] & 0x79)  # QR, and the query's opcode and RD
    return wire[:2] + bytes((flags, rcode)) + bytes(8)


def _fitted(response: dns.message.Message, bytes_max: int) -> bytes:
    """The response in that many bytes: first without addresses nobody asked for, then truncated."""
    try:
        return response.to_wire(max_size=bytes_max)
    except dns.exception.TooBig:
        response.additional.clear()
    try:
        return response.to_wire(max_size=bytes_max)
    except dns.exception.TooBig:
        response.answer.clear()
        response.authority.clear()
        response.flags |= dns.flags.TC
        return response.to_wire(max_size=bytes_max)
