"""Ingest: small readings by HTTP batches, and by CoAP and MQTT one by one, through a gateway, into a sharded
store.

All on loopback, the store on three hosts. Counted is what the store has acknowledged, from the first request
until nothing waits in the gateway any more. Then half of that rate (by CoAP and MQTT: half of the rate that
is asked) is offered, paced, and the time to each acknowledgement measured: by MQTT that of the gateway, not
the broker's. Beside it, for scale: mosquitto alone, one publisher and one subscriber with QoS 1, the same
number of payloads.

    `python -m bench.gateway [--observations N] [--rounds N]`
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median, quantiles

import msgspec

from bench import gateway_coap, gateway_mqtt
from edge.mqtt.messages import CLIENT
from edge.mqtt.model_client import ModelClient
from edge.observation import Observation, ObservationId
from edge.star import Star, StarConfig, SubscribeConfig
from gateway.api.door import http_door
from gateway.gateway import Gateway
from gateway.ingest.coap import coap_door
from gateway.messages import NODE
from kv.client import Client
from kv.tiers import Tier, tier
from underlay.emulation.loopback import Hosts, Site, loopback_addresses
from underlay.node import Context
from underlay.plan import Binding, BindingPlan, DevicePlan, NodePlan

HOSTS = ("store1", "store2", "store3")
SINK, HUB = "sink", "hub"
DEVICES = 60
BATCH = 50
COAP_ASKED_PER_S = 1000
"""Acknowledgements by CoAP are measured at half of it."""
MQTT_ASKED_PER_S = 3000
"""Likewise."""
CONNECTIONS = 8
PAYLOAD = msgspec.msgpack.encode({"h": 2150, "u": "Cel"})
MQTT_PORT, TAP_PORT, ALONE_PORT = 18_831, 18_832, 18_833


class Place:
    """The store and the gateway, up."""

    def __init__(self, folder: Path) -> None:
        made = tier("sharded", HOSTS)
        addresses = loopback_addresses((*HOSTS, SINK, HUB), "127.88.0.1")
        devices = {host: DevicePlan(nodes) for host, nodes in made.nodes().items()}
        node = NodePlan(NODE, partial(Gateway, partial(_client, made)), 7000)
        by_coap = coap_door()
        star = StarConfig((HUB,), subscribe=SubscribeConfig(1, NODE))
        devices[SINK] = DevicePlan(
            (node, *by_coap.nodes, NodePlan("star", partial(Star, star), 7002)),
            (http_door(), *by_coap.bindings, BindingPlan(CLIENT, ModelClient, _paho, TAP_PORT)),
        )
        self.hosts = Hosts(Site(folder, devices, addresses))
        self.address = addresses[SINK], 8080
        self.coap_address = addresses[SINK], 5683
        self.tap_address, self.broker_address = (addresses[HUB], TAP_PORT), (addresses[HUB], MQTT_PORT)

    def ask(self, path: str) -> object:
        """What the gateway answers."""
        with urllib.request.urlopen(
            f"http://{self.address[0]}:{self.address[1]}{path}", timeout=20
        ) as answer:
            return json.loads(answer.read())

    def await_ready(self) -> None:
        """The tier answers."""
        while True:
            try:
                self.ask("/readyz")
            except OSError:
                time.sleep(0.1)
            else:
                return

    def await_stored(self) -> None:
        """Nothing waits in the gateway any more."""
        while self.ask("/api/v1/routes")[0]["waiting"]:  # type: ignore[index] # a list of routes
            time.sleep(0.01)

    def cpu_s(self) -> float:
        """That the gateway's process has used."""
        fields = Path(f"/proc/{self.hosts.pid(SINK)}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory_mb(self) -> float:
        """Of the gateway's process, what it holds alone and its share of the rest."""
        lines = Path(f"/proc/{self.hosts.pid(SINK)}/smaps_rollup").read_text().splitlines()
        (pss,) = [line for line in lines if line.startswith("Pss:")]
        return int(pss.split()[1]) / 1024


def _paho() -> Binding:
    from edge.mqtt.paho_binding import PahoBinding

    return PahoBinding(port=TAP_PORT)


def _client(made: Tier, lanes: int) -> Client[Context]:
    return Client(made.directory(), lanes=lanes)


def readings(count: int, prefix: str) -> list[Observation]:
    """So many, devices in turn."""
    return [
        Observation(
            ObservationId(f"{prefix}d{n % DEVICES}", n // DEVICES), "temperature", 60.0 * n, 0.0, PAYLOAD
        )
        for n in range(count)
    ]


def requests(count: int, round_: int, host: str) -> list[bytes]:
    """HTTP requests with so many observations in all."""
    found = []
    work = readings(count, f"r{round_}")
    for first in range(0, count, BATCH):
        body = msgspec.msgpack.encode(work[first : first + BATCH])
        head = f"POST /api/v1/observations HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/msgpack\r\n"
        found.append(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    return found


async def load(address: tuple[str, int], work: Sequence[bytes], rate_per_s: float | None) -> list[float]:
    """Seconds from when each request was due (sent, without a rate) to its answer; all must be 200."""
    pending = iter(enumerate(work))
    began_s = time.perf_counter()
    waits_s: list[float] = []

    async def connection() -> None:
        reader, writer = await asyncio.open_connection(*address)
        for number, request in pending:
            due_s = time.perf_counter()
            if rate_per_s is not None:
                due_s = began_s + number / rate_per_s
                await asyncio.sleep(max(0.0, due_s - time.perf_counter()))
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            body = await reader.readexactly(int(length.split(b":")[1]))
            assert head.startswith(b"HTTP/1.1 200"), body
            waits_s.append(time.perf_counter() - due_s)
        writer.close()

    await asyncio.gather(*(connection() for _ in range(CONNECTIONS)))
    return waits_s


def mosquitto(count: int, folder: Path) -> float:
    """Payloads a second from one publisher through a broker to one subscriber, QoS 1."""
    config = folder / "mosquitto.conf"
    config.write_text(f"listener {ALONE_PORT} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\n")
    broker = subprocess.Popen(["mosquitto", "-c", str(config)], stderr=subprocess.DEVNULL)
    try:
        time.sleep(0.5)
        common = ["-h", "127.0.0.1", "-p", str(ALONE_PORT), "-q", "1", "-t", "bench"]
        listener = subprocess.Popen(["mosquitto_sub", *common, "-C", str(count)], stdout=subprocess.DEVNULL)
        time.sleep(0.5)
        began_s = time.perf_counter()
        lines = ("x" * 40 + "\n") * count
        subprocess.run(["mosquitto_pub", *common, "-l"], input=lines.encode(), check=True)
        listener.wait()
        return count / (time.perf_counter() - began_s)
    finally:
        broker.terminate()
        broker.wait()


WAYS = {
    "http": (f"HTTP, {BATCH} a request", 3000, "half of that"),
    "coap": ("CoAP, a POST each", COAP_ASKED_PER_S, f"{COAP_ASKED_PER_S // 2:,} a second"),
    "mqtt": ("MQTT, a publish each", MQTT_ASKED_PER_S, f"{MQTT_ASKED_PER_S // 2:,} a second"),
}
"""In words, how many a second are asked, and at which rate acknowledgements are measured."""


class Run:
    """All rounds: figures by their names, one a round."""

    def __init__(self, place: Place, observations: int) -> None:
        self.figures: dict[str, list[float]] = {}
        self._place = place
        self._count = observations

    def http(self, round_: int) -> None:
        """As fast as it goes, then at half of that."""
        place = self._place
        work = requests(self._count, round_, place.address[0])
        rate = self._rate("http", lambda: asyncio.run(load(place.address, work, None)))
        half = requests(self._count // 2, 1000 + round_, place.address[0])
        self._waited("http", asyncio.run(load(place.address, half, rate / 2 / BATCH)))

    def coap(self, round_: int) -> None:
        """As fast as it goes, then at half of what is asked."""
        address = self._place.coap_address
        bodies = gateway_coap.observations(self._count, round_, PAYLOAD)
        self._rate("coap", lambda: gateway_coap.load(address, bodies, None))
        bodies = gateway_coap.observations(COAP_ASKED_PER_S * 5, 1000 + round_, PAYLOAD)
        self._waited("coap", gateway_coap.load(address, bodies, COAP_ASKED_PER_S / 2))

    def mqtt(self, round_: int) -> None:
        """Likewise."""
        work = readings(self._count, f"m{round_}")
        self._rate("mqtt", lambda: self._publish(work, None))
        work = readings(MQTT_ASKED_PER_S * 5, f"n{round_}")
        self._waited("mqtt", self._publish(work, MQTT_ASKED_PER_S / 2))

    def peer(self, folder: Path) -> None:
        """The same number of payloads through mosquitto alone."""
        self._note("peer", mosquitto(self._count, folder))

    def median(self, name: str) -> float:
        return median(self.figures[name])

    def _publish(self, work: Sequence[Observation], rate_per_s: float | None) -> list[float]:
        """Seconds until the gateway acknowledged each; with the tap open meanwhile."""
        place, numbers = self._place, {str(each.id): n for n, each in enumerate(work)}

        async def all_of_it() -> list[float]:
            tap = gateway_mqtt.Tap(
                place.tap_address,
                place.broker_address,
                lambda data: numbers[str(Observation.decode(data).id)],
            )
            async with await tap.serve():
                await tap.subscribed.wait()
                self._began()
                due_s = await gateway_mqtt.publish(place.broker_address, work, rate_per_s)
                while len(tap.acknowledged_s) < len(work):
                    await asyncio.sleep(0.01)
                return [tap.acknowledged_s[n] - due_s[n] for n in range(len(work))]

        return asyncio.run(all_of_it())

    def _began(self) -> None:
        self._began_s, self._used_s = time.perf_counter(), self._place.cpu_s()

    def _rate(self, name: str, do: Callable[[], object]) -> float:
        self._began()
        do()
        self._place.await_stored()
        rate = self._count / (time.perf_counter() - self._began_s)
        self._note(f"{name} rate", rate)
        self._note(f"{name} cpu us", (self._place.cpu_s() - self._used_s) / self._count * 1e6)
        return rate

    def _waited(self, name: str, waits_s: Sequence[float]) -> None:
        self._place.await_stored()
        self._note(f"{name} p50", median(waits_s) * 1e3)
        self._note(f"{name} p99", quantiles(waits_s, n=100)[98] * 1e3)

    def _note(self, name: str, figure: float) -> None:
        self.figures.setdefault(name, []).append(figure)


def main() -> None:
    """Print the table."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--observations", type=int, default=30_000)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--only", choices=WAYS, help="one way in, beside mosquitto")
    given = options.parse_args()
    ways = [given.only] if given.only else WAYS
    with tempfile.TemporaryDirectory() as folder:
        place = Place(Path(folder))
        run = Run(place, given.observations)
        broker = gateway_mqtt.Broker(Path(folder) / "broker", place.broker_address)
        try:
            with place.hosts:
                place.hosts.start()
                place.await_ready()
                for round_ in range(given.rounds):
                    for way in ways:
                        getattr(run, way)(round_)
                    run.peer(Path(folder))
                memory_mb = place.memory_mb()
        finally:
            broker.close()
    print(f"| {given.observations:,} readings, {DEVICES} devices, {given.rounds} rounds | asked | measured |")
    print("|---|---|---|")
    peer = run.median("peer")
    print(f"| mosquitto alone, one subscriber, QoS 1, observations a second | | {peer:,.0f} |")
    for name in ways:
        way, asked, at = WAYS[name]
        rate, cpu_us = run.median(f"{name} rate"), run.median(f"{name} cpu us")
        beside = f"{rate:,.0f} ({rate / peer:.2f})"
        print(f"| {way}: into the store, a second (beside mosquitto) | {asked:,} | {beside} |")
        print(f"| its CPU in the gateway's process, us an observation | | {cpu_us:.0f} |")
        waits = f"{run.median(f'{name} p50'):.1f} / {run.median(f'{name} p99'):.1f}"
        each = ", ".join(f"{figure:.0f}" for figure in run.figures[f"{name} p99"])
        print(f"| its acknowledgement at {at}, p50 / p99 ms | - / 100 | {waits} (of each round: {each}) |")
    print(f"| memory of the gateway, MB | 150 | {memory_mb:.0f} |")


if __name__ == "__main__":
    main()
