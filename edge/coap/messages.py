"""What a node and its device's CoAP endpoint (`"@coap"`) say to each other, whichever endpoint that is.

aiocoap (`aiocoap_binding`) and the model (`model`) speak the same messages, so the caching node is the same
on both fabrics. The endpoint owns RFC 7252's message layer (confirmable messages, retransmission, tokens,
duplicates), putting block-wise representations together and taking them apart (RFC 7959), and the order of
notifications (RFC 7641). The node owns what is served and how fresh it is, whom to ask, and when to give up.

A resource is named by its path alone. A device's server answers GET; nodes that a device has beside it answer
for a first path segment each, and by POST too. The endpoint itself refuses everything else, and what is too
much (`edge.coap.uploads`).
"""

from __future__ import annotations

from typing import Literal

import msgspec

from underlay.messages import Message

ENDPOINT = "@coap"
"""The endpoint's address on every device."""
PORT = 5683

VALID = 0x43
CHANGED = 0x44
CONTENT = 0x45
CONTINUE = 0x5F
BAD_REQUEST = 0x80
BAD_OPTION = 0x82
NOT_FOUND = 0x84
METHOD_NOT_ALLOWED = 0x85
REQUEST_ENTITY_INCOMPLETE = 0x88
REQUEST_ENTITY_TOO_LARGE = 0x8D
UNSUPPORTED_CONTENT_FORMAT = 0x8F
SERVICE_UNAVAILABLE = 0xA3
GATEWAY_TIMEOUT = 0xA4
PROXYING_NOT_SUPPORTED = 0xA5

TEXT = 0
JPEG = 22
LINK_FORMAT = 40
OCTET_STREAM = 42
JSON = 50
"""Content formats (RFC 7252 §12.3)."""

Path = tuple[str, ...]
"""Of a resource: the segments of its URI path."""

Method = Literal["GET", "POST"]

Failure = Literal["timeout", "reset", "broken"]
"""Retransmissions went unacknowledged; the server does not know what is meant; what came is no representation
(blocks that do not fit each other)."""


def code_text(code: int) -> str:
    """`code_text(0x45) == "2.05"`."""
    return f"{code >> 5}.{code & 0x1F:02d}"


def is_success(code: int) -> bool:
    """Whether a response code is of class 2."""
    return code >> 5 == 2


class Tuning(msgspec.Struct, frozen=True):
    """Transmission parameters of confirmable messages (RFC 7252 §4.8, whose defaults these are)."""

    ack_timeout_s: float = 2.0
    ack_random_factor: float = 1.5
    max_retransmit: int = 4
    confirm_interval_s: float = 0.0
    """A notification is confirmable where this long none was: between those, a lost one is not missed, as the
    next says all that it did (RFC 7641 §4.5)."""


class Representation(msgspec.Struct, frozen=True):
    """A response as far as it can be stored: RFC 7252 §5.6."""

    code: int
    payload: bytes = b""
    etag: bytes | None = None
    max_age_s: int | None = None
    """None: the option is absent, which means 60 s for whoever may store it."""
    content_format: int | None = None


# -- from the node to the endpoint


class Get(Message, frozen=True, array_like=True, tag=1):
    """Ask `device` for a resource. `Answered` or `Failed` with the same token is the end of it, except that
    an observation goes on with an `Answered` for each notification."""

    transport = "local"
    token: int
    device: str
    path: Path
    etag: bytes | None = None
    """Of the representation that the node has: the answer may be 2.03 Valid."""
    observe: bool = False
    tuning: Tuning = Tuning()


class Cancel(Message, frozen=True, array_like=True, tag=2):
    """Forget a request or an observation: there will be no more answers."""

    transport = "local"
    token: int


class Respond(Message, frozen=True, array_like=True, tag=3):
    """Answer an `Asked`; again with the same exchange: notify its observer."""

    transport = "local"
    exchange: int
    representation: Representation
    observed: bool = False
    """More will follow. False ends the exchange, and the observation with it."""
    tuning: Tuning = Tuning()


class Post(Message, frozen=True, array_like=True, tag=9):
    """Give `device` something to deal with, in blocks where it is large. `Answered` or `Failed` with the same
    token is the end of it."""

    transport = "local"
    token: int
    device: str
    path: Path
    payload: bytes
    content_format: int | None = None
    tuning: Tuning = Tuning()


# -- from the endpoint to the node


class Answered(Message, frozen=True, array_like=True, tag=4):
    """A response, or a notification, complete with all its blocks."""

    transport = "local"
    token: int
    representation: Representation
    observed: bool
    """The server goes on notifying."""


class Acknowledged(Message, frozen=True, array_like=True, tag=5):
    """The server is there, and there is more to come: it acknowledged without an answer, or sent a block that
    is not the last."""

    transport = "local"
    token: int


class Failed(Message, frozen=True, array_like=True, tag=6):
    """There will be no answer."""

    transport = "local"
    token: int
    reason: Failure


class Asked(Message, frozen=True, array_like=True, tag=7):
    """Somebody asks this device. `Respond` with the same exchange."""

    transport = "local"
    exchange: int
    path: Path
    etags: tuple[bytes, ...] = ()
    """Of representations that the client has."""
    observe: bool = False
    method: Method = "GET"
    payload: bytes = b""
    """Of a POST, all its blocks together."""
    content_format: int | None = None
    client: str = ""
    """Who asks: a device, or else an IP address."""


class Withdrawn(Message, frozen=True, array_like=True, tag=8):
    """The client of an exchange is not interested any more, or gone."""

    transport = "local"
    exchange: int
