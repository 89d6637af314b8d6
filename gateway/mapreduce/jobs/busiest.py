"""Which birdhouses see the most?"""

from gateway.mapreduce import Job, Observations, TopK


def job(kind: str = "motion*", k: int = 10) -> Job:
    everybody = Observations(kind).key(kind=lambda record: record.kind)
    return everybody.aggregate(busiest=("device", TopK(k)))
