"""Simulated clusters of every kind, clients that use them at random, and misfortune by the seed.

`Cluster` is a whole run: it lives through its troubles, ends them, and is judged by what its clients saw.
Clients' devices have true clocks, so the times in a history are global.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from random import Random
from typing import Literal

import msgspec

from kv.checking.history import Call
from kv.checking.linearizability import find_violation
from kv.client import Client, Directory, Patience, Reply, Sharded, Static
from kv.machine import KeyValueMachine
from kv.messages import CLIENT_MESSAGES, Answered, NotHere, Submit
from kv.operations import Command
from kv.paxos import Settings, paxos
from kv.primary_backup import ViewService, primary_backup
from kv.server import Replicate, Server
from kv.sharding.config import Configuration, join
from kv.sharding.machine import ShardMachine
from kv.sharding.server import ControllerServer, ShardServer
from kv.slots import slot_of
from tests.kv.solo import Solo
from underlay.clock import DeviceClock
from underlay.faults import (
    AnyFault,
    Crash,
    Degrade,
    FailDisk,
    Heal,
    LinkUp,
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
from underlay.network import seeded
from underlay.node import Address, Context, Node, Timer
from underlay.simulation import Rule, World, every_pair, plan_of

Faults = tuple[AnyFault, ...]
Kind = Literal["solo", "primary-backup", "paxos", "sharded"]
Draw = Callable[[Random, bytes], Command]
"""A command, given an atom (`kv.checking.register`) that no other command has."""

WIRE = LinkSpec(rate_kbps=100_000.0, delay_ms=1.0)
DRIFT_RATIO = 0.01
HOT_KEYS = (b"a", b"b", b"n")
"""Few, so that clients meet; `n` counts. With sharding each is in another group at first."""

BEGIN_S, CALM_S, END_S = 2.0, 11.0, 23.0
"""A run waits for its first leaders, has troubles, and peace from `CALM_S` on: longer than these, since TCP
may wait as long as a peer was away before it asks again."""
CALM_PAUSE_S = 1.0
"""Between two calls of a client then: they are to show that all goes on, not to fill the history."""

_KINDS = ("crash", "crash", "disk", "full", "pause", "deaf", "mute", "split", "split", "lossy", "slow")
_DOWN = ("crash", "disk", "full", "pause")


def mixed(rng: Random, atom: bytes) -> Command:
    """Reads, conditional and plain writes, appends of unique values, deletions, and a counter."""
    key = rng.choice(HOT_KEYS)
    if key == b"n":
        return (b"GET", key) if rng.random() < 0.4 else (b"INCRBY", key, b"%d" % rng.randint(1, 9))
    kinds: list[Command] = [
        (b"GET", key),
        (b"GET", key),
        (b"SET", key, atom),
        (b"SET", key, atom, b"NX"),
        (b"SET", key, atom, b"XX", b"GET"),
        (b"SET", key, atom, b"GET"),
        (b"APPEND", key, atom),
        (b"APPEND", key, atom),
        (b"APPEND", key, atom),
    ]
    return (b"DEL", key) if rng.random() < 0.03 else rng.choice(kinds)


def reads(rng: Random, atom: bytes) -> Command:
    """Nothing else: whoever is cut off together with a former leader goes on asking it."""
    return b"GET", rng.choice(HOT_KEYS)


class Shopper(Node):
    """A client that does one random thing after another, and keeps what it saw."""

    protocol = Protocol("shopper", *CLIENT_MESSAGES)

    def __init__(self, directory: Directory, patience: Patience, draw: Draw, pause_s: float) -> None:
        self.calls: list[Call] = []
        self.pending: Call | None = None
        self.last_reply_s = 0.0
        self._client: Client[Context] = Client(directory, patience)
        self._draw = draw
        self._pause_s = pause_s
        self._number = 0

    def on_start(self, ctx: Context) -> None:
        ctx.set_timer("next", BEGIN_S)

    def on_message(self, ctx: Context, sender: Address, message: Message) -> None:
        self._client.on_message(ctx, sender, message)

    def on_timer(self, ctx: Context, timer: Timer) -> None:
        if not self._client.on_timer(ctx, timer):
            self._number += 1
            command = self._draw(ctx.rng, b"<%s-%d>" % (ctx.device.encode(), self._number))
            self.pending = Call(ctx.device, command, ctx.now)
            self._client.call(ctx, command, self._done)

    def on_peer_down(self, ctx: Context, peer: Address) -> None:
        self._client.on_peer_down(ctx, peer)

    def _done(self, ctx: Context, reply: Reply) -> None:
        call, self.pending = self.pending, None
        assert call is not None
        if reply.outcome is None:
            self.calls.append(call)
        elif reply.outcome.executed:
            self.calls.append(msgspec.structs.replace(call, returned_s=ctx.now, outcome=reply.outcome))
            self.last_reply_s = ctx.now
        pause_s = self._pause_s if ctx.now < CALM_S else CALM_PAUSE_S
        ctx.set_timer("next", ctx.rng.uniform(0.0, 2.0 * pause_s))


class Mover(Node):
    """Has random slots moved to random groups, those of the hot keys above all."""

    protocol = Protocol("mover", *CLIENT_MESSAGES)

    def __init__(
        self, directory: Directory, groups: Sequence[str], slots: Sequence[int], until_s: float
    ) -> None:
        self.moves = 0
        self._client: Client[Context] = Client(directory, Patience(deadline_s=5.0))
        self._groups = groups
        self._slots = slots
        self._until_s = until_s

    def on_start(self, ctx: Context) -> None:
        ctx.set_timer("move", BEGIN_S + 0.5)

    def on_message(self, ctx: Context, sender: Address, message: Message) -> None:
        self._client.on_message(ctx, sender, message)

    def on_timer(self, ctx: Context, timer: Timer) -> None:
        if not self._client.on_timer(ctx, timer) and ctx.now < self._until_s:
            slot = ctx.rng.choice(self._slots)
            group = ctx.rng.choice(self._groups)
            command = (b"BH.MOVE", b"%d-%d" % (slot, min(slot + 2, 16383)), group.encode())
            self._client.call(ctx, command, self._done, group="ctl")

    def on_peer_down(self, ctx: Context, peer: Address) -> None:
        self._client.on_peer_down(ctx, peer)

    def _done(self, ctx: Context, reply: Reply) -> None:
        self.moves += reply.outcome is not None and reply.outcome.executed
        ctx.set_timer("move", ctx.rng.uniform(0.2, 1.0))


class Trouble(msgspec.Struct, frozen=True):
    """Something that goes wrong for a while."""

    from_s: float
    to_s: float
    begin: Faults
    end: Faults


def misfortune(rng: Random, hosts: Sequence[str], clients: Sequence[str], disks: int) -> list[Trouble]:
    """Troubles of hosts, about one a second, overlapping at will: but a device is down for one reason at a
    time, a majority is seldom down together, and at most so many disks are lost or rot."""
    troubles: list[Trouble] = []
    down_until_s = dict.fromkeys(hosts, 0.0)
    from_s = BEGIN_S - 0.3
    while (from_s := from_s + rng.uniform(0.2, 1.4)) < CALM_S - 0.3:
        to_s = min(from_s + rng.uniform(0.5, 3.0), CALM_S)
        host = rng.choice(hosts)
        other = rng.choice([name for name in (*hosts, clients[0]) if name != host])
        kind = rng.choice(_KINDS)
        if kind in _DOWN:
            down = sum(from_s <= until_s for until_s in down_until_s.values())
            too_many = down >= max(1, len(hosts) // 2) and rng.random() < 0.8
            if from_s <= down_until_s[host] or too_many or (kind == "disk" and not disks):
                continue
            down_until_s[host] = to_s
            disks -= kind == "disk"
        troubles.append(Trouble(from_s, to_s, *_trouble(rng, kind, host, other, hosts, clients)))
    return troubles


def _trouble(
    rng: Random, kind: str, host: str, other: str, hosts: Sequence[str], clients: Sequence[str]
) -> tuple[Faults, Faults]:
    """How it begins and how it ends."""
    match kind:
        case "crash":
            return (Crash(host),), (Restart(host),)
        case "disk":
            harm: AnyFault = LoseDisk(host) if rng.random() < 0.5 else RotDisk(host)
            return (Crash(host), harm), (Restart(host),)
        case "full":
            return (FailDisk(host),), (Restart(host),)
        case "pause":
            return (Pause(host),), (Resume(host),)
        case "deaf":
            return (OneWayCut(other, host),), (LinkUp(host, other),)
        case "mute":
            return (OneWayCut(host, other),), (LinkUp(host, other),)
        case "split":
            apart = rng.sample(hosts, rng.randint(1, max(1, len(hosts) - 1)))
            return (Partition(((*apart, *clients[:2]),)),), (Heal(),)
        case "lossy":
            changes = {"loss_ratio": 0.2, "delay_ms": rng.choice([5.0, 60.0])}
            return (Degrade(host, other, changes),), (Degrade(host, other, {}),)
    return (SlowDisk(host, rng.choice([5.0, 30.0])),), (SlowDisk(host, 1.0),)


def lossy_requests(to_s: float) -> tuple[Rule, ...]:
    """One request in ten is lost, and of the answers 18 in 100; some come twice, or late."""
    return (
        Rule((Submit,), lost_ratio=0.1, duplicated_ratio=0.05, delayed_ratio=0.1, to_s=to_s),
        Rule((Answered, NotHere), lost_ratio=0.18, duplicated_ratio=0.05, delayed_ratio=0.1, to_s=to_s),
    )


class Cluster:
    """One run of a service of some kind.

    Args:
        kind: which service.
        seed: of everything.
        hosts: storage hosts; groups have three of them each.
        clients: how many shoppers, the first of whom only reads.
        lossy: whether clients' messages are lost, doubled and late above the transport as well.
        replicate: makes the replication of a group from its members' addresses; a broken one for example.
        shard: the class of a group's server, where `kind` is "sharded".
    """

    def __init__(
        self,
        kind: Kind,
        seed: int,
        *,
        hosts: int = 3,
        clients: int = 5,
        lossy: bool = False,
        pause_s: float = 0.02,
        draw: Draw = mixed,
        replicate: Callable[[Sequence[Address]], Replicate] | None = None,
        shard: type[ShardServer] = ShardServer,
    ) -> None:
        self.seed = seed
        rng = seeded(seed, "cluster", kind)
        self.hosts = [f"s{number}" for number in range(1, (1 if kind == "solo" else hosts) + 1)]
        self.clients = [f"c{number}" for number in range(1, clients + 1)]
        settings = rng.choice([SMALL_LOG, Settings(drift_ratio=DRIFT_RATIO)])
        replicate = replicate or (lambda members: paxos(members, settings))
        devices: dict[str, dict[str, Callable[[], Node]]] = {host: {} for host in self.hosts}
        directory: Callable[[], Directory]
        if kind == "sharded":
            directory = self._add_shards(devices, replicate, shard)
        else:
            members = [f"{host}/g1" for host in self.hosts]
            group: Replicate = Solo if kind == "solo" else replicate(members)
            if kind == "primary-backup":
                devices["v"] = {"views": lambda: ViewService(members)}
                group = primary_backup("v/views")
            for host in self.hosts:
                devices[host]["g1"] = lambda: Server("g1", group, KeyValueMachine())
            directory = partial(Static, members)
        patience = Patience(deadline_s=rng.choice([4.0, 20.0]), try_s=0.05 if lossy else 0.2, pause_s_max=0.2)
        for client in self.clients:
            does = reads if client == self.clients[0] else draw
            devices[client] = {"shopper": partial(_shopper, directory, patience, does, pause_s)}
        ppm = DRIFT_RATIO * 1e6
        # A group of three cannot do without two disks; a primary whose backup is not ready, without none.
        disks = 1 if kind in ("paxos", "sharded") else 0
        self.troubles = misfortune(rng, self.hosts, self.clients, disks)
        plan = plan_of(
            devices,
            every_pair(devices),
            link=WIRE,
            clocks={host: DeviceClock(rng.uniform(0, 5), rng.uniform(-ppm, ppm)) for host in self.hosts},
            faults=[
                *((trouble.from_s, fault) for trouble in self.troubles for fault in trouble.begin),
                *((trouble.to_s, fault) for trouble in self.troubles for fault in trouble.end),
                (CALM_S, Heal()),
            ],
            seed=seed,
            route_convergence_s=None,
            disk_sync_ms=rng.choice([0.5, 5.0]),
        )
        self.world = World(plan, tamper=lossy_requests(CALM_S) if lossy else ())

    def run(self) -> None:
        """From the beginning until all have had peace for a while."""
        self.world.run_until(END_S)

    def history(self) -> list[Call]:
        """What all clients saw."""
        found: list[Call] = []
        for shopper in self.shoppers():
            found += shopper.calls
            if shopper.pending is not None:
                found.append(shopper.pending)
        return found

    def shoppers(self) -> list[Shopper]:
        """The clients."""
        nodes = [self.world.node(f"{client}/shopper") for client in self.clients]
        return [node for node in nodes if isinstance(node, Shopper)]

    def check(self) -> list[Call]:
        """Run, and fail unless the history is worth checking, linearizable, and goes on in peace."""
        self.run()
        history = self.history()
        troubled = sum(self._is_troubled(call) for call in history)
        assert len(self.clients) >= 5
        assert len({call.key for call in history}) <= len(HOT_KEYS)
        assert troubled >= len(history) / 5, f"{troubled} of {len(history)} operations overlap a fault"
        violation = find_violation(history)
        assert violation is None, f"seed {self.seed}: {violation}"
        for shopper in self.shoppers():
            assert shopper.last_reply_s > END_S - 3 * CALM_PAUSE_S, f"{shopper.pending} waits still"
        return history

    def _is_troubled(self, call: Call) -> bool:
        end_s = self.world.now if call.returned_s is None else call.returned_s
        return any(trouble.from_s <= end_s and call.invoked_s <= trouble.to_s for trouble in self.troubles)

    def _add_shards(
        self,
        devices: dict[str, dict[str, Callable[[], Node]]],
        replicate: Callable[[Sequence[Address]], Replicate],
        shard: type[ShardServer],
    ) -> Callable[[], Directory]:
        controller = [f"{host}/ctl" for host in self.hosts[:3]]
        configuration = Configuration()
        for number in range(3):
            name = f"g{number + 1}"
            chosen = [self.hosts[(number + place) % len(self.hosts)] for place in range(3)]
            members = [f"{host}/{name}" for host in chosen]
            configuration = join(configuration, name, members)
            for host in chosen:
                devices[host][name] = partial(
                    lambda name, members: shard(
                        name, replicate(members), ShardMachine(name, KeyValueMachine()), controller
                    ),
                    name,
                    members,
                )
        first = Configuration(1, configuration.groups, configuration.runs)
        for host in self.hosts[:3]:
            devices[host]["ctl"] = lambda: ControllerServer(replicate(controller), first)
        slots = [slot_of(key) for key in HOT_KEYS]
        devices["mover"] = {"mover": lambda: Mover(Sharded(controller), list(first.groups), slots, CALM_S)}
        return partial(Sharded, controller)


def _shopper(directory: Callable[[], Directory], patience: Patience, draw: Draw, pause_s: float) -> Shopper:
    return Shopper(directory(), patience, draw, pause_s)


SMALL_LOG = Settings(
    checkpoint_operations=30,
    checkpoint_entries=15,
    retained_entries=8,
    message_bytes_max=512,
    drift_ratio=DRIFT_RATIO,
)
"""So that checkpoints, snapshots and chunks are met often."""
