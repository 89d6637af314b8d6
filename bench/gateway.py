"""Ingest: small readings by HTTP batches, and by CoAP one by one, through a gateway, into a sharded store.

All on loopback, the store on three hosts. Counted is what the store has acknowledged, from the first request
until nothing waits in the gateway any more. Then half of that rate (by CoAP: half of the rate that is asked)
is offered, paced, and the time to each acknowledgement measured. Beside it, for scale: mosquitto alone, one
publisher and one subscriber with QoS 1, the same number of payloads.

    `python -m bench.gateway [--observations N] [--rounds N]`
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from statistics import median, quantiles

import msgspec

from bench import gateway_coap
from edge.observation import Observation, ObservationId
from gateway.api.door import http_door
from gateway.gateway import Gateway
from gateway.ingest.coap import coap_door
from gateway.messages import NODE
from kv.client import Client
from kv.tiers import Tier, tier
from underlay.emulation.loopback import Hosts, Site, loopback_addresses
from underlay.node import Context
from underlay.plan import DevicePlan, NodePlan

HOSTS = ("store1", "store2", "store3")
SINK = "sink"
DEVICES = 60
BATCH = 50
COAP_ASKED_PER_S = 1000
"""Acknowledgements by CoAP are measured at half of it."""
CONNECTIONS = 8
PAYLOAD = msgspec.msgpack.encode({"h": 2150, "u": "Cel"})
MQTT_PORT = 18_831


class Place:
    """The store and the gateway, up."""

    def __init__(self, folder: Path) -> None:
        made = tier("sharded", HOSTS)
        addresses = loopback_addresses((*HOSTS, SINK), "127.88.0.1")
        devices = {host: DevicePlan(nodes) for host, nodes in made.nodes().items()}
        node = NodePlan(NODE, partial(Gateway, partial(_client, made)), 7000)
        by_coap = coap_door()
        devices[SINK] = DevicePlan((node, *by_coap.nodes), (http_door(), *by_coap.bindings))
        self.hosts = Hosts(Site(folder, devices, addresses))
        self.address = addresses[SINK], 8080
        self.coap_address = addresses[SINK], 5683

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

    def memory_mb(self) -> float:
        """Of the gateway's process, what it holds alone and its share of the rest."""
        lines = Path(f"/proc/{self.hosts.pid(SINK)}/smaps_rollup").read_text().splitlines()
        (pss,) = [line for line in lines if line.startswith("Pss:")]
        return int(pss.split()[1]) / 1024


def _client(made: Tier, lanes: int) -> Client[Context]:
    return Client(made.directory(), lanes=lanes)


def requests(count: int, round_: int, host: str) -> list[bytes]:
    """HTTP requests with so many observations in all, devices in turn."""
    found = []
    for first in range(0, count, BATCH):
        batch = [
            Observation(
                ObservationId(f"r{round_}d{n % DEVICES}", n // DEVICES), "temperature", 60.0 * n, 0.0, PAYLOAD
            )
            for n in range(first, first + BATCH)
        ]
        body = msgspec.msgpack.encode(batch)
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
    config.write_text(f"listener {MQTT_PORT} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\n")
    broker = subprocess.Popen(["mosquitto", "-c", str(config)], stderr=subprocess.DEVNULL)
    try:
        time.sleep(0.5)
        common = ["-h", "127.0.0.1", "-p", str(MQTT_PORT), "-q", "1", "-t", "bench"]
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


def main() -> None:
    """Print the table."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--observations", type=int, default=30_000)
    options.add_argument("--rounds", type=int, default=3)
    given = options.parse_args()
    rates, peers, p50s, p99s = list[float](), list[float](), list[float](), list[float]()
    coap_rates, coap_p50s, coap_p99s = list[float](), list[float](), list[float]()
    with tempfile.TemporaryDirectory() as folder:
        place = Place(Path(folder))
        with place.hosts:
            place.hosts.start()
            place.await_ready()
            for round_ in range(given.rounds):
                work = requests(given.observations, round_, place.address[0])
                began_s = time.perf_counter()
                asyncio.run(load(place.address, work, None))
                place.await_stored()
                rates.append(given.observations / (time.perf_counter() - began_s))
                half = requests(given.observations // 2, 1000 + round_, place.address[0])
                waits_s = asyncio.run(load(place.address, half, rates[-1] / 2 / BATCH))
                place.await_stored()
                p50s.append(median(waits_s) * 1e3)
                p99s.append(quantiles(waits_s, n=100)[98] * 1e3)
                bodies = gateway_coap.observations(given.observations, round_, PAYLOAD)
                began_s = time.perf_counter()
                gateway_coap.load(place.coap_address, bodies, None)
                place.await_stored()
                coap_rates.append(given.observations / (time.perf_counter() - began_s))
                bodies = gateway_coap.observations(COAP_ASKED_PER_S * 5, 1000 + round_, PAYLOAD)
                waits_s = gateway_coap.load(place.coap_address, bodies, COAP_ASKED_PER_S / 2)
                place.await_stored()
                coap_p50s.append(median(waits_s) * 1e3)
                coap_p99s.append(quantiles(waits_s, n=100)[98] * 1e3)
                peers.append(mosquitto(given.observations, Path(folder)))
            memory_mb = place.memory_mb()
    print(f"| {given.observations:,} readings, batches of {BATCH}, {DEVICES} devices | asked | measured |")
    print("|---|---|---|")
    print(f"| HTTP into the sharded store, observations a second | 3,000 | {median(rates):,.0f} |")
    print(f"| mosquitto alone, one subscriber, QoS 1 | | {median(peers):,.0f} |")
    print(f"| acknowledgement at half of that, p50 / p99 ms | - / 100 | {_both(p50s, p99s)} |")
    print(f"| CoAP into the store, a POST each, observations a second | 1,000 | {median(coap_rates):,.0f} |")
    print(f"| its acknowledgement at 500 a second, p50 / p99 ms | - / 100 | {_both(coap_p50s, coap_p99s)} |")
    print(f"| memory of the gateway, MB | 150 | {memory_mb:.0f} |")


def _both(p50s: Sequence[float], p99s: Sequence[float]) -> str:
    return f"{median(p50s):.1f} / {median(p99s):.1f}"


if __name__ == "__main__":
    main()
