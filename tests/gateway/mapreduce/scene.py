"""A storage tier with the engine on its hosts, in the simulation; jobs, data, and what they come to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from random import Random

import msgspec

from edge.datasets import Measurement
from edge.observation import Observation, ObservationId
from gateway.mapreduce import JobSource
from gateway.mapreduce.coordinator import Coordinator, CoordinatorConfig
from gateway.mapreduce.deployment import jobs_plan
from gateway.mapreduce.executors.local import run_local
from gateway.mapreduce.messages import (
    JOBS,
    AskJobs,
    AskOne,
    AskPlan,
    AskRows,
    JobState,
    JobsTold,
    JobTold,
    PlanTold,
    RowsTold,
    Stop,
    Submit,
)
from gateway.mapreduce.results import Result
from gateway.mapreduce.worker import Worker, WorkerConfig
from kv.client import Client
from kv.messages import CLIENT_MESSAGES
from kv.operations import Command
from kv.tiers import Kind, tier
from underlay.link import LinkSpec
from underlay.messages import Message, Protocol
from underlay.network import Device, Link, Network
from underlay.node import Address, Context, Node, Timer, address
from underlay.plan import DevicePlan, NodePlan, Plan
from underlay.simulation import World

WIRE = LinkSpec(rate_kbps=100_000.0, delay_ms=1.0)
READY_S = 3.0
IMPORT = "from gateway.mapreduce import *\n"

HOURLY = JobSource(
    "hourly",
    "hourly.py",
    IMPORT
    + """
hourly = Observations("temperature").key("device").window("1h")
job = hourly.aggregate(n=Count(), mean=Mean(), p95=Quantile(0.95))
""",
)
BY_KIND = JobSource(
    "by-kind",
    "by_kind.py",
    IMPORT
    + """
def mapper(record):
    count("seen")
    yield record.kind, 1

def reducer(key, values):
    return sum(values)

job = Job(mapper, reducer, reducer, reduces=3)
""",
)


def observations(seed: int, devices: int = 12, each: int = 40) -> list[Observation]:
    """Temperatures and humidities of some devices, hours apart."""
    rng = Random(seed)
    found = []
    for n in range(devices):
        for sequence in range(each):
            kind, unit = ("temperature", "Cel") if sequence % 3 else ("humidity", "%RH")
            payload = Measurement(rng.randint(-1000, 3000), unit).encode()
            t_event = 1_357_000_000.0 + sequence * 900
            found.append(
                Observation(ObservationId(f"cam{n}", sequence), kind, t_event, float(sequence), payload)
            )
    return found


class Say(Message, frozen=True, array_like=True, tag=2):
    """Say this to the coordinator."""

    transport = "local"
    message: Submit | AskJobs | AskOne | AskPlan | AskRows | Stop


class Store(Message, frozen=True, array_like=True, tag=3):
    """Have these executed by the tier."""

    transport = "local"
    commands: tuple[Command, ...]


class Teller(Node):
    """A client of both, on the coordinator's device."""

    protocol = Protocol("teller", *CLIENT_MESSAGES)

    def __init__(self, connect: Callable[[int], Client[Context]]) -> None:
        self.told: dict[int, JobTold | JobsTold | RowsTold | PlanTold] = {}
        self.stored = 0
        self._client = connect(16)

    def on_message(self, ctx: Context, sender: Address, message: Message) -> None:
        match message:
            case Say(inner):
                ctx.send(address(ctx.device, JOBS), inner)
            case JobTold() | JobsTold() | RowsTold() | PlanTold():
                self.told[message.number] = message
            case Store(commands):
                for command in commands:
                    self._client.call(ctx, command, self._on_stored, deadline_s=60.0)
            case _:
                self._client.on_message(ctx, sender, message)

    def on_timer(self, ctx: Context, timer: Timer) -> None:
        self._client.on_timer(ctx, timer)

    def on_peer_down(self, ctx: Context, peer: Address) -> None:
        self._client.on_peer_down(ctx, peer)

    def _on_stored(self, ctx: Context, reply: object) -> None:
        self.stored += 1


