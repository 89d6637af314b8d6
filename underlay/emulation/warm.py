"""The warm parent: what all devices' processes share in memory, loaded once before they are forked.

Owns learning what that is. Libraries import late, some only when an engine starts; so of each kind of device
one goes first, a scout, and says what it had to import by then. The parent imports the same, and all others
find it there: 200 servers then start in the time of their forks, and what they share is in memory once.
"""

from __future__ import annotations

import gc
import importlib
import sys
from collections.abc import Collection, Mapping

from underlay.plan import DevicePlan


def scouts(devices: Mapping[str, DevicePlan]) -> list[str]:
    """The first device of each kind: of each set of nodes and bindings."""
    first: dict[tuple[str, ...], str] = {}
    for name, device in devices.items():
        kind = (*(node.name for node in device.nodes), *(binding.name for binding in device.bindings))
        if kind:
            first.setdefault(kind, name)
    return list(first.values())


def loaded() -> frozenset[str]:
    """Names of the modules this process has imported."""
    return frozenset(sys.modules)


def learn(modules: Collection[str]) -> None:
    """Import what a scout had to, and keep the garbage collector from writing to what is shared."""
    for name in sorted(modules):
        try:
            importlib.import_module(name)
        except (
            Exception
        ):  # imported there under conditions that do not hold here; then everybody does it alone
            continue
    gc.collect()
    gc.freeze()
