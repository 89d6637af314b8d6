"""The CoAP door: POST of an observation to `/observations`, answered once it is durable.

Owns what a request means and which response code is which verdict. Sockets, message layer and blocks are the
device's endpoint's (`edge.coap`), which asks this node for every path that begins with `observations`; so one
port serves birdhouses' resources and takes observations in, and the door is the same on both fabrics.

| the gateway says | the client hears |
|---|---|
| `kept` | 2.04 Changed |
| `duplicate` | 2.04 with `duplicate` |
| `dead-letter` | 2.04 with `dead-letter` and the reason: the next time would be no better |
| `busy` | 5.03 Service Unavailable, Max-Age seconds until it may come again |
| nothing in time | 5.03 |

What is no observation is 4.00 with a sentence, an unknown content format 4.15, what is too large 4.13.

Source: RFC 7252 §5.8.2, §5.9; RFC 7959 §2.9.3.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import ceil

import msgspec

from edge.coap.messages import (
    BAD_REQUEST,
    CHANGED,
    ENDPOINT,
    JSON,
    METHOD_NOT_ALLOWED,
    NOT_FOUND,
    OCTET_STREAM,
    PORT,
    REQUEST_ENTITY_TOO_LARGE,
    SERVICE_UNAVAILABLE,
    TEXT,
    UNSUPPORTED_CONTENT_FORMAT,
    Asked,
    Representation,
    Respond,
    Tuning,
    Withdrawn,
)
from edge.coap.model import ModelEndpoint
from edge.observation import Observation
from gateway.api.reading import Malformed, from_json, from_msgpack
from gateway.credibility import Limits
from gateway.messages import NODE, Judged, Offered, Unreadable, Verdict
from underlay.messages import Message, Protocol
from underlay.node import Address, Context, Node, Timer, address
from underlay.plan import Binding, BindingPlan, DevicePlan, NodePlan

NAME = "coap-door"
RESOURCE = "observations"
"""First and only segment of the path."""
DOOR_PORT = 7092
"""Of the node, which nobody speaks to over the network."""
PATIENCE_S = 15.0
"""For the gateway's node."""
_SAMPLE_BYTES = 1024

READERS: dict[int | None, Callable[[bytes, float], list[Observation]]] = {
    None: from_msgpack,
    OCTET_STREAM: from_msgpack,
    JSON: from_json,
}
"""By content format; a request without one is taken to be the encoded observation."""


def coap_door(
    server: str = NAME, limits: Limits | None = None, tuning: Tuning | None = None, port: int = PORT
) -> DevicePlan:
    """The door and the endpoint in front of it, for a gateway's device.

    Args:
        server: the node that answers for all other paths: `caching`, where the device takes part in that, and
            then this endpoint stands in place of the one that the device has. By default there are none.
        limits: what the gateway believes.
        tuning: of responses that do not go with their request's acknowledgement.
        port: UDP.
    """
    resources = {RESOURCE: NAME}
    node = NodePlan(NAME, partial(CoapDoor, limits, tuning), DOOR_PORT)
    endpoint = BindingPlan(
        ENDPOINT, partial(ModelEndpoint, server, resources), partial(_aiocoap, server, port, resources), port
    )
    return DevicePlan((node,), (endpoint,))


def _aiocoap(server: str, port: int, resources: dict[str, str]) -> Binding:
    from edge.coap.aiocoap_binding import AiocoapBinding  # only the emulation needs aiocoap

    return AiocoapBinding(server, port, resources)


class CoapDoor(Node):
    """On a gateway's device, beside its node.

    Args:
        limits: what the gateway believes; what exceeds its size is refused here.
        tuning: of responses that do not go with their request's acknowledgement.
    """

    protocol = Protocol(NAME)

    def __init__(self, limits: Limits | None = None, tuning: Tuning | None = None) -> None:
        self._size_bytes_max = (limits or Limits()).size_bytes_max
        self._tuning = tuning or Tuning()
        self._waiting: dict[int, None] = {}
        """Exchanges whose observations have no verdict yet; the gateway's tokens are their numbers."""

    def on_message(self, ctx: Context, sender: Address, message: Message) -> None:
        match message:
            case Asked():
                self._on_asked(ctx, message)
            case Judged(token, (verdict,)):
                self._end(ctx, token, _response(verdict))
            case Withdrawn(exchange):
                self._waiting.pop(exchange, None)
                ctx.cancel_timer(exchange)

    def on_timer(self, ctx: Context, timer: Timer) -> None:
        assert isinstance(timer, int)
        self._end(ctx, timer, _busy("the gateway does not answer", 1.0))

    def _on_asked(self, ctx: Context, asked: Asked) -> None:
        found = self._read(ctx, asked)
        if isinstance(found, Representation):
            ctx.send(ENDPOINT, Respond(asked.exchange, found, tuning=self._tuning))
            return
        self._waiting[asked.exchange] = None
        ctx.set_timer(asked.exchange, PATIENCE_S)
        ctx.send(address(ctx.device, NODE), Offered(asked.exchange, "coap", (found,)))

    def _read(self, ctx: Context, asked: Asked) -> Observation | Representation:
        """The observation, or why there is none."""
        if asked.path != (RESOURCE,):
            return Representation(NOT_FOUND)
        if asked.method != "POST":
            return Representation(METHOD_NOT_ALLOWED)
        if asked.content_format not in READERS:
            return _said(UNSUPPORTED_CONTENT_FORMAT, f"{OCTET_STREAM} (encoded) or {JSON} (JSON)")
        try:
            observations = READERS[asked.content_format](asked.payload, ctx.now)
        except Malformed as error:
            reason = f"{error.problem} {error.where}".strip()
            sample = asked.payload[:_SAMPLE_BYTES]
            ctx.send(address(ctx.device, NODE), Unreadable("coap", asked.client, reason, sample))
            return _said(BAD_REQUEST, reason)
        if len(observations) != 1:
            return _said(BAD_REQUEST, f"one observation a request, and these are {len(observations)}")
        size_bytes, most_bytes = len(observations[0].encode()), self._size_bytes_max
        if size_bytes > most_bytes:
            problem = f"an encoded observation has {most_bytes} bytes at most, and this {size_bytes}"
            return _said(REQUEST_ENTITY_TOO_LARGE, problem)
        return observations[0]

    def _end(self, ctx: Context, exchange: int, response: Representation) -> None:
        if exchange in self._waiting:
            del self._waiting[exchange]
            ctx.cancel_timer(exchange)
            ctx.send(ENDPOINT, Respond(exchange, response, tuning=self._tuning))


def _response(verdict: Verdict) -> Representation:
    match verdict.outcome:
        case "kept":
            return Representation(CHANGED)
        case "busy":
            return _busy(verdict.reason, verdict.retry_after_s)
        case outcome:
            return _said(CHANGED, f"{outcome}: {verdict.reason}" if verdict.reason else outcome)


def _busy(reason: str, retry_after_s: float) -> Representation:
    shown = _said(SERVICE_UNAVAILABLE, reason)
    return msgspec.structs.replace(shown, max_age_s=max(1, ceil(retry_after_s)))


def _said(code: int, text: str) -> Representation:
    """With a sentence: the result's representation, or a diagnosis (RFC 7252 §5.5.2), which has no format."""
    payload = text.encode(errors="replace")[:512]
    return Representation(code, payload, content_format=TEXT if code == CHANGED else None)
