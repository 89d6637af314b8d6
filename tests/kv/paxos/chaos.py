"""Clients that append and read while everything breaks, and a check of what they saw.

Appends of distinct numbers to one key make linearizability easy to judge: the key's last value is the order
of all appends, an append's answer is its place in it, a read saw a prefix. What is left to check is that
nobody saw less than what was there before it asked (`kv.checking` judges other histories).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from random import Random

import msgspec
import pytest

from kv.messages import CLIENT_MESSAGES, Answered, NotHere, Submit
from kv.operations import Command, Operation
from kv.paxos import Settings
from tests.kv.paxos.group import LAN, Agreement, Group
from underlay.clock import DeviceClock
from underlay.faults import (
    Crash,
    Degrade,
    Heal,
    LoseDisk,
    OneWayCut,
    Partition,
    Pause,
    Restart,
    Resume,
    RotDisk,
    SlowDisk,
)
from underlay.link import LinkSpec
from underlay.messages import Message, Protocol
from underlay.node import Address, Context, Node, Timer

RETRY_S = 0.4

SMALL_LOG = Settings(
    checkpoint_operations=30,
    checkpoint_entries=15,
    retained_entries=8,
    message_bytes_max=512,
    drift_ratio=0.02,
)
"""So that checkpoints, snapshots and chunks are met often."""

ROUGH = LinkSpec(rate_kbps=20_000.0, delay_ms=12.0, jitter_ms=8.0, loss_ratio=0.01)
"""So that a leader that crashes has reached some and not others."""


class Deed(msgspec.Struct):
    """What a client did, and what came of it."""

    key: bytes
    mark: bytes
    """Appended; empty: a read."""
    asked_s: float
    answered_s: float | None = None
    seen: int = 0
    """Length of the value it saw or made."""
    value: bytes = b""


class Clerk(Node):
    """Does one deed after another, wherever the leader is, until told to stop. Some only read: who waits
    for an append that cannot be made does not see what a leader without a majority would answer."""

    protocol = Protocol("clerk", *CLIENT_MESSAGES)

    def __init__(self, replicas: list[Address], keys: int, append_ratio: float) -> None:
        self.deeds: list[Deed] = []
        self.stopped = False
        self._replicas = replicas
        self._keys = keys
        self._append_ratio = append_ratio
        self._number = 0
        self._at = 0

    def on_start(self, ctx: Context) -> None:
        self._session = ctx.rng.getrandbits(62) + 1
        ctx.set_timer("begin", ctx.rng.random())

    def on_timer(self, ctx: Context, timer: Timer) -> None:
        if timer == "begin":
            self._begin(ctx)
        elif self.deeds[-1].answered_s is None:
            ctx.give_up(self._replicas[self._at])
            self._at = ctx.rng.randrange(len(self._replicas))
            self._ask(ctx)

    def on_message(self, ctx: Context, sender: Address, message: Message) -> None:
        deed = self.deeds[-1]
        if isinstance(message, NotHere) and message.number == self._number and deed.answered_s is None:
            if message.leader in self._replicas and message.leader != self._replicas[self._at]:
                self._at = self._replicas.index(message.leader)
                self._ask(ctx)
        elif isinstance(message, Answered) and message.number == self._number and deed.answered_s is None:
            (outcome,) = message.outcomes
            assert not outcome.failure, outcome
            deed.answered_s = ctx.now
            if deed.mark:
                deed.seen = outcome.value
            else:
                deed.value = outcome.value or b""
                deed.seen = len(deed.value)
            if not self.stopped:
                ctx.set_timer("begin", ctx.rng.random() * 0.05)

    def on_peer_down(self, ctx: Context, peer: Address) -> None:
        if self.deeds and self.deeds[-1].answered_s is None:
            ctx.set_timer("retry", 0.02)

    def _begin(self, ctx: Context) -> None:
        self._number += 1
        key = b"k%d" % ctx.rng.randrange(self._keys)
        mark = (
            b"%s-%d;" % (ctx.device.encode(), self._number) if ctx.rng.random() < self._append_ratio else b""
        )
        self.deeds.append(Deed(key, mark, ctx.now))
        self._ask(ctx)

    def _ask(self, ctx: Context) -> None:
        deed = self.deeds[-1]
        command: Command = (b"APPEND", deed.key, deed.mark) if deed.mark else (b"GET", deed.key)
        session = self._session if deed.mark else 0
        ctx.send(self._replicas[self._at], Submit(self._number, (Operation(command, session, self._number),)))
        ctx.set_timer("retry", RETRY_S)


def ordeal(seed: int, *changes: Callable[[pytest.MonkeyPatch], None]) -> None:
    """A group lives through 30 faults, with its rules changed so; then all is mended, the rules too.

    AssertionError if replicas ever differed, clients saw what cannot be, or the group does not go on.
    """
    rng = Random(seed)
    settings = rng.choice([SMALL_LOG, Settings(drift_ratio=0.02)])
    group = clumsy_group(rng, seed, rng.choice([3, 3, 5]), settings)
    agreement = Agreement(group)
    with pytest.MonkeyPatch.context() as patch:
        for change in changes:
            change(patch)
        agreement.run(2.0)
        misfortune(group, rng, agreement, 30)
    mend(group)
    agreement.run(5.0)
    deeds: list[Deed] = []
    for name in group.clerks:
        clerk = group.world.node(f"{name}/clerk")
        assert isinstance(clerk, Clerk)
        deeds += clerk.deeds
        assert clerk.deeds[-1].asked_s > group.world.now - 2.0, "a client waits still"
        clerk.stopped = True
    agreement.run(3.0)
    assert sum(deed.answered_s is not None for deed in deeds) > 50
    assert len(group.leaders()) == 1
    records = group.machine(group.leader()).records
    assert all(group.machine(name).records == records for name in group.names), "a replica was not caught up"
    judge(deeds, {key[1:]: value for key, value in records.items() if key.startswith(b"k")})


def clumsy_group(rng: Random, seed: int, size: int, settings: Settings) -> Group:
    """Replicas whose clocks disagree, and four clerks."""
    names = [f"s{number}" for number in range(1, size + 1)]
    replicas = [f"{name}/g1" for name in names]
    ppm = settings.drift_ratio * 1e6
    return Group(
        size,
        seed=seed,
        settings=settings,
        clocks={name: DeviceClock(rng.uniform(0, 5), rng.uniform(-ppm, ppm)) for name in names},
        clerks={f"w{number}": partial(Clerk, replicas, 2, (0.8, 0.0)[number % 2]) for number in range(6)},
        link=rng.choice([LAN, ROUGH]),
        disk_sync_ms=rng.choice([0.5, 5.0, 40.0]),
        check_codec=False,
    )


def misfortune(group: Group, rng: Random, agreement: Agreement, faults: int) -> None:
    """That many faults, one after another, with some time between them. Disks are lost one at a time, and
    only while all others have theirs and the group is whole."""
    world, names = group.world, group.names
    for _ in range(faults):
        down = [name for name in names if name not in group.up()]
        kind = rng.randrange(13)
        name, other = rng.sample(names, 2)
        if kind <= 2 and name not in down:
            world.apply(Crash(name))
            if kind == 2 and not down and is_whole(group, but=name):
                world.apply(LoseDisk(name) if rng.random() < 0.5 else RotDisk(name))
        elif kind <= 4 and down:
            world.apply(Restart(rng.choice(down)))
        elif kind == 5:
            world.apply(OneWayCut(name, other))
        elif kind == 6:
            side = [device for device in [*names, *group.clerks] if rng.random() < 0.5]
            world.apply(Heal())
            world.apply(Partition((tuple(side),)))
            agreement.run(rng.random() * 3.0)
        elif kind == 7:
            world.apply(Pause(name))
            agreement.run(rng.random())
            world.apply(Resume(name))
        elif kind == 8:
            world.apply(Degrade(name, other, {"loss_ratio": 0.2, "delay_ms": 30.0}))
        elif kind <= 10 and group.leaders():
            fall_silent(group, rng, agreement)
        elif kind == 11:
            world.apply(SlowDisk(name, rng.choice([1.0, 20.0])))
        else:
            world.apply(Heal())
        agreement.run(rng.random() * rng.choice([0.01, 0.1, 0.5, 2.0]))


def fall_silent(group: Group, rng: Random, agreement: Agreement) -> None:
    """A leader reaches few of its followers any more, and then none: what it proposed last, few have."""
    leader = group.leaders()[0]
    others = [name for name in group.names if name != leader]
    for name in rng.sample(others, rng.randrange(1, len(others))):
        group.world.apply(OneWayCut(leader, name))
    agreement.run(rng.random() * 0.3)
    if len(group.up()) == len(group.names):
        group.world.apply(Crash(leader))
    else:
        group.world.apply(Partition(((leader,),)))


def is_whole(group: Group, but: str) -> bool:
    """Whether every other replica votes with the disk it has, so that one disk may be lost."""
    return all(group.replica(name).votes for name in group.up() if name != but)


def mend(group: Group) -> None:
    """All faults end."""
    for name in group.names:
        if name not in group.up():
            group.world.apply(Restart(name))
        group.world.apply(SlowDisk(name, 1.0))
        for other in [*group.names, *group.clerks]:
            if name < other:
                group.world.apply(Degrade(name, other, {}))
    group.world.apply(Heal())


def judge(deeds: list[Deed], values: dict[bytes, bytes]) -> None:
    """Whether the answered deeds are linearizable, given what the keys hold in the end."""
    for key in sorted({deed.key for deed in deeds}):
        value = values.get(key, b"")
        history = [deed for deed in deeds if deed.key == key]
        for deed in history:
            assert value.count(deed.mark) <= 1 or not deed.mark, f"{deed.mark!r} was executed twice"
            if deed.answered_s is None:
                continue
            if deed.mark:
                assert value[: deed.seen].endswith(deed.mark), f"{deed} is not where it was said to be"
            else:
                assert value.startswith(deed.value), f"{deed} saw what never was"
        events = [(deed.asked_s, 1, deed) for deed in history if deed.answered_s is not None]
        events += [(deed.answered_s or 0.0, 0, deed) for deed in history if deed.answered_s is not None]
        longest, before = 0, {}
        for _, asks, deed in sorted(events, key=lambda event: event[:2]):
            if asks:
                before[id(deed)] = longest
            else:
                least = before[id(deed)] + len(deed.mark)
                assert deed.seen >= least, f"{deed} saw less than the {least} bytes that were there"
                longest = max(longest, deed.seen)
