"""What a spec can name: `birdhouse list`."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from math import isinf
from pathlib import Path

from topologies import quickstart
from topologies.architectures import VARIANTS
from topologies.profiles import device_profiles, link_profiles, unknown
from topologies.results import Row
from topologies.shapes import SHAPES
from topologies.timeline import VERBS


def catalogue(what: str) -> list[Row]:
    """The rows of one of `TOPICS`; raises InputError for another."""
    if what not in TOPICS:
        raise unknown("list", what, TOPICS, None)
    return TOPICS[what]()


def examples() -> list[Path]:
    """The bundled spec, and those beside the packages in a checkout."""
    beside = Path(__file__).parent.parent / "examples"
    return [quickstart(), *sorted(beside.glob("*.toml"))]


def _architectures() -> list[Row]:
    return [{"name": name, "of": variant.of, "about": variant.about} for name, variant in VARIANTS.items()]


def _profiles() -> list[Row]:
    return [
        {
            "name": name,
            "about": profile.title,
            "rate_kbps": None if isinf(profile.rate_kbps) else profile.rate_kbps,
            "delay_ms": profile.delay_ms,
            "jitter_ms": profile.jitter_ms,
            "loss_ratio": profile.loss_ratio,
            "mtu_bytes": profile.mtu_bytes,
            "radio": profile.radio,
        }
        for name, profile in link_profiles().items()
    ]


def _shapes() -> list[Row]:
    return [
        {
            "name": name,
            "parameters": ", ".join(shape.__struct_fields__),
            "about": " ".join((shape.__doc__ or "").partition("\n\n")[0].split()),
        }
        for name, shape in SHAPES.items()
    ]


def _devices() -> list[Row]:
    return [
        {
            "name": name,
            "about": profile.title,
            "cpu_share": profile.cpu_share,
            "memory_mb": profile.memory_mb,
            "battery_j": profile.battery_j,
            "mtbf_h": profile.mtbf_h,
        }
        for name, profile in device_profiles().items()
    ]


def _faults() -> list[Row]:
    return [
        {"name": name, "takes": takes or "nothing", "about": about} for name, (takes, about) in VERBS.items()
    ]


def _examples() -> list[Row]:
    rows = []
    for path in examples():
        spec = tomllib.loads(path.read_text(encoding="utf-8"))
        rows.append({"name": path.stem, "about": spec.get("description", ""), "file": str(path)})
    return rows


TOPICS: dict[str, Callable[[], list[Row]]] = {
    "architectures": _architectures,
    "profiles": _profiles,
    "shapes": _shapes,
    "devices": _devices,
    "faults": _faults,
    "examples": _examples,
}
"""By the word after `birdhouse list`."""
