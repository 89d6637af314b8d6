"""The message layer of a model endpoint: confirmable messages, one at a time to each peer, and duplicates.

Owns message ids, retransmission with its random factor, the backlog behind an unacknowledged message
(NSTART = 1), and what was answered to whom, so that a repeated request gets the old answer. Knows nothing of
requests, responses and observations.

Source: RFC 7252 §4.2 to §4.8; where it leaves a choice, aiocoap's.
"""

from __future__ import annotations

from collections import deque
from typing import Literal

from edge.coap.messages import Tuning
from edge.coap.packets import EmptyPacket, Packet
from underlay.node import Address, Context

MAX_LATENCY_S = 100.0


class Exchange:
    """A confirmable message that waits for its acknowledgement."""

    __slots__ = ("packet", "sent", "timeout_s", "tuning")

    def __init__(self, packet: Packet, tuning: Tuning) -> None:
        self.packet = packet
        self.tuning = tuning
        self.timeout_s = 0.0
        self.sent = 0


class MessageLayer:
    """Messages between this endpoint and its peers. Timers are `("retransmit", peer)`."""

    def __init__(self, first_mid: int) -> None:
        self._mid = first_mid
        self._active: dict[Address, Exchange] = {}
        self._backlog: dict[Address, deque[Exchange]] = {}
        self._answers: dict[tuple[Address, int], Packet | None] = {}
        self._remembered: deque[tuple[float, tuple[Address, int]]] = deque()

    def next_mid(self) -> int:
        """A message id that has not been used for a long while."""
        mid = self._mid
        self._mid = (mid + 1) & 0xFFFF
        return mid

    def send_confirmable(self, ctx: Context, peer: Address, packet: Packet, tuning: Tuning) -> None:
        """Send as soon as the peer has acknowledged what was sent before, and again until it acknowledges
        this."""
        exchange = Exchange(packet, tuning)
        if peer in self._active:
            self._backlog.setdefault(peer, deque()).append(exchange)
        else:
            self._begin(ctx, peer, exchange)

    def on_acknowledged(
        self, ctx: Context, peer: Address, mid: int, kind: Literal["ACK", "RST"]
    ) -> Packet | None:
        """An ACK or RST arrived: the packet that it answers, or None where that is not known (any more)."""
        exchange = self._active.get(peer)
        if exchange is None or exchange.packet.mid != mid:
            return None
        del self._active[peer]
        ctx.cancel_timer(("retransmit", peer))
        waiting = self._backlog.get(peer)
        if waiting:
            self._begin(ctx, peer, waiting.popleft())
        return exchange.packet

    def on_retransmit(self, ctx: Context, peer: Address) -> bool:
        """The timer is due; False where the peer is given up, and the backlog with it."""
        exchange = self._active[peer]
        if exchange.sent <= exchange.tuning.max_retransmit:
            self._transmit(ctx, peer, exchange)
            return True
        del self._active[peer]
        self._backlog.pop(peer, None)
        return False

    def is_duplicate(self, ctx: Context, peer: Address, packet: Packet) -> bool:
        """Whether that request was here before. A confirmable one is answered as it was then."""
        self._forget(ctx.now)
        key = (peer, packet.mid)
        if key not in self._answers:
            self._answers[key] = None
            self._remembered.append((ctx.now + _exchange_lifetime_s(Tuning()), key))
            return False
        answer = self._answers[key]
        if answer is not None and packet.mtype == "CON":
            ctx.send(peer, answer)
        return True

    def remember(self, peer: Address, request_mid: int, answer: Packet) -> None:
        """`answer` is what a repetition of that request gets."""
        key = (peer, request_mid)
        if key in self._answers:
            self._answers[key] = answer

    def acknowledge(self, ctx: Context, peer: Address, mid: int) -> None:
        """Send an empty acknowledgement."""
        ctx.send(peer, EmptyPacket("ACK", mid))

    def reset(self, ctx: Context, peer: Address, mid: int) -> None:
        """Say that a message means nothing here."""
        ctx.send(peer, EmptyPacket("RST", mid))

    def _begin(self, ctx: Context, peer: Address, exchange: Exchange) -> None:
        self._active[peer] = exchange
        shortest_s = exchange.tuning.ack_timeout_s
        exchange.timeout_s = ctx.rng.uniform(shortest_s, shortest_s * exchange.tuning.ack_random_factor)
        self._transmit(ctx, peer, exchange)

    def _transmit(self, ctx: Context, peer: Address, exchange: Exchange) -> None:
        exchange.sent += 1
        ctx.send(peer, exchange.packet)
        ctx.set_timer(("retransmit", peer), exchange.timeout_s)
        exchange.timeout_s *= 2

    def _forget(self, now_s: float) -> None:
        while self._remembered and self._remembered[0][0] <= now_s:
            del self._answers[self._remembered.popleft()[1]]


def _exchange_lifetime_s(tuning: Tuning) -> float:
    """EXCHANGE_LIFETIME (RFC 7252 §4.8.2): 247 s with the default parameters."""
    span_s = tuning.ack_timeout_s * (2.0**tuning.max_retransmit - 1) * tuning.ack_random_factor
    return span_s + 2 * MAX_LATENCY_S + tuning.ack_timeout_s
