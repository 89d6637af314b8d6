"""Dead letters: what was acknowledged and cannot be stored, kept with the reason for a person to look at.

They are in the node's durable store, the last thousand of them; older ones give way, and are counted.
"""

from __future__ import annotations

import msgspec

from gateway.messages import DeadLetter
from underlay.store import Store

KEPT_MAX = 1000
SAMPLE_BYTES_MAX = 1024
PREFIX = b"d"
_END = b"e"


class DeadLetters:
    """Newest last. Every method that takes a store writes to it in the handler that calls it."""

    def __init__(self) -> None:
        self.count = 0
        """Since the gateway started."""
        self._numbers: list[int] = []

    def load(self, store: Store) -> None:
        """After a restart: what was there before."""
        self._numbers = [int.from_bytes(key[len(PREFIX) :], "big") for key, _ in store.scan(PREFIX, _END)]

    def add(self, store: Store, letter: DeadLetter) -> None:
        """Keep one; of its sample the beginning."""
        self.count += 1
        number = self._numbers[-1] + 1 if self._numbers else 1
        short = msgspec.structs.replace(letter, sample=letter.sample[:SAMPLE_BYTES_MAX])
        store.put(_key(number), msgspec.msgpack.encode(short))
        self._numbers.append(number)
        if len(self._numbers) > KEPT_MAX:
            store.delete(_key(self._numbers.pop(0)))

    def newest(self, store: Store, limit: int) -> tuple[DeadLetter, ...]:
        """The last ones, newest first."""
        wanted = self._numbers[-limit:] if limit > 0 else []
        found = (store.get(_key(number)) for number in reversed(wanted))
        return tuple(msgspec.msgpack.decode(data, type=DeadLetter) for data in found if data is not None)


def _key(number: int) -> bytes:
    return PREFIX + number.to_bytes(8, "big")
