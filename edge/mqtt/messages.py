"""What a node and its device's MQTT client (`"@mqtt"`) say to each other, whichever client that is.

paho-mqtt (`paho_binding`) and the model (`model_client`) speak the same messages, so the star node is the
same on both fabrics. The client owns the MQTT session of one process lifetime: packet identifiers, the QoS 1
and 2 handshakes, keepalive, and the retransmission with DUP of what was not acknowledged when a session
resumes (MQTT 5, section 4.4). The node owns everything that outlives a connection: what is queued, when to
reconnect, and which broker to use.

A connection is named by the node and the broker's device: a node may hold one to each broker.
"""

from __future__ import annotations

from typing import Literal

from underlay.messages import Message

CLIENT = "@mqtt"
"""The client's address on every device."""

NO_MATCHING_SUBSCRIBERS = 0x10
"""Reason code of a PUBACK: the broker accepted the message, and threw it away (MQTT 5, 3.4.2.1)."""

REFUSED = 0x80
"""Reason codes from here on are failures."""

Loss = Literal["refused", "timeout", "unreachable", "keepalive", "closed"]
"""Why there is no connection: the broker's host or the broker said no; no answer to the attempt in time; no
route; nothing heard for 1.5 keepalives; the other side closed or reset it."""


# -- from the node to the client


class Connect(Message, frozen=True, array_like=True, tag=1):
    """Open a connection. One attempt: it ends in `Connected` or `Disconnected`, and the node decides what
    then."""

    transport = "local"
    broker: str
    client_id: str
    clean_start: bool
    """Forget the session that the broker may hold under that client id."""
    keepalive_s: int
    session_expiry_s: int
    """How long the broker keeps the session without a connection (MQTT 5; a 3.1.1 broker decides itself)."""
    timeout_s: float
    """For TCP's handshake and CONNACK together."""
    receive_maximum: int = 0
    """Messages of QoS 1 and 2 that the broker may have sent without an acknowledgement (MQTT 5, 3.1.2.11.3);
    0: as many as it likes."""


class Publish(Message, frozen=True, array_like=True, tag=2):
    """Publish over an open connection; `Published` with the same token says when the handshake of its QoS is
    over."""

    transport = "local"
    broker: str
    token: int
    topic: str
    payload: bytes
    qos: int
    retain: bool


class Subscribe(Message, frozen=True, array_like=True, tag=3):
    """Ask for every topic that the filter selects.

    With MQTT 5 not for what this client publishes itself (No Local), and for retained messages only if the
    session has no such subscription yet (Retain Handling 1).
    """

    transport = "local"
    broker: str
    filter: str
    qos: int


class Acknowledge(Message, frozen=True, array_like=True, tag=4):
    """Of a `Received` with a token: its PUBACK (QoS 1) or PUBCOMP (QoS 2) may go. Tokens of past connections
    are void."""

    transport = "local"
    broker: str
    token: int


class Forget(Message, frozen=True, array_like=True, tag=5):
    """Drop what was published to that broker and is not acknowledged: the node takes it elsewhere."""

    transport = "local"
    broker: str


class Disconnect(Message, frozen=True, array_like=True, tag=6):
    """Leave politely (DISCONNECT), or give an attempt up. The broker keeps the session. There is no
    answer."""

    transport = "local"
    broker: str


# -- from the client to the node


class Connected(Message, frozen=True, array_like=True, tag=7):
    """The broker accepted."""

    transport = "local"
    broker: str
    session_present: bool
    """The broker still had the session, subscriptions and queued messages included."""
    receive_maximum: int
    """Publishes of QoS 1 and 2 that the broker takes before it has acknowledged them."""


class Disconnected(Message, frozen=True, array_like=True, tag=8):
    """The attempt failed, or the connection is gone."""

    transport = "local"
    broker: str
    reason: Loss


class Published(Message, frozen=True, array_like=True, tag=9):
    """The broker has it (PUBACK, PUBCOMP); for QoS 0 only: it was handed to the network."""

    transport = "local"
    broker: str
    token: int
    reason_code: int
    """0, `NO_MATCHING_SUBSCRIBERS`, or from `REFUSED` on a failure."""


class Subscribed(Message, frozen=True, array_like=True, tag=10):
    """SUBACK."""

    transport = "local"
    broker: str
    filter: str
    reason_code: int
    """The QoS granted, or from `REFUSED` on a failure."""


class Received(Message, frozen=True, array_like=True, tag=11):
    """An application message arrived."""

    transport = "local"
    broker: str
    token: int | None
    """For `Acknowledge`; None for QoS 0."""
    topic: str
    payload: bytes
    qos: int
    retain: bool
    """It is the broker's retained last value, sent because of a new subscription."""
    duplicate: bool
    """DUP: an earlier attempt may have arrived."""


# -- topics (MQTT 5, section 4.7)


def topic_matches(filter: str, topic: str) -> bool:  # noqa: A002 - the standard's word
    """Whether a topic filter selects a topic name.

    >>> topic_matches("birdhouse/+/+", "birdhouse/cam3/motion"), topic_matches("birdhouse/#", "birdhouse")
    (True, True)
    """
    wanted, given = filter.split("/"), topic.split("/")
    if given[0].startswith("$") and wanted[0] in ("+", "#"):
        return False
    for i, level in enumerate(wanted):
        if level == "#":
            return True
        if i >= len(given) or level not in ("+", given[i]):
            return False
    return len(wanted) == len(given)
