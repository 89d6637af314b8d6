"""The running network as its supervisor tells it: who is up, what is cut, what links carry; faults.

Owns the questions to the run's control socket and the reading of the ether's trace, whose records of link
usage come once a second. Both are asked in a thread, so that the device's nodes do not wait for a disk or a
supervisor that is busy.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from underlay.emulation import control
from underlay.errors import BirdhouseError
from underlay.faults import AnyFault
from underlay.network import Link, Network
from underlay.trace import LinkUsage

USAGE_WINDOW_S = 3.0
READ_BYTES_MAX = 4 << 20
FAULTS_KEPT = 50


class NotRunning(Exception):
    """There is no run to ask, or it does not answer; a sentence for the client."""


class Place(msgspec.Struct, frozen=True):
    """What is known of the network before it runs."""

    name: str = ""
    """Of the experiment."""
    network: Network = Network(())
    roles: Mapping[str, str] = {}


class _Used(msgspec.Struct):
    t: float
    event: str
    source: str = ""
    target: str = ""
    bytes_on_air: int = 0
    lost: int = 0
    queue_dropped: int = 0
    cut: int = 0


class Running:
    """The run that this door's device is part of.

    Args:
        place: the network on paper.
        run: the run's name; None: the device is in no run (loopback, the simulation).
    """

    def __init__(self, place: Place, run: str | None) -> None:
        self.place = place
        self._run = run
        self._looking = asyncio.Lock()
        self._offset = 0
        self._usage: deque[_Used] = deque()
        self._seen = 0
        self.faults: deque[dict[str, Any]] = deque(maxlen=FAULTS_KEPT)
        """That were injected from here."""

    async def look(self) -> dict[str, Any]:
        """Devices and links, now; raises NotRunning."""
        async with self._looking:  # each reads on in the trace where the last one stopped
            return await asyncio.to_thread(self._look)

    async def inject(self, fault: AnyFault) -> None:
        """Make it happen; raises NotRunning, or BirdhouseError with what is wrong about the fault."""
        if self._run is None:
            raise NotRunning("this gateway is in no emulated network")
        async with self._looking:  # nobody sees what it did before it is among the faults
            status = await asyncio.to_thread(control.status, self._run)
            await asyncio.to_thread(control.inject, fault, self._run)
            told = msgspec.to_builtins(fault)
            text = " ".join(str(value) for value in told.values())
            self.faults.append({"t": status["t_s"], "text": text, "fault": told})

    # ------------------------------------------------------------------------------------------------ helpers

    def _look(self) -> dict[str, Any]:
        if self._run is None:
            raise NotRunning("this gateway is in no emulated network")
        try:
            status = control.status(self._run)
        except BirdhouseError as error:
            raise NotRunning(str(error)) from error
        self._read_usage(Path(status["folder"]) / "shards" / "1-ether.jsonl")
        rates = self._rates(status["t_s"])
        cut = {frozenset(pair) for pair in status.get("cut", ())}
        places = {device.name: device for device in self.place.network.devices}
        devices = [
            {
                "name": name,
                "role": self.place.roles.get(name, ""),
                "x": places[name].x if name in places else None,
                "y": places[name].y if name in places else None,
                "up": told["up"],
                "paused": told["paused"],
            }
            for name, told in status["devices"].items()
        ]
        up = {device["name"]: device["up"] for device in devices}
        links = [
            self._link(link, frozenset((link.a, link.b)) in cut, up, rates)
            for link in self.place.network.links
        ]
        for channel in self.place.network.channels:
            for a, b in channel.pairs:
                link = Link(a, b, channel.spec, channel.spec, channel.profile)
                told = self._link(link, frozenset((a, b)) in cut, up, rates)
                sent = (rates.get(frozenset((device, "*")), {}).get("bytes_per_s", 0.0) for device in (a, b))
                links.append({**told, "channel": channel.name, "bytes_per_s": sum(sent)})
        return {"t_s": status["t_s"], "run": status["run"], "devices": devices, "links": links}

    def _link(
        self,
        link: Link,
        cut: bool,
        up: Mapping[str, bool],
        rates: Mapping[frozenset[str], Mapping[str, float]],
    ) -> dict[str, Any]:
        """A link between devices of which one is down is not cut, though nothing passes there either."""
        return {
            "a": link.a,
            "b": link.b,
            "up": not cut and up.get(link.a, False) and up.get(link.b, False),
            "cut": cut,
            "profile": link.profile,
            "loss_ratio": link.forward.loss_ratio,
            **rates.get(frozenset((link.a, link.b)), {"bytes_per_s": 0.0, "lost_per_s": 0.0}),
        }

    def _read_usage(self, path: Path) -> None:
        """What the ether has written since the last time; whole lines only."""
        try:
            with path.open("rb") as file:
                size = file.seek(0, 2)
                self._offset = max(self._offset, size - READ_BYTES_MAX)
                file.seek(self._offset)
                data = file.read(READ_BYTES_MAX)
        except OSError:
            return
        whole = data.rfind(b"\n") + 1
        self._offset += whole
        wanted = LinkUsage.__struct_config__.tag
        for line in data[:whole].splitlines():
            try:
                record = _decoder.decode(line)
            except msgspec.DecodeError:
                continue
            if record.event == wanted:
                self._usage.append(record)

    def _rates(self, now_s: float) -> dict[frozenset[str], dict[str, float]]:
        while self._usage and self._usage[0].t < now_s - USAGE_WINDOW_S:
            self._usage.popleft()
        found: dict[frozenset[str], dict[str, float]] = {}
        for used in self._usage:
            rates = found.setdefault(
                frozenset((used.source, used.target)), {"bytes_per_s": 0.0, "lost_per_s": 0.0}
            )
            rates["bytes_per_s"] += used.bytes_on_air / USAGE_WINDOW_S
            rates["lost_per_s"] += (used.lost + used.queue_dropped + used.cut) / USAGE_WINDOW_S
        return found


_decoder = msgspec.json.Decoder(_Used)
