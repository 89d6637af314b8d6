"""What a fair comparison measures: metrics of a run, from its manifest and its trace and nothing else.

One metric a module; `reading` passes over the trace once for all of them, `summary` puts them together.
`docs/summary.md` defines every number.
"""

from __future__ import annotations

from topologies.metrics.summary import Summary, read_summary, summarize, to_csv
from topologies.metrics.survivability import SurvivalCurve, survivability

__all__ = ["Summary", "SurvivalCurve", "read_summary", "summarize", "survivability", "to_csv"]
