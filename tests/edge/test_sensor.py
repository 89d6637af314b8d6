"""Sensors make the same observations whatever happens to their device, and number them without gaps."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from edge.sensor import SensorConfig, Sensors
from underlay.clock import DeviceClock
from underlay.faults import AnyFault, Crash, Restart
from underlay.messages import Message, Protocol
from underlay.node import Address, Context, Node
from underlay.simulation import Simulation, plan_of

KINDS = ("temperature", "photograph", "motion", "motion-bursts")


class Listener(Node):
    """Stands for a dissemination."""

    protocol = Protocol("listener")

    def on_message(self, ctx: Context, sender: Address, message: Message) -> None:
        """Hears, and says nothing."""


def sensors(
    *periods: tuple[str, float], start_s: float = 0.5, stop_s: float = 60.0
) -> tuple[SensorConfig, ...]:
    return tuple(
        SensorConfig(kind, period_s, start_s, stop_s, index=n, seed=7, replay_speed=60.0)
        for n, (kind, period_s) in enumerate(periods)
    )


def generated(
    configs: Sequence[SensorConfig],
    faults: Sequence[tuple[float, AnyFault]] = (),
    clock: DeviceClock = DeviceClock(),  # noqa: B008 - frozen
) -> list[tuple[int, str, float]]:
    """(number, kind, time on the trace) of all observations of one device in 70 s."""

    def make() -> Node:
        return Sensors(tuple(configs), "listener")

    plan = plan_of(
        {"cam1": {"sensors": make, "listener": Listener}},
        [],
        faults=list(faults),
        clocks={"cam1": clock},
        duration_s=70.0,
    )
    world = Simulation.from_plan(plan)
    world.run_until(70.0)
    return [
        (int(record["id"].partition(":")[2]), record["kind"], record["t"])
        for record in world.records()
        if record["event"] == "generated"
    ]


MIXED = sensors(("temperature", 1.0), ("photograph", 7.0), ("motion", 2.0), ("motion-bursts", 3.0))


def test_observations_of_all_sensors_are_numbered_together_in_the_order_of_time() -> None:
    made = generated(MIXED)
    assert {kind for _, kind, _ in made} == set(KINDS)
    in_time = sorted(made, key=lambda observation: (observation[2], observation[0]))
    assert [number for number, _, _ in in_time] == list(range(len(made)))


def test_sensors_of_the_same_moment_are_numbered_in_their_order() -> None:
    made = generated(sensors(("temperature", 1.0), ("humidity", 1.0), stop_s=3.0))
    assert [(number, kind) for number, kind, _ in made] == [
        (0, "temperature"), (1, "humidity"), (2, "temperature"),
        (3, "humidity"), (4, "temperature"), (5, "humidity"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "clock", [DeviceClock(), DeviceClock(offset_s=0.2, drift_ppm=300.0)], ids=["true", "drifting"]
)
def test_a_restarted_device_goes_on_as_if_it_had_never_been_away(clock: DeviceClock) -> None:
    whole = generated(MIXED, clock=clock)
    broken = generated(MIXED, [(20.2, Crash("cam1")), (31.7, Restart("cam1"))], clock)
    assert broken == [made for made in whole if not 20.2 <= made[2] < 31.7]
    assert len(broken) < len(whole)


def test_nothing_is_observed_from_the_stop_on() -> None:
    made = generated(sensors(("temperature", 1.0), stop_s=10.5))
    assert [round(t_s, 6) for _, _, t_s in made] == [n + 0.5 for n in range(10)]
