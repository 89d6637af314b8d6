"""In which files does each word of some texts occur?"""

from collections.abc import Iterator
from re import findall

from gateway.mapreduce import Job, Line


def mapper(line: Line) -> Iterator[tuple[str, str]]:
    for word in sorted(set(findall(r"[^\W\d_]+", line.text))):
        yield word, line.file


def reducer(word: str, files: Iterator[str]) -> dict[str, object]:
    found = sorted(set(files))
    return {"files": len(found), "where": found}


job = Job(mapper, reducer, key_names=("word",))
