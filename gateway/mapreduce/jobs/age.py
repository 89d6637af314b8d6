"""How old was the newest reading of each birdhouse, on average and at worst, had all come without delay?

The age of information (Kaul, Yates, Gruteser, INFOCOM 2012) of what is stored, by the devices' own clocks:
what the network lost makes it grow, and its delays, which are not stored, do not. A lower bound, so.
"""

from collections.abc import Iterator
from itertools import pairwise

from gateway.mapreduce import Observations, Record


def mapper(record: Record) -> Iterator[tuple[object, float]]:
    yield (record.device, record.kind), record.t_gen


def reducer(key: object, times: Iterator[float]) -> dict[str, float]:
    made = sorted(times)
    waits = [later - earlier for earlier, later in pairwise(made)]
    whole = made[-1] - made[0]
    mean = sum(wait * wait for wait in waits) / (2 * whole) if whole else 0.0
    return {"readings": len(made), "mean_s": mean, "peak_s": max(waits, default=0.0)}


job = Observations().map(mapper, reducer, key_names=("device", "kind"))
