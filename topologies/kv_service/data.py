"""Keys and values: each command that reads or writes them as one call.

Writes are executed exactly once, whatever dies meanwhile. If the deadline passes, `kv.client.outside`'s
`StoreFailed` says that nothing was done and nothing will be, and `OutcomeUnknown` that it may have been, or
may yet be.
"""

from __future__ import annotations

from topologies.kv_service.reach import DEADLINE_S, Reached, Where, use

_MAGIC = b"*?[]\\"
"""Of glob patterns."""
_PAGE = 1000


def get(where: Where, key: bytes, *, stale: bool = False, deadline_s: float = DEADLINE_S) -> bytes | None:
    """The value, or None. Reads what was acknowledged before; with `stale`, what some replica has."""

    async def call(client: Reached) -> bytes | None:
        return await client.store.get(key, stale=stale)

    return use(where, call, deadline_s)


def put(where: Where, key: bytes, value: bytes, *, deadline_s: float = DEADLINE_S) -> None:
    """Write; returns when a majority's disks have it."""

    async def call(client: Reached) -> None:
        await client.store.set(key, value)

    use(where, call, deadline_s)


def delete(where: Where, *keys: bytes, deadline_s: float = DEADLINE_S) -> int:
    """How many of the keys were there. Each is deleted by itself."""

    async def call(client: Reached) -> int:
        return sum([await client.store.delete(key) for key in keys])

    return use(where, call, deadline_s)


def scan(where: Where, prefix: bytes = b"", *, deadline_s: float = DEADLINE_S) -> list[bytes]:
    """All keys that begin so, in order. Keys that are there throughout are found, except in slots that move
    meanwhile. The deadline is for each of many questions."""
    pattern = b"".join(b"\\" + bytes([c]) if c in _MAGIC else bytes([c]) for c in prefix) + b"*"

    async def call(client: Reached) -> list[bytes]:
        return sorted([key async for key in client.store.scan(pattern)])

    return use(where, call, deadline_s)


def range_(
    where: Where, start: bytes, end: bytes, *, limit: int | None = None, deadline_s: float = DEADLINE_S
) -> list[tuple[bytes, bytes]]:
    """Keys of the slot of `start` with `start <= key < end` and their values, in order, all as of one
    moment. The deadline is for each of many questions."""

    async def call(client: Reached) -> list[tuple[bytes, bytes]]:
        found: list[tuple[bytes, bytes]] = []
        async for page in client.store.pages(start, end, min(limit or _PAGE, _PAGE)):
            found += page.items
            if limit is not None and len(found) >= limit:
                break
        return found[:limit]

    return use(where, call, deadline_s)
