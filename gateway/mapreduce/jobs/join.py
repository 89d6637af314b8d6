"""How warm was it at a birdhouse each time something moved there?

A join on the reducers' side: readings and events of a device meet under its name, and each event gets the
last reading before it.
"""

from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Any

from gateway.mapreduce import Job, Observations, Record, count


def job(events: str = "motion*", readings: str = "temperature") -> Job:
    def mapper(record: Record) -> Iterator[tuple[str, list[Any]]]:
        if fnmatchcase(record.kind, readings):
            yield record.device, [record.t_event, 0, record.value]
        elif fnmatchcase(record.kind, events):
            yield record.device, [record.t_event, 1, record.value]

    def reducer(device: str, values: Iterator[list[Any]]) -> Iterator[dict[str, object]]:
        latest = None
        for t_event, is_event, value in sorted(values):
            if not is_event:
                latest = value
            elif latest is None:
                count("events before the first reading")
            else:
                yield {"t_event": t_event, "seconds": value, "value": latest}

    return Observations().map(mapper, reducer, key_names=("device",))
