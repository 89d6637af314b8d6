"""What a spec's gateway would do with an observation."""

from __future__ import annotations

from pathlib import Path

from gateway.api.reading import Malformed, from_json
from gateway.routing.routes import Step
from topologies.spec_file import load_spec
from underlay.errors import InputError


def explained(spec: Path | str, observation: bytes, age_s: float = 0.0) -> tuple[Step, ...]:
    """What each route makes of an observation in JSON (docs/api.md), as old as that when it comes.

    Raises InputError where either is wrong.
    """
    table = load_spec(Path(spec)).gateway.table
    try:
        found = from_json(observation, age_s)
    except Malformed as error:
        where = f" at {error.where}" if error.where else ""
        raise InputError(f"no observation: {error.problem}{where}", key="OBSERVATION") from error
    if len(found) != 1:
        raise InputError(f"one observation is explained, and these are {len(found)}", key="OBSERVATION")
    return table.explain(found[0], len(found[0].encode()), age_s)
