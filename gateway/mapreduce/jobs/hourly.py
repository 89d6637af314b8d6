"""How warm or humid was it at each birdhouse, window by window?"""

from gateway.mapreduce import Count, Job, Max, Mean, Min, Observations


def job(kind: str = "temperature", device: str = "*", window: str = "1h") -> Job:
    readings = Observations(kind, device).key("device", "kind").window(window)
    return readings.aggregate(n=Count(), mean=Mean(), min=Min(), max=Max())
