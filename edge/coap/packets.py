"""CoAP messages as datagrams between model endpoints, with the size of the real ones to the byte.

Options are those that the nodes use, encoded as RFC 7252 §3.1 says: each costs one byte, more for numbers far
apart and for values over 12 bytes. The simulation and aiocoap count the same kinds of packets by the names of
these classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal

import msgspec

from edge.coap.messages import CONTENT, Representation
from underlay.messages import Message, Protocol

Type = Literal["CON", "NON", "ACK", "RST"]

BLOCK_BYTES = 1024
"""The largest block of RFC 7959 over UDP, and what both endpoints use."""
WHOLE_BYTES_MAX = 1124
"""Up to here a payload goes without blocks (aiocoap's)."""

_HEADER_BYTES = 4
_ETAG, _OBSERVE, _URI_PATH, _CONTENT_FORMAT, _MAX_AGE, _BLOCK2 = 4, 6, 11, 12, 14, 23
_BLOCK1, _SIZE1 = 27, 60

Option = tuple[int, int]
"""Number, and bytes of the value."""


class Block(msgspec.Struct, frozen=True, array_like=True):
    """A Block1 or Block2 option: which block of `BLOCK_BYTES`, and whether more follow."""

    number: int
    more: bool = False


class Packet(Message, frozen=True, array_like=True):
    """Base: header and token."""

    transport = "datagram"
    mtype: Type
    mid: int
    """Message id, of the exchange that the packet begins (CON, NON) or ends (ACK, RST)."""
    token: int = 0
    """As a number; aiocoap's tokens are counters too."""

    def wire_size(self) -> int:
        return _HEADER_BYTES + number_size(self.token)


class RequestPacket(Packet, frozen=True, array_like=True, tag=1):
    """A GET."""

    path: tuple[str, ...] = ()
    etag: bytes | None = None
    observe: bool = False
    block: Block | None = None

    def wire_size(self) -> int:
        options: list[Option] = [(_URI_PATH, len(segment.encode())) for segment in self.path]
        if self.etag is not None:
            options.append((_ETAG, len(self.etag)))
        if self.observe:
            options.append((_OBSERVE, 0))
        return Packet.wire_size(self) + options_size([*options, *_block_option(_BLOCK2, self.block)])


class PostPacket(Packet, frozen=True, array_like=True, tag=5):
    """A POST, or a block of one."""

    carries_payload = True
    path: tuple[str, ...] = ()
    payload: bytes = b""
    content_format: int | None = None
    block1: Block | None = None
    size1: int | None = None
    """Bytes of the whole, said with the first block."""

    def wire_size(self) -> int:
        options: list[Option] = [(_URI_PATH, len(segment.encode())) for segment in self.path]
        if self.content_format is not None:
            options.append((_CONTENT_FORMAT, number_size(self.content_format)))
        options += [*_block_option(_BLOCK1, self.block1), *_size_option(self.size1)]
        payload_bytes = 1 + len(self.payload) if self.payload else 0
        return Packet.wire_size(self) + options_size(options) + payload_bytes


class ResponsePacket(Packet, frozen=True, array_like=True, tag=2):
    """A response that carries no representation: 2.03, 2.04, 2.31, 4.xx, 5.xx, with a diagnosis perhaps."""

    representation: Representation = Representation(0)
    observe: int | None = None
    """Sequence number of a notification."""
    block: Block | None = None
    block1: Block | None = None
    """Of the request that is answered."""
    size1: int | None = None
    """The most that would have been taken."""

    def wire_size(self) -> int:
        shown = self.representation
        options = [*_block_option(_BLOCK2, self.block), *_block_option(_BLOCK1, self.block1)]
        options += _size_option(self.size1)
        if shown.etag is not None:
            options.append((_ETAG, len(shown.etag)))
        if self.observe is not None:
            options.append((_OBSERVE, number_size(self.observe)))
        if shown.content_format is not None:
            options.append((_CONTENT_FORMAT, number_size(shown.content_format)))
        if shown.max_age_s is not None:
            options.append((_MAX_AGE, number_size(shown.max_age_s)))
        payload_bytes = 1 + len(shown.payload) if shown.payload else 0
        return Packet.wire_size(self) + options_size(options) + payload_bytes


class ContentPacket(ResponsePacket, frozen=True, array_like=True, tag=3):
    """A response with a representation, or a block of one."""

    carries_payload = True


class EmptyPacket(Packet, frozen=True, array_like=True, tag=4):
    """An empty acknowledgement, or a reset."""


COAP = Protocol("coap", RequestPacket, PostPacket, ResponsePacket, ContentPacket, EmptyPacket)


def response_packet(
    mtype: Type,
    mid: int,
    token: int,
    representation: Representation,
    observe: int | None = None,
    block: Block | None = None,
    block1: Block | None = None,
    size1: int | None = None,
) -> ResponsePacket:
    """The packet of the right class: a 2.05 with a payload is content."""
    content = representation.payload and representation.code == CONTENT
    kind = ContentPacket if content else ResponsePacket
    return kind(mtype, mid, token, representation, observe, block, block1, size1)


def number_size(number: int) -> int:
    """Bytes of an unsigned integer without leading zeros; 0 takes none."""
    return (number.bit_length() + 7) // 8


def options_size(options: Iterable[Option]) -> int:
    """Bytes of options, in order of their numbers.

    >>> options_size([(11, 4), (11, 3), (6, 0)])
    10
    """
    size, last = 0, 0
    for number, value_bytes in sorted(options):
        size += 1 + _extended_bytes(number - last) + _extended_bytes(value_bytes) + value_bytes
        last = number
    return size


def _extended_bytes(value: int) -> int:
    return 0 if value < 13 else 1 if value < 269 else 2


def _block_option(option: int, block: Block | None) -> Iterator[Option]:
    if block is not None:
        # Number, more flag, size exponent 6: at least 6, so never empty.
        yield option, number_size(block.number << 4 | block.more << 3 | 6)


def _size_option(size_bytes: int | None) -> Iterator[Option]:
    if size_bytes is not None:
        yield _SIZE1, number_size(size_bytes)
