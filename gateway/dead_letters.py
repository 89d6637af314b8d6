"""Dead letters: what was acknowledged and cannot be stored, kept with the reason for a person to look at.

They are in the node's durable store, the last thousand of them; older ones give way, and are counted. Where a
user wants them elsewhere, each goes there as an observation of the gateway's own: its kind is `dead-letter`,
its payload a msgpack map of what the letter says.
"""

from __future__ import annotations

import msgspec

from edge.observation import Observation, ObservationId
from gateway.credibility import EVENT_S_MAX
from gateway.messages import DeadLetter
from gateway.routing.routes import DEAD_LETTER
from underlay.store import Store

KEPT_MAX = 1000
SAMPLE_BYTES_MAX = 1024
PREFIX = b"d"
_END = b"e"
_SENT = b"n:dead-letters"
"""How many went elsewhere, ever: their numbers."""


class DeadLetters:
    """Newest last. Every method that takes a store writes to it in the handler that calls it."""

    def __init__(self) -> None:
        self._numbers: list[int] = []

    def load(self, store: Store) -> None:
        """After a restart: what was there before."""
        self._numbers = [int.from_bytes(key[len(PREFIX) :], "big") for key, _ in store.scan(PREFIX, _END)]

    def add(self, store: Store, letter: DeadLetter) -> None:
        """Keep one; of its sample the beginning."""
        number = self._numbers[-1] + 1 if self._numbers else 1
        store.put(_key(number), msgspec.msgpack.encode(_short(letter)))
        self._numbers.append(number)
        if len(self._numbers) > KEPT_MAX:
            store.delete(_key(self._numbers.pop(0)))

    def as_observation(self, store: Store, gateway: str, letter: DeadLetter) -> Observation:
        """One that goes elsewhere, with a number that none had before; of its sample the beginning.

        Args:
            gateway: the device.
        """
        number = int.from_bytes(store.get(_SENT) or b"", "big") + 1
        store.put(_SENT, number.to_bytes(8, "big"))
        said = msgspec.structs.asdict(_short(letter))
        return Observation(
            ObservationId(gateway, number),
            DEAD_LETTER,
            min(max(0.0, said.pop("at")), EVENT_S_MAX),
            letter.at,
            msgspec.msgpack.encode(said),
        )

    def newest(self, store: Store, limit: int) -> tuple[DeadLetter, ...]:
        """The last ones that are here, newest first."""
        wanted = self._numbers[-limit:] if limit > 0 else []
        found = (store.get(_key(number)) for number in reversed(wanted))
        return tuple(msgspec.msgpack.decode(data, type=DeadLetter) for data in found if data is not None)


def _short(letter: DeadLetter) -> DeadLetter:
    return msgspec.structs.replace(letter, sample=letter.sample[:SAMPLE_BYTES_MAX])


def _key(number: int) -> bytes:
    return PREFIX + number.to_bytes(8, "big")
