"""Load for a gateway that subscribes to a broker: the broker, publishers, and when the gateway
acknowledges.

A publisher hears from the broker, not from the gateway. When the gateway has an observation safe it says so
in its PUBACK to the broker; so the gateway's connection leads through a tap, which passes everything on and
looks at the packets that go by. Clients are sockets and hand-written packets, because a client library would
be what is measured.
"""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from edge.mqtt.model_broker import BrokerConfig
from edge.mqtt.mosquitto import CONFIGURATION_FILE, configuration
from edge.observation import Observation

PUBLISHERS = 4
WINDOW = 100
"""Publishes of one publisher that the broker has not acknowledged."""
_CONNECT = b"\x10\x10\x00\x04MQTT\x04\x02\x00\x3c\x00\x04"
_CONNACK, _PUBLISH_QOS_1, _PUBACK, _SUBACK = 0x20, 0x32, 0x40, 0x90


class Broker:
    """mosquitto as the star has it, but for its queue, which is as long as it needs to be: a broker that
    drops is not what is measured."""

    def __init__(self, folder: Path, address: tuple[str, int]) -> None:
        folder.mkdir()
        text = configuration(BrokerConfig(max_queued=0), address[1])
        (folder / CONFIGURATION_FILE).write_text(
            text.replace("{dir}", str(folder)).replace("{ip}", address[0])
        )
        self._process = subprocess.Popen(
            ["mosquitto", "-c", str(folder / CONFIGURATION_FILE)], stderr=subprocess.DEVNULL
        )

    def close(self) -> None:
        self._process.terminate()
        self._process.wait()


class Tap:
    """What passes between the gateway, which connects to `at`, and the broker.

    Args:
        number_of: of the observation in a publish, for `acknowledged_s`.
    """

    def __init__(
        self, at: tuple[str, int], broker: tuple[str, int], number_of: Callable[[bytes], int]
    ) -> None:
        self.acknowledged_s: dict[int, float] = {}
        """When the gateway acknowledged each, by `time.perf_counter`."""
        self.subscribed = asyncio.Event()
        """What is published from now on comes to the gateway."""
        self._at, self._broker = at, broker
        self._number_of = number_of

    async def serve(self) -> asyncio.Server:
        return await asyncio.start_server(self._pass_on, *self._at)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(*self._broker)
        carried: dict[bytes, int] = {}
        """Numbers by packet identifiers."""

        def to_gateway(packet: bytes, body: int) -> None:
            if packet[0] & 0xF6 == _PUBLISH_QOS_1:
                at = body + 2 + int.from_bytes(packet[body : body + 2], "big")
                # MQTT 5: a property length follows the identifier; the broker adds none of its own.
                carried[packet[at : at + 2]] = self._number_of(packet[at + 3 :])
            elif packet[0] == _SUBACK or (packet[0] == _CONNACK and packet[body] & 1):
                self.subscribed.set()

        def to_broker(packet: bytes, body: int) -> None:
            if packet[0] == _PUBACK and (number := carried.pop(packet[body : body + 2], None)) is not None:
                self.acknowledged_s[number] = time.perf_counter()

        with suppress(asyncio.CancelledError):  # the measurement is over
            await asyncio.gather(_copy(there, writer, to_gateway), _copy(reader, back, to_broker))


async def _copy(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, look: Callable[[bytes, int], None]
) -> None:
    rest = b""
    while chunk := await reader.read(1 << 16):
        writer.write(chunk)
        rest += chunk
        seen = 0
        for packet, body in _packets(rest):
            look(packet, body)
            seen += len(packet)
        rest = rest[seen:]
        await writer.drain()
    writer.close()


def _packets(data: bytes) -> Iterator[tuple[bytes, int]]:
    """Those that are whole, and where their bodies begin."""
    at = 0
    while True:
        length, shift, body = 0, 0, at + 1
        while True:
            if body >= len(data):
                return
            length |= (data[body] & 0x7F) << shift
            shift += 7
            body += 1
            if not data[body - 1] & 0x80:
                break
        if body + length > len(data):
            return
        yield data[at : body + length], body - at
        at = body + length


async def publish(
    broker: tuple[str, int], work: Sequence[Observation], rate_per_s: float | None
) -> dict[int, float]:
    """When each was due (sent, without a rate), by its number in `work`, once the broker has all."""
    due_s: dict[int, float] = {}
    began_s = time.perf_counter()

    async def publisher(first: int) -> None:
        reader, writer = await asyncio.open_connection(*broker)
        writer.write(_CONNECT + b"pub%d" % first)
        await reader.readexactly(4)
        free = asyncio.Semaphore(WINDOW)
        mine = range(first, len(work), PUBLISHERS)

        async def hear() -> None:
            for _ in mine:
                await reader.readexactly(4)
                free.release()

        hearing = asyncio.create_task(hear())
        for n in mine:
            due_s[n] = time.perf_counter()
            if rate_per_s is not None:
                due_s[n] = began_s + n / rate_per_s
                await asyncio.sleep(max(0.0, due_s[n] - time.perf_counter()))
            await free.acquire()
            writer.write(_publish(work[n], n))
        await hearing
        writer.close()

    await asyncio.gather(*(publisher(first) for first in range(PUBLISHERS)))
    return due_s


def _publish(observation: Observation, number: int) -> bytes:
    topic = f"birdhouse/{observation.id.device}/{observation.kind}".encode()
    packet_id = (number // PUBLISHERS % 0xFFFF + 1).to_bytes(2, "big")
    body = len(topic).to_bytes(2, "big") + topic + packet_id + observation.encode()
    assert len(body) < 1 << 14
    return bytes((_PUBLISH_QOS_1, 0x80 | len(body) & 0x7F, len(body) >> 7)) + body
