"""How many birdhouses have reported what, about?"""

from gateway.mapreduce import Count, Distinct, Job, Observations


def job(kind: str = "*") -> Job:
    return Observations(kind).key("kind").aggregate(observations=Count(), devices=("device", Distinct()))
