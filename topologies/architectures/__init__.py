"""The architectures that can be compared: who runs what on the same machines.

An architecture is one module with a struct of options and one function `deploy`, and one line in the table
below. `deploy` gives the dissemination's part of each device; sensors, the sink, traffic and programs are the
same for all and are added by `topologies.experiment`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

import msgspec

from topologies.profiles import unknown
from underlay.plan import DevicePlan

if TYPE_CHECKING:
    from topologies.experiment import Experiment

ARCHITECTURES = ("star", "caching", "gossip")
"""Each is a module here. The name is also that of its dissemination node on every device."""


class BuiltIn(msgspec.Struct, frozen=True):
    """A named choice of options."""

    of: str
    about: str
    options: dict[str, Any] = {}


VARIANTS: dict[str, BuiltIn] = {
    "star": BuiltIn("star", "MQTT to a broker on the hub"),
    "star-standby": BuiltIn("star", "star with a second broker that takes over", {"standby": True}),
    "caching": BuiltIn("caching", "CoAP, with a cache on every machine", {"caches": "all"}),
    "caching-relays": BuiltIn("caching", "CoAP, with caches on relays and hub only", {"caches": "relays"}),
    "gossip": BuiltIn("gossip", "UDP between neighbours: tree, announcements, repair"),
}
"""What a spec may name without defining it."""


class Deployment(msgspec.Struct, frozen=True):
    """An architecture's part of a plan."""

    devices: Mapping[str, DevicePlan]
    """By device; sensors, sink, traffic and programs are not in it."""
    frame_class: Callable[[memoryview], bool] | None = None
    """Whether a real IP packet carries observations (`Plan.frame_class`)."""


Deploy = Callable[["Experiment"], Deployment]


def deploy_of(architecture: str) -> Deploy:
    """The `deploy` function of one of `ARCHITECTURES`; raises InputError for any other name."""
    if architecture not in ARCHITECTURES:
        raise unknown("architecture", architecture, ARCHITECTURES, "architectures")
    deploy: Deploy = import_module(f"topologies.architectures.{architecture}").deploy
    return deploy
