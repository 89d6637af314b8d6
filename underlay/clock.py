"""Device clocks: cheap crystals are offset and drift. The trace's clock is global; a device's is not."""

from __future__ import annotations

import msgspec


class DeviceClock(msgspec.Struct, frozen=True):
    """Maps global run time to a device's own clock and back.

    >>> clock = DeviceClock(offset_s=2.0, drift_ppm=100.0)
    >>> round(clock.read(1000.0), 6)
    1002.1
    """

    offset_s: float = 0.0
    drift_ppm: float = 0.0
    """Parts per million by which the device's clock runs fast."""

    def read(self, t_s: float) -> float:
        """The device's time at global time `t_s`."""
        return self.offset_s + t_s * (1.0 + self.drift_ppm * 1e-6)

    def global_delay(self, delay_s: float) -> float:
        """Global seconds that pass while the device's clock advances by `delay_s`."""
        return delay_s / (1.0 + self.drift_ppm * 1e-6)
