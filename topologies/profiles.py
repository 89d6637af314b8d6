"""Link, radio and device profiles: what is known about real hardware, as data with sources.

Owns the lookup and the arithmetic on profiles (time on air, messages a duty cycle allows); the figures are in
`profile_data/*.toml`, each with its source. A spec names a profile and overrides what it knows better.
LoRa's time on air is the formula of Semtech AN1200.13 ("LoRa Modem Designer's Guide").
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from functools import cache
from importlib import resources
from math import ceil, inf
from typing import TypeVar

import msgspec

from underlay.energy import Radio
from underlay.errors import InputError, nearest
from underlay.link import LinkSpec


class LinkProfile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A kind of link. Rates in kbit/s; the forward direction is the one towards the infrastructure."""

    title: str
    source: str
    rate_kbps: float = inf
    down_rate_kbps: float | None = None
    """The backward direction; None is the same."""
    delay_ms: float = 0.0
    jitter_ms: float = 0.0
    loss_ratio: float = 0.0
    burst_frames: float = 1.0
    queue_bytes: int = 75_000
    mtu_bytes: int = 1500
    overhead_bytes: int = 0
    duty_cycle_ratio: float = 1.0
    """Share of the time that a sender may transmit; a limit below 1 holds on shared channels."""
    spreading_factor: int | None = None
    radio: str | None = None
    """Radio profile of the devices at its ends; None: wired, or on the mains."""

    @property
    def forward(self) -> LinkSpec:
        """The direction towards the infrastructure."""
        return LinkSpec(
            **{name: getattr(self, name) for name in LinkSpec.__struct_fields__ if hasattr(self, name)}
        )

    @property
    def backward(self) -> LinkSpec:
        """The direction away from the infrastructure."""
        return msgspec.structs.replace(self.forward, rate_kbps=self.down_rate_kbps or self.rate_kbps)


class RadioProfile(Radio, frozen=True, kw_only=True):
    """A radio's current draw, and where the figures come from."""

    title: str
    source: str

    @property
    def radio(self) -> Radio:
        """The figures alone."""
        return Radio(**{name: getattr(self, name) for name in Radio.__struct_fields__})


class DeviceProfile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A kind of machine."""

    title: str
    source: str
    cpu_share: float
    """Share of one core of a current desktop, 0..1."""
    memory_mb: int
    battery_j: float | None = None
    """None: on the mains."""
    mtbf_h: float
    """Mean time between failures, hours."""


_T = TypeVar("_T")


@cache
def link_profiles() -> dict[str, LinkProfile]:
    """All link profiles by name, in the order of the file."""
    return _read("links.toml", LinkProfile)


@cache
def radio_profiles() -> dict[str, RadioProfile]:
    """All radio profiles by name."""
    return _read("radios.toml", RadioProfile)


@cache
def device_profiles() -> dict[str, DeviceProfile]:
    """All device profiles by name."""
    return _read("devices.toml", DeviceProfile)


def link_profile(name: str, key: str = "profile") -> LinkProfile:
    """The link profile of that name; raises InputError that names `key` and the nearest profile."""
    return _find(name, link_profiles(), "link profile", key)


def device_profile(name: str, key: str = "profile") -> DeviceProfile:
    """The device profile of that name; raises InputError."""
    return _find(name, device_profiles(), "device profile", key)


def radio_of(profile: LinkProfile) -> Radio | None:
    """The radio that a link of this profile runs on."""
    return radio_profiles()[profile.radio].radio if profile.radio else None


def lora_airtime_ms(spreading_factor: int, payload_bytes: int, *, bandwidth_khz: float = 125.0) -> float:
    """Time on air of one LoRa frame with `payload_bytes` of PHY payload (Semtech AN1200.13 §4).

    Coding rate 4/5, explicit header, checksum, preamble of 8 symbols; low data rate optimization from SF11
    on.

    >>> round(lora_airtime_ms(7, 64)), round(lora_airtime_ms(12, 64))
    (118, 2793)
    """
    symbol_ms = float(2**spreading_factor) / bandwidth_khz
    bits_a_symbol = spreading_factor - (2 if spreading_factor >= 11 else 0)
    payload_symbols = 8 + max(
        ceil((8 * payload_bytes - 4 * spreading_factor + 44) / (4 * bits_a_symbol)) * 5, 0
    )
    return (8 + 4.25 + payload_symbols) * symbol_ms


def unknown(what: str, name: str, known: Iterable[str], key: str | None) -> InputError:
    """The error for a name that is not there: says the nearest, or all there are."""
    names = list(dict.fromkeys(known))
    near = nearest(name, names)
    hint = f"did you mean {near!r}?" if near else f"there are {', '.join(names)}"
    return InputError(f"there is no {what} {name!r}", key=key, hint=hint)


def _find(name: str, table: dict[str, _T], what: str, key: str) -> _T:
    if name not in table:
        raise unknown(what, name, table, key)
    return table[name]


def _read(file: str, kind: type[_T]) -> dict[str, _T]:
    text = resources.files("topologies").joinpath("profile_data", file).read_text(encoding="utf-8")
    return {name: msgspec.convert(table, kind) for name, table in tomllib.loads(text).items()}
