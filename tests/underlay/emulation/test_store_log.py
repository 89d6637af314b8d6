"""The log store: an ordered map that survives crashes at any byte, and knows a torn end from damage."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path
from random import Random
from time import sleep

import pytest

from underlay.emulation import store_log
from underlay.emulation.log_file import flip_bit
from underlay.emulation.processes import run_to_end
from underlay.emulation.store_log import Disk, lose, rot
from underlay.store import Damaged, OrderedMap, Store

NODES = ("one", "two")


@pytest.fixture(autouse=True)
def no_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    """No power fails here: the page cache outlives the processes, and a sync would only take time."""
    for name in ("fsync", "fdatasync"):
        monkeypatch.setattr(os, name, lambda fd: None)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store"


def content(store: Store) -> dict[bytes, bytes]:
    return dict(store.scan())


def write_commits(path: Path, count: int) -> None:
    """Commit n puts n under each node's own key and a common one."""
    disk = Disk(path)
    for n in range(1, count + 1):
        for node in NODES:
            disk.store(node).put(b"last", b"%d" % n)
            disk.store(node).put(b"%04d" % n, bytes(n))
        disk.commit()
    disk.close()


def last(disk: Disk) -> int:
    """Through which commit the stores are whole; fails if they are not."""
    found = {int(disk.store(node).get(b"last") or b"0") for node in NODES}
    assert len(found) == 1
    (n,) = found
    for node in NODES:
        whole = {b"%04d" % k: bytes(k) for k in range(1, n + 1)}
        assert content(disk.store(node)) == ({b"last": b"%d" % n, **whole} if n else {})
    return n


