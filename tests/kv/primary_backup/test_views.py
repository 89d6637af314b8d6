"""The view service with servers that only ping: the view half of the classic course exercise."""

from __future__ import annotations

from kv.messages import AskStatus, Status
from kv.primary_backup import Settings, ViewService
from kv.primary_backup.messages import VIEW_MESSAGES, AskView, Ping, View, Viewed, ViewIs
from underlay.faults import Crash, LoseDisk, Restart
from underlay.messages import Message, Protocol
from underlay.node import Address, Context, Node, Timer
from underlay.simulation import World, every_pair, plan_of

DEAD_S = Settings().dead_s


class Pinger(Node):
    """Pings as a test tells it to."""

    protocol = Protocol("pinger", *VIEW_MESSAGES)

    def __init__(self, disk: int) -> None:
        self.disk = disk
        self.start = 1
        self.quiet = False
        self.acknowledges = True
        self.synced = True
        self.silent = False
        self.view = View()

    def on_start(self, ctx: Context) -> None:
        ctx.set_timer("ping", 0.0)

    def on_message(self, ctx: Context, sender: Address, message: Message) -> None:
        if isinstance(message, Viewed) and not self.quiet and message.view.number > self.view.number:
            self.view = message.view

    def on_timer(self, ctx: Context, timer: Timer) -> None:
        ctx.set_timer("ping", Settings().ping_s)
        if self.quiet:
            return
        primary = self.view.primary
        works = self.acknowledges and primary is not None and primary.address == ctx.address
        works = works and primary is not None and primary.start == self.start
        number = self.view.number
        synced = works and self.synced and self.view.backup is not None
        silent = works and self.silent
        ping = Ping(self.disk, self.start, number, number if works else 0, synced, silent)
        ctx.send("v/views", ping)

    def restart(self) -> None:
        """Another life, with the same disk."""
        self.start += 1


class Course:
    """A view service and servers a, b, c."""

    def __init__(self, *quiet: str) -> None:
        names = ["a", "b", "c"]
        servers = [f"{name}/g1" for name in names]
        hosts = {
            name: {"g1": lambda number=number: Pinger(number)} for number, name in enumerate(names, start=1)
        }
        plan = plan_of({"v": {"views": lambda: ViewService(servers)}, **hosts}, every_pair(["v", *names]))
        self.world = World(plan, check_codec=True)
        for name in quiet:
            self.server(name).quiet = True

    def server(self, name: str) -> Pinger:
        node = self.world.node(f"{name}/g1")
        assert isinstance(node, Pinger)
        return node

    def views(self) -> ViewService:
        node = self.world.node("v/views")
        assert isinstance(node, ViewService)
        return node

    def run(self, duration_s: float = 2 * DEAD_S) -> str:
        """Let time pass; returns the view: its number, primary and backup."""
        self.world.run_until(self.world.now + duration_s)
        view = self.views().standing.view
        names = [m.address.partition("/")[0] if m is not None else "-" for m in (view.primary, view.backup)]
        return f"{view.number} {' '.join(names)}"


def test_the_first_view_waits_for_all_and_then_they_become_primary_and_backup() -> None:
    course = Course("c")
    assert course.run() == "0 - -"
    course.server("c").quiet = False
    assert course.run() == "2 a b"


def test_the_first_primary_is_alone_until_it_acknowledges() -> None:
    course = Course()
    course.server("a").acknowledges = False
    assert course.run() == "1 a -"
    course.server("a").acknowledges = True
    assert course.run() == "2 a b"


def test_the_backup_takes_over_and_the_idle_server_becomes_backup() -> None:
    course = Course()
    assert course.run() == "2 a b"
    course.server("a").quiet = True
    assert course.run() == "3 b c"


def test_a_restarted_primary_counts_as_dead_though_it_missed_no_ping() -> None:
    course = Course()
    assert course.run() == "2 a b"
    course.server("a").restart()
    assert course.run() == "3 b a"


def test_a_dead_backup_is_replaced_and_comes_back_idle() -> None:
    course = Course()
    assert course.run() == "2 a b"
    course.server("b").quiet = True
    assert course.run() == "3 a c"
    course.server("b").quiet = False
    assert course.run() == "3 a c"


def test_nothing_follows_a_view_that_its_primary_has_not_acknowledged() -> None:
    course = Course()
    assert course.run() == "2 a b"
    course.server("b").acknowledges = False
    course.server("a").quiet = True
    assert course.run() == "3 b c"
    course.server("b").quiet = True
    assert course.run() == "3 b c"
    course.server("a").quiet = False
    assert course.run() == "3 b c"
    course.server("b").quiet, course.server("b").acknowledges = False, True
    assert course.run() == "3 b c"


def test_a_server_without_the_state_never_becomes_primary() -> None:
    course = Course()
    course.server("a").synced = False
    assert course.run() == "2 a b"
    course.server("a").quiet = True
    assert course.run() == "2 a b"
    course.server("a").quiet = False
    course.server("a").synced = True
    course.run()
    for name in ("a", "b"):
        course.server(name).quiet = True
    assert course.run() == "2 a b"


def test_the_disk_of_a_dead_primary_may_go_on_and_another_disk_on_its_host_may_not() -> None:
    course = Course()
    course.server("a").synced = False
    assert course.run() == "2 a b"
    course.server("a").disk, course.server("a").start = 77, 1
    assert course.run() == "2 a b"
    course.server("a").disk, course.server("a").start = 1, 2
    assert course.run() == "3 a b"


def test_a_ping_of_an_earlier_life_is_ignored() -> None:
    course = Course()
    course.run()
    course.server("a").restart()
    assert course.run() == "3 b a"
    course.world.inject("v/views", Ping(1, 1, 2, 2, True), "a/g1")
    assert course.run() == "3 b a"


def test_a_silent_backup_is_replaced() -> None:
    course = Course()
    assert course.run() == "2 a b"
    course.server("a").silent = True
    while course.run(0.01) == "2 a b":
        """The next ping says so."""
    assert course.run(0.0) == "3 a c"


def test_the_view_survives_a_crash_of_the_view_service() -> None:
    course = Course()
    assert course.run() == "2 a b"
    course.world.apply(Crash("v"))
    course.world.apply(Restart("v"))
    assert course.run() == "2 a b"
    course.server("a").quiet = True
    assert course.run() == "3 b c"


def test_a_view_service_that_lost_its_disk_decides_nothing_more() -> None:
    course = Course()
    assert course.run() == "2 a b"
    for fault in (Crash("v"), LoseDisk("v"), Restart("v")):
        course.world.apply(fault)
    assert course.run() == "0 - -"
    for name in ("b", "c"):
        course.server(name).quiet = True
    course.server("a").restart()
    assert course.run() == "0 - -"
    assert sum(record["event"] == "views-lost" for record in course.world.records()) == 1


def test_clients_may_ask_for_the_view_and_the_status() -> None:
    course = Course()
    course.run()
    course.world.inject("v/views", AskView(5), "caller:1")
    course.world.inject("v/views", AskStatus(6), "caller:1")
    course.run(0.1)
    seen, status = course.world.answers["caller:1"]
    assert isinstance(seen, ViewIs)
    assert (seen.number, seen.view) == (5, course.views().standing.view)
    assert isinstance(status, Status)
    assert (status.role, status.leader, status.ballot) == ("views", "a/g1", "2")
    assert status.details["backup"] == "b/g1"
