"""Fixtures of several test modules of the emulation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.underlay.emulation.device_bench import Bench
from underlay.node import Node


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Bench]]:
    """Makes benches and closes them."""
    made: list[Bench] = []

    def make(nodes: dict[str, Node], **changes: Any) -> Bench:
        made.append(Bench(tmp_path, nodes, **changes))
        return made[-1]

    yield make
    for bench in made:
        bench.close()
