"""Background traffic: flows of datagrams at a constant rate, which observations have to share the links
with."""

from __future__ import annotations

import msgspec

from underlay.messages import Message, Protocol
from underlay.node import Address, Context, Node, Timer, address

_FRAMING_BYTES = 8
"""Of the message around its filling, about; small beside a packet."""


class Flow(msgspec.Struct, frozen=True):
    """One direction between two devices."""

    source: str
    target: str
    rate_kbps: float
    packet_bytes: int
    start_s: float
    stop_s: float

    @property
    def interval_s(self) -> float:
        """Between packets."""
        return self.packet_bytes * 8e-3 / self.rate_kbps


class Filling(Message, frozen=True, array_like=True, tag=1):
    """A datagram that means nothing."""

    number: int
    data: bytes


class Traffic(Node):
    """Sends the flows that start on its device, and swallows those that end there."""

    protocol = Protocol("traffic", Filling)

    def __init__(self, flows: tuple[Flow, ...]) -> None:
        self._flows = flows

    def on_start(self, ctx: Context) -> None:
        for n, flow in enumerate(self._flows):
            sent = (
                max(0, int((ctx.now - flow.start_s) / flow.interval_s) + 1) if ctx.now > flow.start_s else 0
            )
            self._schedule(ctx, n, sent)

    def on_message(self, ctx: Context, sender: Address, message: Message) -> None:
        """The end of a flow."""

    def on_timer(self, ctx: Context, timer: Timer) -> None:
        assert isinstance(timer, tuple)
        n, number = timer
        flow = self._flows[n]
        _, _, name = ctx.address.partition("/")
        ctx.send(address(flow.target, name), Filling(number, bytes(flow.packet_bytes - _FRAMING_BYTES)))
        self._schedule(ctx, n, number + 1)

    def _schedule(self, ctx: Context, n: int, number: int) -> None:
        flow = self._flows[n]
        due_s = flow.start_s + number * flow.interval_s
        if due_s < flow.stop_s:
            ctx.set_timer((n, number), max(0.0, due_s - ctx.now))