@pytest.mark.sweep(20)
def test_it_is_an_ordered_map_through_commits_crashes_and_compactions(
    seed: int, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any mixture of writes, deletions, wipes, commits and restarts reads like a sorted dictionary."""
    monkeypatch.setattr(store_log, "COMPACTED_BYTES_MIN", 3000)
    monkeypatch.setattr(store_log, "STEP_BYTES", 200)
    rng = Random(seed)
    disk = Disk(path)
    models = {node: OrderedMap() for node in NODES}
    durable = {node: dict[bytes, bytes]() for node in NODES}
    for _ in range(600):
        node = rng.choice(NODES)
        store, model = disk.store(node), models[node]
        key = bytes([rng.randrange(20)]) * rng.randrange(1, 3)
        match rng.randrange(20):
            case 0 | 1 | 2 | 3 | 4 | 5 | 6 | 7:
                value = rng.randbytes(rng.randrange(60))
                store.put(key, value)
                model.put(key, value)
            case 8 | 9:
                store.delete(key)
                model.delete(key)
            case 10 if rng.random() < 0.2:
                store.wipe()
                model.wipe()
            case 11 | 12 | 13 | 14 | 15:
                disk.commit()
                durable = {name: dict(models[name].scan()) for name in NODES}
            case 16 if rng.random() < 0.5:
                disk.close()
                disk = Disk(path)
                assert not disk.torn
                models = {name: OrderedMap(durable[name]) for name in NODES}
            case _:
                end = bytes([rng.randrange(20)]) if rng.random() < 0.5 else None
                assert list(store.scan(key, end)) == list(model.scan(key, end))
                assert store.get(key) == model.get(key)
    disk.close()
    assert path.stat().st_size > 0


def test_without_a_write_there_is_no_file(path: Path) -> None:
    disk = Disk(path)
    assert disk.store("one").get(b"k") is None
    disk.commit()
    disk.close()
    assert not path.exists()


@pytest.mark.sweep(30)
def test_a_file_cut_off_anywhere_by_a_power_cut_is_whole_up_to_a_commit(seed: int, path: Path) -> None:
    """The seal had not reached the disk: what is missing at the end was never acknowledged, it may be."""
    write_commits(path, 20)
    used = len(path.read_bytes().rstrip(b"\0"))
    rng = Random(seed)
    seal = path.with_name("store.seal")
    seal.write_bytes(bytes(seal.stat().st_size))
    cut = rng.randrange(28, used + 1)
    zeros = rng.choice([0, 1000])  # a file system may have made it longer first
    path.write_bytes(path.read_bytes()[:cut] + bytes(zeros))
    disk = Disk(path)
    n = last(disk)
    assert disk.torn or cut == used or n < 20
    disk.store("one").put(b"after", b"v")
    disk.commit()
    disk.close()
    again = Disk(path)
    assert not again.torn
    assert again.store("one").get(b"after") == b"v"
    again.close()


@pytest.mark.sweep(40)
def test_a_rotten_bit_is_damage_and_never_a_torn_end(seed: int, path: Path) -> None:
    """The process was killed, so the seal is exact: every record was acknowledged, the last one too."""
    write_commits(path, 20)
    flip_bit(path, Random(seed).getrandbits(64))
    disk = Disk(path)
    assert not disk.torn
    for node in (*NODES, "three"):
        with pytest.raises(Damaged):
            disk.store(node).get(b"last")
        with pytest.raises(Damaged):
            disk.store(node).scan()
    disk.close()


def test_a_rotten_bit_before_a_valid_record_is_damage_without_a_seal(path: Path) -> None:
    write_commits(path, 20)
    seal = path.with_name("store.seal")
    seal.write_bytes(bytes(seal.stat().st_size))
    flip_bit(path, 8 * 500)
    disk = Disk(path)
    with pytest.raises(Damaged):
        disk.store("one").get(b"last")
    disk.close()


@pytest.mark.sweep(20)
def test_a_node_that_wipes_its_damaged_store_has_a_good_one_from_then_on(
    seed: int, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other node's stays damaged through restarts, until it wipes too; then the file is made anew."""
    monkeypatch.setattr(store_log, "COMPACTED_BYTES_MIN", 100)
    write_commits(path, 5)
    rot(path, Random(seed).getrandbits(64))
    disk = Disk(path)
    disk.store("one").wipe()
    assert content(disk.store("one")) == {}
    disk.store("one").put(b"k", b"v")
    disk.commit()
    for _ in range(2):
        disk.close()
        disk = Disk(path)
        assert content(disk.store("one")) == {b"k": b"v"}
        with pytest.raises(Damaged):
            disk.store("two").get(b"k")
    disk.store("two").wipe()
    disk.commit()
    disk.store("one").put(b"k", b"w")
    for _ in range(3):
        disk.store("two").put(b"l", b"v")
        disk.commit()
    disk.close()
    healed = Disk(path)
    assert [content(healed.store(node)) for node in NODES] == [{b"k": b"w"}, {b"l": b"v"}]
    assert not any(isinstance(healed.store(node), store_log.DamagedStore) for node in NODES)
    healed.close()


def test_after_a_failed_sync_nothing_is_ever_acknowledged(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(path)
    store = disk.store("one")
    store.put(b"k", b"v")
    disk.commit()

    def fail(fd: int) -> None:
        raise OSError(5, "Input/output error")

    store.put(b"k", b"w")
    with monkeypatch.context() as patched:
        patched.setattr(os, "fdatasync", fail)
        with pytest.raises(OSError, match="Input/output"):
            disk.commit()
    store.put(b"k", b"x")
    with pytest.raises(OSError, match="failed before"):
        disk.commit()
    disk.close()


def test_history_is_dropped_when_most_of_the_file_is_history(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_log, "COMPACTED_BYTES_MIN", 100_000)
    disk = Disk(path)
    store = disk.store("one")
    for n in range(1000):
        store.put(b"%d" % (n % 10), bytes(1000))
        disk.commit()
        assert len(path.read_bytes().rstrip(b"\0")) < 250_000
    disk.close()
    again = Disk(path)
    assert len(content(again.store("one"))) == 10
    again.close()


def test_a_lost_disk_is_empty(path: Path) -> None:
    write_commits(path, 3)
    lose(path)
    assert list(path.parent.iterdir()) == []
    disk = Disk(path)
    assert last(disk) == 0
    disk.close()


@pytest.mark.sweep(15)
def test_a_killed_process_leaves_every_acknowledged_commit_and_none_in_part(seed: int, path: Path) -> None:
    """A child commits as fast as it can, compacting often, and says so after each; it is killed somewhere."""
    rng = Random(seed)
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        run_to_end(lambda: _commit_forever(path, write_end))
    os.close(write_end)
    acknowledged = len(os.read(read_end, 1))
    sleep(rng.uniform(0.0, 0.05))
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    while part := os.read(read_end, 1 << 16):
        acknowledged += len(part)
    os.close(read_end)
    disk = Disk(path)
    numbers = {int(disk.store(node).get(b"last") or b"0") for node in NODES}
    assert len(numbers) == 1
    assert acknowledged <= numbers.pop() <= acknowledged + 1
    disk.close()


def _commit_forever(path: Path, fd: int) -> None:
    store_log.COMPACTED_BYTES_MIN = 20_000
    disk = Disk(path)
    n = 0
    while True:
        n += 1
        for node in NODES:
            disk.store(node).put(b"last", b"%d" % n)
            disk.store(node).put(b"%d" % (n % 7), bytes(700))
        disk.commit()
        os.write(fd, b".")


def test_a_compaction_that_a_crash_cut_short_leaves_the_old_file(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_commits(path, 20)
    shutil.copy(path, path.with_name("store.new"))
    disk = Disk(path)
    assert last(disk) == 20
    assert not path.with_name("store.new").exists()
    disk.close()
