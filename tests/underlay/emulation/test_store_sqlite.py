"""The durable store: an ordered map, whatever happens to it."""

from __future__ import annotations

from pathlib import Path

import pytest

from underlay.emulation.store_sqlite import Disk
from underlay.store import OrderedMap


@pytest.mark.sweep(20)
def test_the_store_is_an_ordered_map(seed: int, tmp_path: Path) -> None:
    """Any mixture of writes, deletions, commits and crashes reads like a sorted dictionary."""
    from random import Random

    rng = Random(seed)
    disk = Disk(tmp_path / "store.sqlite")
    store, model = disk.store("node"), OrderedMap()
    durable: dict[bytes, bytes] = {}
    for _ in range(200):
        key = bytes([rng.randrange(20)]) * rng.randrange(1, 3)
        match rng.randrange(10):
            case 0 | 1 | 2 | 3:
                value = bytes([rng.randrange(256)])
                store.put(key, value)
                model.put(key, value)
            case 4 | 5:
                store.delete(key)
                model.delete(key)
            case 6:
                disk.commit()
                durable = dict(model.scan())
            case 7:
                disk.close()
                disk = Disk(tmp_path / "store.sqlite")
                store, model = disk.store("node"), OrderedMap(durable)
            case _:
                end = bytes([rng.randrange(20)]) if rng.random() < 0.5 else None
                assert list(store.scan(key, end)) == list(model.scan(key, end))
                assert store.get(key) == model.get(key)
    disk.close()


def test_a_scan_goes_on_while_what_it_found_is_deleted(tmp_path: Path) -> None:
    disk = Disk(tmp_path / "store.sqlite")
    store = disk.store("node")
    keys = [b"%04d" % n for n in range(1000)]
    for key in keys:
        store.put(key, b"")
    seen = []
    for key, _ in store.scan():
        store.delete(key)
        seen.append(key)
    assert seen == keys
    assert list(store.scan()) == []
    disk.close()
