"""aiocoap's transport for a device's endpoint: one socket, looked over the shoulder.

Owns the count of every message sent, hearing empty acknowledgements (of which aiocoap tells nobody), what is
done with datagrams that are no CoAP, and the memory of what was answered to whom. Requests and responses are
`aiocoap_binding`'s.

That memory is aiocoap's rule (RFC 7252 §4.5) with a bound: aiocoap keeps each answer, and a timer, for the
247 s of EXCHANGE_LIFETIME, which at a thousand requests a second would be more than all else together. What
is forgotten early and repeated then is dealt with anew; whoever keeps observations knows them by their ids.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import aiocoap
from aiocoap.error import UnparsableMessage
from aiocoap.transports.simplesocketserver import MessageInterfaceSimpleServer

from edge.coap.packets import BLOCK_BYTES

ANSWERS_MAX = 16_384
"""Requests that are remembered with their answers."""

_ACK_TYPE, _EMPTY_CODE = 2, 0


class Request(aiocoap.Message):
    """A request that knows whose it is, and so do those for its later blocks."""

    sender: tuple[str, int]
    """The node, and its token."""

    def copy(self, **changes: Any) -> Request:
        copied: Request = super().copy(**changes)
        copied.sender = self.sender
        return copied


class Interface(MessageInterfaceSimpleServer):
    """aiocoap's simple transport with an observer.

    Set before the first message: `on_sent(ip, message, size_bytes)`, `on_acknowledged(node, token)` (the
    server has the request, and there is more to come), `on_malformed(ip, reason)`.
    """

    on_sent: Callable[[str, Any, int], None]
    on_acknowledged: Callable[[str, int], None]
    on_malformed: Callable[[str, str], None]

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.unacknowledged: dict[tuple[Any, int], tuple[str, int]] = {}
        """The node and its token of each request that is not acknowledged, by address and message id."""

    def address_of(self, ip: str, port: int) -> Any:
        """The remote that stands for a device."""
        return self._pool._Address(self._pool, (ip, port))

    def send(self, message: Any) -> None:
        if isinstance(message, Request):
            self.unacknowledged[message.remote, message.mid] = message.sender
        data = message.encode()
        self.on_sent(message.remote.address[0], message, len(data))
        message.remote.send(data)
        if message.code.is_response():
            message.request = None  # what is kept for a repetition needs no body to go with it

    def _received_datagram(self, address: Any, datagram: bytes) -> None:
        if self._mman is None:
            return  # closing
        if len(datagram) >= 4 and datagram[0] >> 4 & 3 == _ACK_TYPE:
            sender = self.unacknowledged.pop((address, int.from_bytes(datagram[2:4], "big")), None)
            # A response of a whole block is hardly the last.
            if sender is not None and (datagram[1] == _EMPTY_CODE or len(datagram) > BLOCK_BYTES):
                self.on_acknowledged(*sender)
        try:
            message = aiocoap.Message.decode(datagram, remote=address)
        except (UnparsableMessage, ValueError, IndexError) as error:
            # aiocoap lets through what its options' decoders raise: text that is not UTF-8, for one.
            self.on_malformed(address.address[0], str(error) or type(error).__name__)
            return
        self._mman.dispatch_message(message)


class Answers(dict[Any, Any]):
    """aiocoap's answers by address and message id, `ANSWERS_MAX` of them for EXCHANGE_LIFETIME."""

    def __init__(self) -> None:
        super().__init__()
        self._until_s: dict[Any, float] = {}
        """By the same keys, in the order in which they came."""

    def forget(self, now_s: float) -> None:
        """What is too old, and the oldest where there is no room for another."""
        while self._until_s:
            key, until_s = next(iter(self._until_s.items()))
            if until_s > now_s and len(self) < ANSWERS_MAX:
                return
            del self._until_s[key], self[key]

    def expect(self, key: Any, until_s: float) -> None:
        """A request that was not here before, and is not answered yet."""
        self._until_s[key] = until_s
        self[key] = None


def bound_memory(manager: Any) -> None:
    """Give an aiocoap message manager `Answers`, and no timer for each."""
    answers = manager._recent_messages = Answers()
    ordinary = manager._deduplicate_message

    def is_duplicate(message: Any) -> bool:
        now_s, key = manager.loop.time(), (message.remote, message.mid)
        answers.forget(now_s)
        if key in answers:
            repeated: bool = ordinary(message)
            return repeated
        answers.expect(key, now_s + message.transport_tuning.EXCHANGE_LIFETIME)
        return False

    manager._deduplicate_message = is_duplicate
