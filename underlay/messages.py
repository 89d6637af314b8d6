"""Messages and their codec: what crosses a link, and its exact bytes.

A message is a frozen `msgspec.Struct` encoded as a msgpack array whose first element is an integer tag, so
that a header costs one or two bytes on a slow link. A `Protocol` is the closed set of messages that one kind
of node understands; it encodes them, decodes them, and refuses everything else.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Union, cast

import msgspec

Transport = Literal["datagram", "stream", "local"]

MESSAGE_BYTES_MAX = 64 * 1024
"""Larger state moves in acknowledged chunks (DESIGN: a handler yields between them)."""


class MalformedMessage(ValueError):
    """Bytes that are no message of the protocol. Network input: dropped and counted, never a crash."""


class Message(msgspec.Struct, frozen=True, array_like=True):
    """Base of all messages. A subclass passes `frozen=True, array_like=True, tag=N` and declares its
    transport.

    - `datagram`: may be lost, duplicated, reordered; one UDP datagram.
    - `stream`: ordered and retransmitted; the stream may be reset, which `Node.on_peer_down` reports.
    - `local`: never leaves its device (what a binding and a node say to each other).
    """

    transport: ClassVar[Transport] = "datagram"
    carries_payload: ClassVar[bool] = False
    """True where the message carries users' observations; the bytes of all others are counted as control."""
    opens_stream: ClassVar[bool] = False
    """True where the message is the first of a connection of its own (simulated MQTT's CONNECT): the
    simulation gives up the stream that the node had to that peer, with everything still on its way there."""

    def wire_size(self) -> int | None:
        """Bytes of this message where it stands for another protocol's packet (simulated MQTT, CoAP), else
        None."""
        return None


class Protocol:
    """The closed set of messages of one kind of node, and their codec.

    >>> class Ping(Message, frozen=True, array_like=True, tag=1):
    ...     round: int
    >>> protocol = Protocol("ping", Ping)
    >>> protocol.encode(Ping(7)).hex()
    '920107'
    >>> protocol.decode(bytes.fromhex("920107"))
    Ping(round=7)
    """

    def __init__(self, name: str, *types: type[Message]) -> None:
        tags = [t.__struct_config__.tag for t in types]
        if len(set(tags)) != len(tags) or not all(isinstance(tag, int) for tag in tags):
            raise TypeError(f"protocol {name}: every message needs an integer tag of its own, got {tags}")
        self.name = name
        self.types = types
        self._encoder = msgspec.msgpack.Encoder()
        union = cast("Any", Union[types] if types else Message)  # noqa: UP007 - from a tuple
        self._decoder: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(union)

    def __repr__(self) -> str:
        return f"Protocol({self.name!r}, {len(self.types)} messages)"

    def encode(self, message: Message) -> bytes:
        """The bytes of `message`; raises ValueError where they exceed `MESSAGE_BYTES_MAX`."""
        data = self._encoder.encode(message)
        if len(data) > MESSAGE_BYTES_MAX:
            raise ValueError(
                f"{type(message).__name__} of {len(data)} bytes: messages end at {MESSAGE_BYTES_MAX}"
            )
        return data

    def decode(self, data: bytes | bytearray | memoryview) -> Message:
        """The message in `data`; raises MalformedMessage for anything else."""
        try:
            return self._decoder.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise MalformedMessage(f"{self.name}: {error}") from error

    def size(self, message: Message) -> int:
        """Bytes that `message` occupies above the transport (its own `wire_size`, or its encoding)."""
        size = message.wire_size()
        return len(self.encode(message)) if size is None else size
