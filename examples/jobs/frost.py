"""On how many mornings was it freezing at each birdhouse? A job file of one's own.

birdhouse job run examples/jobs/frost.py --set below=-2     # on the network that is up
birdhouse job run examples/jobs/frost.py --input readings.csv
"""

from gateway.mapreduce import Count, Job, Min, Observations


def job(below: float = 0.0) -> Job:
    mornings = Observations("temperature").where(lambda record: record.value < below)
    return mornings.key("device").window("1d").aggregate(readings=Count(), coldest=Min())
