"""MapReduce over the birdhouses' data: jobs, the engine that runs them where the data are, other executors.

    from gateway.mapreduce import Job, Mean, Observations, Quantile, count

`query` and `job` are what a user writes with; `tasks` is what runs, as functions from files to files;
`coordinator` and `worker` are the engine; `executors` run the same tasks elsewhere.

Source: Dean and Ghemawat, "MapReduce: Simplified Data Processing on Large Clusters" (OSDI 2004).
"""

from gateway.mapreduce.counting import count
from gateway.mapreduce.errors import JobFailed
from gateway.mapreduce.job import Job, JobSource
from gateway.mapreduce.query import Observations
from gateway.mapreduce.records import Line, Record
from underlay.aggregates import (
    Aggregate,
    Count,
    Distinct,
    First,
    Gaps,
    Histogram,
    Last,
    Max,
    Mean,
    Min,
    MinMax,
    Quantile,
    Sum,
    TopK,
    Variance,
)

__all__ = [
    "Aggregate",
    "Count",
    "Distinct",
    "First",
    "Gaps",
    "Histogram",
    "Job",
    "JobFailed",
    "JobSource",
    "Last",
    "Line",
    "Max",
    "Mean",
    "Min",
    "MinMax",
    "Observations",
    "Quantile",
    "Record",
    "Sum",
    "TopK",
    "Variance",
    "count",
]
