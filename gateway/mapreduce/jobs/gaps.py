"""What did the network lose: how many numbers of each birdhouse are missing, and how many came twice?"""

from gateway.mapreduce import Gaps, Job, Observations


def job(device: str = "*") -> Job:
    return Observations(device=device).key("device").aggregate(numbers=("sequence", Gaps()))
