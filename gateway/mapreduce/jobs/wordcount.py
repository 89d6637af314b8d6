"""How often does each word occur in a text?"""

from collections.abc import Iterator
from re import findall

from gateway.mapreduce import Job, Line


def mapper(line: Line) -> Iterator[tuple[str, int]]:
    for word in findall(r"[^\W\d_]+", line.text):
        yield word, 1


def reducer(word: str, counts: Iterator[int]) -> int:
    return sum(counts)


job = Job(mapper, reducer, combiner=reducer, key_names=("word",))
