"""How often, and for how long, did something move at each birdhouse, hour by hour?"""

from gateway.mapreduce import Count, Job, Max, Observations, Sum


def job(kind: str = "motion*", window: str = "1h") -> Job:
    events = Observations(kind).key("device").window(window)
    return events.aggregate(events=Count(), seconds=Sum(), longest=Max())
