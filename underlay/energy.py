"""Energy by radio state: the sum over states of V x I x t (sleep, listen, receive, transmit).

A pure function of how long the radio spent in each state, which both fabrics' link records give. On a
shared channel every device in range pays for receiving.
"""

from __future__ import annotations

import msgspec


class Radio(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Current draw of a radio by state, mA, at `volts`."""

    volts: float = 3.0
    transmit_ma: float = 17.4
    receive_ma: float = 18.8
    listen_ma: float = 18.8
    sleep_ma: float = 0.02
    listen_ratio: float = 1.0
    """Share of the idle time that the radio listens; 1 is always on, and then listening dominates."""


class RadioTime(msgspec.Struct, frozen=True):
    """Seconds spent in each active state during `total_s`; the rest is idle (listening or asleep)."""

    total_s: float
    transmit_s: float
    receive_s: float


class Energy(msgspec.Struct, frozen=True):
    """Joules by state."""

    transmit_j: float
    receive_j: float
    listen_j: float
    sleep_j: float

    @property
    def total_j(self) -> float:
        return self.transmit_j + self.receive_j + self.listen_j + self.sleep_j


def energy(radio: Radio, time: RadioTime) -> Energy:
    """Joules spent.

    >>> spent = energy(Radio(listen_ratio=0.0), RadioTime(total_s=10.0, transmit_s=1.0, receive_s=0.0))
    >>> round(spent.transmit_j, 4)
    0.0522
    """
    idle_s = max(0.0, time.total_s - time.transmit_s - time.receive_s)
    watts = radio.volts * 1e-3
    return Energy(
        transmit_j=watts * radio.transmit_ma * time.transmit_s,
        receive_j=watts * radio.receive_ma * time.receive_s,
        listen_j=watts * radio.listen_ma * idle_s * radio.listen_ratio,
        sleep_j=watts * radio.sleep_ma * idle_s * (1.0 - radio.listen_ratio),
    )
