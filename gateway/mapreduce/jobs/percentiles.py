"""Below which values lie half of the readings of each birdhouse, 90 and 99 percent?"""

from gateway.mapreduce import Count, Job, Observations, Quantile


def job(kind: str = "temperature", error: float = 0.01) -> Job:
    readings = Observations(kind).key("device", "kind")
    return readings.aggregate(
        n=Count(), p50=Quantile(0.5, error), p90=Quantile(0.9, error), p99=Quantile(0.99, error)
    )
