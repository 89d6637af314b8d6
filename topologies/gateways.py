"""The gateways of an experiment: the sink's, and those that others hand on to.

Owns what their routing means on the network: roles become devices, every one is led to, none leads to itself.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from gateway.destinations.columnar import installed as columnar_installed
from gateway.routing.routing import Routing
from gateway.routing.targets import Columnar, Destination, Nested, Topic
from topologies.spec import Spec
from topologies.topology import Cast
from underlay.errors import InputError, Unavailable


def gateways_of(spec: Spec, cast: Cast) -> Mapping[str, Routing]:
    """By device, the sink's first; raises InputError where one means nothing on this network."""
    keys = {cast.sink: "gateway"}
    written = {cast.sink: spec.gateway}
    for name, routing in spec.gateways.items():
        device = cast.device(name, f"gateways.{name}")
        if device in written:
            raise InputError(f"{device} has a gateway already", key=f"gateways.{name}", hint=keys[device])
        keys[device], written[device] = f"gateways.{name}", routing
    found = {device: _resolved(routing, cast, keys[device]) for device, routing in written.items()}
    for device, routing in found.items():
        for name, each in routing.destination.items():
            if isinstance(each, Nested) and each.device not in found:
                raise InputError(
                    f"there is no gateway on {each.device}",
                    key=f"{keys[device]}.destination.{name}.device",
                    hint=f"[gateways.{each.device}] makes one",
                )
    for device in found:
        _check_loops(device, found, keys, ())
    led_to = dict.fromkeys(device for routing in found.values() for device in _next_of(routing).values())
    for device in found:
        if device != cast.sink and device not in led_to:
            raise InputError(
                f"nothing leads to the gateway on {device}",
                key=keys[device],
                hint=f'a destination with type = "gateway", device = "{device}"',
            )
    return found


def _resolved(routing: Routing, cast: Cast, key: str) -> Routing:
    found = {
        name: _on_device(each, cast, f"{key}.destination.{name}")
        for name, each in routing.destination.items()
    }
    return msgspec.structs.replace(routing, destination=found)


def _on_device(destination: Destination, cast: Cast, key: str) -> Destination:
    match destination:
        case Topic(broker=broker):
            return msgspec.structs.replace(destination, broker=cast.device(broker, f"{key}.broker"))
        case Nested(device):
            return Nested(cast.device(device, f"{key}.device"))
        case Columnar() if not columnar_installed():
            raise Unavailable(
                "Parquet files are written by DuckDB, which is not installed",
                key=f"{key}.type",
                hint="pip install 'birdhouse[columnar]', or type = \"lines\"",
            )
        case _:
            return destination


def _next_of(routing: Routing) -> Mapping[str, str]:
    """Devices of the gateways that it hands on to, by destination."""
    return {name: each.device for name, each in routing.destination.items() if isinstance(each, Nested)}


def _check_loops(
    device: str, gateways: Mapping[str, Routing], keys: Mapping[str, str], way: tuple[str, ...]
) -> None:
    """From a gateway on; `way` leads to it."""
    for name, following in _next_of(gateways[device]).items():
        if following in (*way, device):
            loop = " -> ".join((*way, device, following))
            raise InputError(
                f"what is handed on there comes back: {loop}",
                key=f"{keys[device]}.destination.{name}.device",
                hint="gateways may not form a loop",
            )
        _check_loops(following, gateways, keys, (*way, device))
