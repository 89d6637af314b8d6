"""Bodies of requests that come in blocks (RFC 7959, Block1), and how much of that an endpoint bears.

Owns the assemblies: how many, how large, how long, and whose. Both endpoints use it, the real one and its
model. Knows no message layer: a block that was repeated there (same message id) does not come here twice; one
that a client sends anew (another message id) is taken again where it is the same.

There are bounds for each body, each client and all together. A client that begins more than its share loses
the one it touched longest ago. Where all the room is taken, whoever comes is told to come again (5.03): the
body itself would have been welcome.

Source: RFC 7959 §2.5, §2.9.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable

import msgspec

from edge.coap.messages import (
    BAD_REQUEST,
    CONTINUE,
    REQUEST_ENTITY_INCOMPLETE,
    REQUEST_ENTITY_TOO_LARGE,
    SERVICE_UNAVAILABLE,
)

POSTS_MAX = 512
"""Requests with a body that an endpoint's nodes may be dealing with at a time; others are to come again."""
BUSY_S = 1
"""When: Max-Age of a 5.03."""
SIZE_EXPONENT_MAX = 6
"""1024 bytes are the largest block over UDP."""


class Bounds(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How much is taken."""

    body_bytes_max: int = 1024 * 1024
    """A photograph."""
    bytes_max: int = 16 * 1024 * 1024
    """Of all that is incomplete."""
    assemblies_max: int = 128
    assemblies_per_client_max: int = 4
    kept_s: float = 93.0
    """An assembly is forgotten so long after its last block (MAX_TRANSMIT_WAIT, RFC 7252 §4.8.2)."""


class Part(msgspec.Struct, frozen=True):
    """A block as it came."""

    number: int
    size_exponent: int
    """Of the block's size: 16 bytes for 0, 1024 for 6."""
    more: bool
    payload: bytes
    announced_bytes: int | None = None
    """Size1: of the whole body, where the client said so."""

    @property
    def size_bytes(self) -> int:
        """Of a whole block."""
        return 1 << (self.size_exponent + 4)


class Assembly(msgspec.Struct):
    """A body that is being put together."""

    client: Hashable
    body: bytearray
    touched_s: float


class Uploads:
    """Of one endpoint."""

    def __init__(self, bounds: Bounds | None = None) -> None:
        self.bounds = bounds or Bounds()
        self._assemblies: OrderedDict[Hashable, Assembly] = OrderedDict()
        """The one that was touched longest ago comes first."""
        self._bytes = 0

    @property
    def held_bytes(self) -> int:
        """Of all that is incomplete."""
        return self._bytes

    def __len__(self) -> int:
        return len(self._assemblies)

    def whole(self, payload: bytes) -> bytes | int:
        """A body that came in one piece, or the code that refuses it."""
        return payload if len(payload) <= self.bounds.body_bytes_max else REQUEST_ENTITY_TOO_LARGE

    def take(self, now_s: float, client: Hashable, resource: Hashable, part: Part) -> bytes | int:
        """Add a block: the body that it completes, or the code to answer (2.31 where more is to come).

        Args:
            now_s: a clock, seconds.
            client: whose share it is.
            resource: what the client's blocks of one body have in common, and no other's.
            part: the block.
        """
        self._expire(now_s)
        key = (client, resource)
        code = self._problem_of(part)
        if code is not None:
            return self._refuse(key, code)
        if part.number == 0:
            self._drop(key)
            if not self._has_room(client):
                return SERVICE_UNAVAILABLE
            self._assemblies[key] = Assembly(client, bytearray(), now_s)
        return self._append(now_s, key, part)

    def _problem_of(self, part: Part) -> int | None:
        size = part.size_bytes
        fits = len(part.payload) == size if part.more else len(part.payload) <= size
        if part.size_exponent > SIZE_EXPONENT_MAX or not fits:
            return BAD_REQUEST
        reaches = part.number * size + len(part.payload) + part.more
        if max(reaches, part.announced_bytes or 0) > self.bounds.body_bytes_max:
            return REQUEST_ENTITY_TOO_LARGE
        return None

    def _append(self, now_s: float, key: Hashable, part: Part) -> bytes | int:
        assembly = self._assemblies.get(key)
        if assembly is None:
            return REQUEST_ENTITY_INCOMPLETE
        start = part.number * part.size_bytes
        if start < len(assembly.body) and part.more:
            again = bytes(assembly.body[start : start + len(part.payload)]) == part.payload
            return CONTINUE if again else self._refuse(key, REQUEST_ENTITY_INCOMPLETE)
        if start != len(assembly.body):
            return self._refuse(key, REQUEST_ENTITY_INCOMPLETE)
        if self._bytes + len(part.payload) > self.bounds.bytes_max:
            return self._refuse(key, SERVICE_UNAVAILABLE)
        assembly.body += part.payload
        assembly.touched_s = now_s
        self._bytes += len(part.payload)
        self._assemblies.move_to_end(key)
        if part.more:
            return CONTINUE
        self._drop(key)
        return bytes(assembly.body)

    def _has_room(self, client: Hashable) -> bool:
        own = [key for key, assembly in self._assemblies.items() if assembly.client == client]
        if len(own) >= self.bounds.assemblies_per_client_max:
            self._drop(own[0])
        return len(self._assemblies) < self.bounds.assemblies_max

    def _refuse(self, key: Hashable, code: int) -> int:
        self._drop(key)
        return code

    def _expire(self, now_s: float) -> None:
        while self._assemblies:
            key, oldest = next(iter(self._assemblies.items()))
            if oldest.touched_s + self.bounds.kept_s > now_s:
                return
            self._drop(key)

    def _drop(self, key: Hashable) -> None:
        dropped = self._assemblies.pop(key, None)
        if dropped is not None:
            self._bytes -= len(dropped.body)