class Scene:
    """A run.

    Args:
        kind, hosts, groups: of the tier.
        ship: have no worker but on the coordinator's device, to which all records are shipped.
    """

    def __init__(
        self,
        kind: Kind = "sharded",
        hosts: int = 4,
        groups: int = 3,
        *,
        seed: int = 0,
        link: LinkSpec = WIRE,
        config: CoordinatorConfig | None = None,
        worker: WorkerConfig | None = None,
        cpu: dict[str, float] | None = None,
        ship: bool = False,
    ) -> None:
        self.hosts = [f"store{n}" for n in range(1, hosts + 1)]
        self.tier = tier(kind, self.hosts, groups)
        connect = partial(_client, self.tier.directory)
        workers = ["gw"] if ship else self.hosts
        plans = jobs_plan("gw", workers, connect, config=config, worker=worker)
        nodes = self.tier.nodes()
        devices = {}
        for device in ("gw", *self.hosts):
            own = plans.get(device, DevicePlan())
            more = (NodePlan("teller", partial(Teller, connect), 6900),) if device == "gw" else nodes[device]
            devices[device] = DevicePlan((*more, *own.nodes), own.bindings)
        names = list(devices)
        pairs = [(a, b) for n, a in enumerate(names) for b in names[n + 1 :]]
        shares = cpu or {}
        network = Network(
            tuple(Device(name, cpu_share=shares.get(name)) for name in names),
            tuple(Link(a, b, link, link) for a, b in pairs),
        )
        plan = Plan(
            seed=seed, duration_s=10_000.0, network=network, devices=devices, route_convergence_s=None
        )
        self.world = World(plan)
        self._number = 0
        self._stored = 0
        self.run(READY_S)

    def run(self, seconds: float) -> None:
        """Go on for so long."""
        self.world.run_until(self.world.now + seconds)

    @property
    def teller(self) -> Teller:
        node = self.world.node("gw/teller")
        assert isinstance(node, Teller)
        return node

    @property
    def coordinator(self) -> Coordinator:
        node = self.world.node(f"gw/{JOBS}")
        assert isinstance(node, Coordinator)
        return node

    def worker(self, host: str) -> Worker:
        """The worker of a host."""
        node = self.world.node(f"{host}/work")
        assert isinstance(node, Worker)
        return node

    def store(self, given: Sequence[Observation]) -> None:
        """Into the tier, and wait."""
        self.do(*((b"SET", each.key(), each.encode()) for each in given))

    def do(self, *commands: Command) -> None:
        """Have commands executed, and wait."""
        self._stored += len(commands)
        self.world.inject("gw/teller", Store(commands))
        self.until(lambda: self.teller.stored == self._stored, 120.0, "storing")

    def until(self, holds: Callable[[], bool], seconds: float, what: str) -> None:
        """Go on until something holds."""
        end_s = self.world.now + seconds
        while not holds():
            assert self.world.now < end_s, f"{what} takes longer than {seconds} s"
            self.run(0.25)

    def ask(
        self, message: Submit | AskJobs | AskOne | AskPlan | AskRows | Stop
    ) -> JobTold | JobsTold | RowsTold | PlanTold:
        """Say it, again if the coordinator was down, and wait for the answer."""
        self._number += 1
        numbered = msgspec.structs.replace(message, number=self._number)
        self.world.inject("gw/teller", Say(numbered))
        self.until(lambda: self._number in self.teller.told, 60.0, type(message).__name__)
        return self.teller.told[self._number]

    def submit(self, source: JobSource, *paths: Path) -> str:
        """The job's id."""
        told = self.ask(Submit(0, source, tuple(map(str, paths))))
        assert isinstance(told, JobTold)
        assert told.state is not None, told.problem
        return told.state.id

    def state(self, job: str) -> JobState:
        """How the job is."""
        told = self.ask(AskOne(0, job))
        assert isinstance(told, JobTold)
        assert told.state is not None, told.problem
        return told.state

    def finished(self, job: str, seconds: float = 300.0) -> JobState:
        """Wait for its end."""
        end_s = self.world.now + seconds
        while (state := self.state(job)).state in ("planning", "running"):
            assert self.world.now < end_s, f"the job takes longer than {seconds} s: {state}"
            self.run(1.0)
        return state

    def result(self, job: str) -> Result:
        """Of a job that is done."""
        state = self.state(job)
        assert state.state == "done", (state.state, state.problem)
        parts = []
        for part, chunks in enumerate(state.chunks):
            data = b""
            for chunk in range(chunks):
                told = self.ask(AskRows(0, job, part, chunk))
                assert isinstance(told, RowsTold)
                assert not told.problem, told.problem
                data += told.data
            parts.append(data)
        return Result(state.key_names, state.window_s, tuple(parts), records=state.records)


def sequential(source: JobSource, given: Sequence[Observation], folder: Path) -> Result:
    """The answer of one process."""
    path = folder / "all.jsonl"
    documents = (
        {
            "device": each.id.device,
            "sequence": each.id.sequence,
            "kind": each.kind,
            "t_event": each.t_event,
            "t_gen": each.t_gen,
            "payload": msgspec.msgpack.decode(each.payload),
        }
        for each in given
    )
    path.write_bytes(b"".join(msgspec.json.encode(document) + b"\n" for document in documents))
    return run_local(source, [path])


def _client(directory: Callable[[], object], lanes: int) -> Client[Context]:
    return Client(directory(), lanes=lanes)  # type: ignore[arg-type]
