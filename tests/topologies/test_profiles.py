"""Profiles: data with sources, held against the formulas they come from."""

from __future__ import annotations

import pytest

from topologies.architectures.options import OPTIONS
from topologies.profiles import (
    device_profile,
    device_profiles,
    link_profile,
    link_profiles,
    lora_airtime_ms,
    radio_of,
    radio_profiles,
)
from underlay.errors import InputError

LORA = [name for name in link_profiles() if name.startswith("lora")]
LORAWAN_FRAME_BYTES = 13
"""Header, port and integrity code that a LoRaWAN frame adds to its payload."""


@pytest.mark.parametrize("name", link_profiles())
def test_every_link_profile_is_a_valid_link_with_a_source(name: str) -> None:
    """Both directions satisfy the model's own bounds."""
    profile = link_profile(name)
    assert profile.forward.rate_kbps > 0
    assert profile.backward.rate_kbps > 0
    assert len(profile.source) > 5
    assert profile.radio is None or radio_of(profile) is not None


def test_the_breadth_of_profiles_is_there() -> None:
    """One for each technology that a birdhouse may have to live with."""
    assert {
        "802.15.4", "802.15.4-8hz", "ble", "lora-sf7", "lora-sf8", "lora-sf9", "lora-sf10", "lora-sf11",
        "lora-sf12", "nb-iot", "lte-m", "802.11ah", "wifi-edge", "wifi-good", "gprs", "3g", "lte", "leo",
        "geo", "ethernet-100m",
    } <= set(link_profiles())  # fmt: skip
    assert set(device_profiles()) == {"esp32-cam", "raspberry-pi", "phone", "laptop", "server"}


@pytest.mark.parametrize(
    ("spreading_factor", "airtime_ms"), [(7, 118.0), (9, 390.1), (12, 2793.5)], ids=["SF7", "SF9", "SF12"]
)
def test_lora_airtime_of_64_bytes(spreading_factor: int, airtime_ms: float) -> None:
    """Semtech's calculator gives these for 64 bytes at 125 kHz, coding rate 4/5."""
    assert lora_airtime_ms(spreading_factor, 64) == pytest.approx(airtime_ms, abs=0.1)


@pytest.mark.parametrize("name", LORA)
def test_a_lora_link_takes_the_airtime_of_the_formula(name: str) -> None:
    """For every payload that fits a frame, within half of the step in which the formula counts symbols."""
    profile = link_profile(name)
    factor = profile.spreading_factor
    assert factor is not None
    five_symbols_ms = 5 * 2**factor / 125
    for payload in range(1, profile.mtu_bytes + 1):
        modelled_ms = profile.forward.airtime_s(payload) * 1e3
        formula_ms = lora_airtime_ms(factor, payload + LORAWAN_FRAME_BYTES)
        assert abs(modelled_ms - formula_ms) <= 0.7 * five_symbols_ms, payload


@pytest.mark.parametrize(("factor", "allowed"), [(7, 305), (9, 92), (12, 12)], ids=["SF7", "SF9", "SF12"])
def test_one_percent_duty_cycle_allows_few_lora_messages(factor: int, allowed: int) -> None:
    """Frames of 64 bytes an hour: 36 s of airtime divided by the formula's."""
    assert int(36e3 / lora_airtime_ms(factor, 64)) == allowed
    profile = link_profile(f"lora-sf{factor}")
    an_hour = 3600 * profile.duty_cycle_ratio / profile.forward.airtime_s(min(51, profile.mtu_bytes))
    assert an_hour == pytest.approx(allowed, rel=0.1)


def test_a_cc2420_spends_its_microjoules_a_byte() -> None:
    """8 V I / rate at 250 kbit/s: 1.67 uJ sent, 1.80 uJ received."""
    radio = radio_profiles()["cc2420"]
    sent_uj = 8 * radio.volts * radio.transmit_ma * 1e-3 / 250e3 * 1e6
    received_uj = 8 * radio.volts * radio.receive_ma * 1e-3 / 250e3 * 1e6
    assert (round(sent_uj, 2), round(received_uj, 2)) == (1.67, 1.80)


def test_an_asymmetric_profile_differs_by_direction() -> None:
    """Forward is towards the infrastructure."""
    profile = link_profile("leo")
    assert (profile.forward.rate_kbps, profile.backward.rate_kbps) == (10_000, 100_000)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("wify-good", "profile: there is no link profile 'wify-good' (did you mean 'wifi-good'?)"),
        ("LORA-SF12", "profile: there is no link profile 'LORA-SF12'"),
    ],
)
def test_an_unknown_profile_names_the_nearest(name: str, message: str) -> None:
    """Or all, where none is near."""
    with pytest.raises(InputError) as caught:
        link_profile(name)
    assert str(caught.value).startswith(message)


def test_a_mains_machine_has_no_battery() -> None:
    """None is not zero."""
    assert device_profile("server").battery_j is None
    assert device_profile("esp32-cam").battery_j == 40_000


def test_options_have_defaults_throughout() -> None:
    """An architecture needs no table in a spec."""
    for options in OPTIONS.values():
        options()
