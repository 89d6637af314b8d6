"""One node's relation to one broker: connected, trying, or waiting to try again.

Owns the state machine and the back-off; what is published or subscribed over it is the star node's. The
client does one attempt at a time and the session decides on the next, so that reconnecting is the same on
both fabrics and replays from a seed.

Waits grow as base * 2^failures up to a limit, of which a random half is left off, so that devices that lost
the same broker do not come back all at once ("equal jitter": M. Brooker, Exponential Backoff and Jitter, AWS
Architecture Blog 2015).
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from edge.events import SessionChanged
from edge.mqtt.messages import CLIENT, Connect, Connected, Disconnect, Disconnected
from underlay.node import Address, Context, Timer


class SessionConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a device keeps its connections."""

    clean_start: bool = False
    """False: a persistent session, under a client id that never changes."""
    session_expiry_s: int = 86_400
    """How long the broker keeps the session of a device that is away (MQTT 5)."""
    keepalive_s: int = 15
    """A silent broker is given up after 1.5 times this, a silent device too."""
    connect_timeout_s: float = 5.0
    backoff_base_s: float = 0.5
    backoff_max_s: float = 8.0
    client_id: str = ""
    """Empty: the device's name. One that several devices have is one session, which belongs to whoever
    connected last (MQTT 5, 3.1.4)."""
    receive_maximum: Annotated[int, msgspec.Meta(ge=0, le=65_535)] = 0
    """Messages that the broker may have under way to the device (MQTT 5): what is not acknowledged holds the
    rest back. 0: as many as the broker likes."""


State = Literal["idle", "connecting", "connected", "waiting"]


class Session:
    """To one broker. `retry` is the timer that its node must hand back.

    Args:
        client: the device's MQTT client, of which it may have several.
    """

    def __init__(self, broker: str, config: SessionConfig, client: Address = CLIENT) -> None:
        self.broker = broker
        self._client = client
        self.state: State = "idle"
        self.failures = 0
        """Attempts and connections that were lost since the last time it was connected."""
        self.receive_maximum = 0
        self.retry: Timer = ("connect", broker)
        self._config = config

    def open(self, ctx: Context) -> None:
        """Begin to connect, and do not stop trying; nothing where it does already."""
        if self.state == "idle":
            self._connect(ctx)

    def close(self, ctx: Context) -> None:
        """Leave politely, and do not come back until `open`."""
        if self.state in ("connected", "connecting"):
            ctx.send(self._client, Disconnect(self.broker))
        if self.state == "connected":
            ctx.emit(SessionChanged("disconnected", self.broker))
        ctx.cancel_timer(self.retry)
        self.state = "idle"
        self.failures = 0

    def on_connected(self, ctx: Context, message: Connected) -> None:
        self.state = "connected"
        self.failures = 0
        self.receive_maximum = message.receive_maximum
        ctx.emit(SessionChanged("connected", self.broker, message.session_present))

    def on_disconnected(self, ctx: Context, message: Disconnected) -> None:
        if self.state == "idle":
            return  # it crossed our own Disconnect
        if self.state == "connected":
            ctx.emit(SessionChanged("disconnected", self.broker))
        self.state = "waiting"
        self.failures += 1
        ctx.set_timer(self.retry, self._backoff_s(ctx))

    def on_retry(self, ctx: Context) -> None:
        """The timer `retry` is due."""
        if self.state == "waiting":
            self._connect(ctx)

    def _connect(self, ctx: Context) -> None:
        self.state = "connecting"
        config = self._config
        ctx.send(
            self._client,
            Connect(
                broker=self.broker,
                client_id=config.client_id or ctx.device,
                clean_start=config.clean_start,
                keepalive_s=config.keepalive_s,
                session_expiry_s=config.session_expiry_s,
                timeout_s=config.connect_timeout_s,
                receive_maximum=config.receive_maximum,
            ),
        )

    def _backoff_s(self, ctx: Context) -> float:
        exponent = min(self.failures - 1, 30)
        limit_s = min(self._config.backoff_max_s, self._config.backoff_base_s * 2.0**exponent)
        return limit_s * (0.5 + 0.5 * ctx.rng.random())
