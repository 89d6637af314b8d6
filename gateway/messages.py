"""What the gateway's node and its doors say to each other.

A door is a binding on the gateway's device that takes observations or questions in by some protocol (HTTP,
CoAP). It owns its protocol's sockets, limits and status codes; the node owns what becomes of an observation.
A door numbers what it asks, and the answer bears the same number; after a restart of the device neither side
remembers anything, and a client that was not answered asks again.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from edge.observation import Observation
from underlay.messages import Message

NODE = "gateway"
"""The name of the gateway's node, on every device that has one."""

OutcomeName = Literal["kept", "duplicate", "dead-letter", "busy"]


class Verdict(msgspec.Struct, frozen=True, array_like=True):
    """What became of one observation that was offered."""

    id: str
    outcome: OutcomeName
    """`kept`: it is durable. `duplicate`: one of that id is, and this one changes nothing. `dead-letter`: it
    cannot be what it says, and is kept with the reason for a person to look at: to be acknowledged, since it
    would not be better the next time. `busy`: it was not kept; the sender should try again later."""
    reason: str = ""
    retry_after_s: float = 0.0
    """Of `busy`: when to come again."""


class Offered(Message, frozen=True, array_like=True, tag=1):
    """Observations that came in, in the order in which they are to be kept. `Judged` answers."""

    transport = "local"
    token: int
    door: str
    """`http`, `coap`, ...: for the counters."""
    observations: tuple[Observation, ...]


class Judged(Message, frozen=True, array_like=True, tag=2):
    """One verdict for each observation, in their order."""

    transport = "local"
    token: int
    verdicts: tuple[Verdict, ...]


class Unreadable(Message, frozen=True, array_like=True, tag=3):
    """Something came in that is no observation at all: a dead letter without an id. There is no answer."""

    transport = "local"
    door: str
    sender: str
    reason: str
    sample: bytes
    """Its first bytes, 1 KiB at most."""


# -- between gateways


class HandOn(Message, frozen=True, array_like=True, tag=110):
    """A gateway offers observations to another, as a door would. `HandedOn` answers."""

    transport = "stream"
    carries_payload = True
    token: int
    hops: int
    """Gateways that they have come through."""
    observations: tuple[Observation, ...]


class HandedOn(Message, frozen=True, array_like=True, tag=111):
    """One verdict for each observation, in their order: after the first that is `busy`, all are."""

    transport = "stream"
    token: int
    verdicts: tuple[Verdict, ...]


# -- questions


class Question(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Base of what can be asked; each says what `Answer.body` holds."""


class Devices(Question, frozen=True, array_like=True, tag=True):
    """All devices that were ever heard of: a tuple of `DeviceState`, by name."""


class Stretch(Question, frozen=True, array_like=True, tag=True):
    """Observations of one device and kind, ordered by (t_event, sequence): a `Page`."""

    device: str
    kind: str
    since_s: float = 0.0
    """`since_s <= t_event < until_s`."""
    until_s: float = 9_999_999_999.0
    limit: int = 100
    """1 to 1000."""
    after: bytes = b""
    """`Page.next` of the page before."""


class Fetch(Question, frozen=True, array_like=True, tag=True):
    """One observation by its storage key: an `Observation`, or None."""

    key: bytes


class RouteStates(Question, frozen=True, array_like=True, tag=True):
    """A tuple of `RouteState`: the user's in their order, `unmatched`, and `dead-letter`."""


class DestinationStates(Question, frozen=True, array_like=True, tag=True):
    """A tuple of `DestinationState`: the store, and those of the user's."""


class StorageState(Question, frozen=True, array_like=True, tag=True):
    """A tuple of `GroupState`, by name."""


class DeadLetters(Question, frozen=True, array_like=True, tag=True):
    """The last ones in the gateway's own table: a tuple of `DeadLetter`, newest first."""

    limit: int = 100


AnyQuestion = Devices | Stretch | Fetch | RouteStates | DestinationStates | StorageState | DeadLetters


class Ask(Message, frozen=True, array_like=True, tag=4):
    """A door asks. `Answer` answers."""

    transport = "local"
    token: int
    question: AnyQuestion


class Answer(Message, frozen=True, array_like=True, tag=5):
    """What the question says; or why not."""

    transport = "local"
    token: int
    body: object = None
    problem: str = ""
    """A sentence for the client: the store does not answer. Empty: there is none."""


# -- what answers hold


class Latest(msgspec.Struct, frozen=True):
    """The newest observation (by t_event) of a device and kind that was kept."""

    id: str
    kind: str
    t_event: float
    t_gen: float
    t_kept: float
    """By the gateway's clock."""
    size_bytes: int
    key: bytes
    """For `Fetch`."""
    payload: bytes = b""
    """Of readings; empty where it is larger than 1 KiB."""


class DeviceState(msgspec.Struct, frozen=True):
    """What the gateway knows of a device."""

    name: str
    kept: int
    duplicates: int
    dead_letters: int
    last_heard: float
    """When its last observation came, by the gateway's clock."""
    age_s: float
    """Age of information: the gateway's clock, less the newest t_gen that was kept."""
    latest: tuple[Latest, ...]
    """By kind."""


class Page(msgspec.Struct, frozen=True):
    """A part of a stretch, as of one revision of its slot."""

    observations: tuple[Observation, ...]
    next: bytes = b""
    """For the page after this one; empty: there is none."""


class RouteState(msgspec.Struct, frozen=True):
    """A route and its counters since the gateway's process started, but for what waits.

    An observation counts for the first route that takes it to a destination.
    """

    name: str
    to: str
    matched: int
    """Acknowledged, for this route's destination; to `drop`, that is the end of it."""
    written: int
    """The destination has it durably."""
    waiting: int
    dropped: int
    """Acknowledged and given up for newer ones, as `drop-oldest` asks for."""
    dead_lettered: int
    """The destination will never take it."""
    refused: int
    """Answered with `busy` because of this route: its rate, its share, or no room for it."""
    priority: int = 0
    overflow: str = "spool"
    rate_limit_per_s: float | None = None


class DestinationState(msgspec.Struct, frozen=True):
    """A destination and its counters since the gateway's process started, but for what waits."""

    name: str
    type: str
    taken: int
    delivered: int
    failures: int
    """Attempts that failed; each is made again."""
    waiting: int
    waiting_bytes: int
    oldest_s: float
    """Age of the oldest that waits."""
    trouble: str
    """Why the last attempt failed; empty once one has succeeded."""


class GroupState(msgspec.Struct, frozen=True):
    """A storage group as its replicas tell."""

    name: str
    leader: str
    """Address; empty: none is known."""
    replicas: dict[str, bool]
    """Whether each answers."""
    slots: int
    log_end: int
    lag: int
    """Log entries that the replica furthest behind lacks, of those that answer."""


class DeadLetter(msgspec.Struct, frozen=True):
    """What was not stored, and why."""

    at: float
    """By the gateway's clock."""
    door: str
    id: str
    reason: str
    sample: bytes
    """Of its bytes."""
