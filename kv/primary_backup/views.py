"""The view service: one node that says who is primary and who is backup.

Owns the current view and who was heard of when; what view may follow is in `succession`. Its state is durable
before anybody hears of it, so it may crash and come back. It is one node, and a single point of failure by
design: while it is away the two servers of the view go on, but nobody takes a dead one's place.

Source: the view service of the course exercise on primary/backup replication, after Budhiraja, Marzullo,
Schneider, Toueg, "The primary-backup approach" (1993).
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from kv.events import ViewBegan, ViewsLost
from kv.messages import CLIENT_MESSAGES, AskStatus, Status
from kv.primary_backup.messages import VIEW_MESSAGES, AskView, Member, Ping, View, Viewed, ViewIs
from kv.primary_backup.settings import Settings
from kv.primary_backup.succession import Standing, successor
from kv.records import Checked, Damaged
from underlay.messages import Message, Protocol
from underlay.node import Address, Context, Node, Timer

_STANDING = b"pv"
_TICK: Timer = "tick"


class Heard(msgspec.Struct, frozen=True):
    """The last ping of a server."""

    member: Member
    known: int
    at_s: float


class ViewService(Node):
    """Decides on the views of one service.

    Args:
        servers: who takes part, in the order of preference. The first view begins when all have been heard
            of and none knows of a view: an empty disk here can also mean that the views are lost, and a
            second first view would be a second service.
        settings: alike on all servers.
    """

    protocol = Protocol("views", *CLIENT_MESSAGES, *VIEW_MESSAGES)

    def __init__(self, servers: Sequence[Address], settings: Settings | None = None) -> None:
        self.servers = tuple(servers)
        self.settings = settings or Settings()
        self.standing = Standing()
        self._heard: dict[Address, Heard] = {}
        self._silent = False
        self._lost = False

    def on_start(self, ctx: Context) -> None:
        try:
            data = Checked(ctx.store).get(_STANDING)
        except Damaged:
            ctx.store.wipe()
            data = None
        if data is not None:
            self.standing = msgspec.msgpack.decode(data, type=Standing)
        for member in (self.standing.view.primary, self.standing.view.backup):
            if member is not None:  # it had no chance to ping while this node was away
                self._heard[member.address] = Heard(member, 0, ctx.now)
        ctx.set_timer(_TICK, self.settings.ping_s)

    def on_timer(self, ctx: Context, timer: Timer) -> None:
        self._advance(ctx)
        ctx.set_timer(_TICK, self.settings.ping_s)

    def on_message(self, ctx: Context, sender: Address, message: Message) -> None:
        if isinstance(message, Ping):
            self._on_ping(ctx, sender, message)
        elif isinstance(message, AskView):
            ctx.send(sender, ViewIs(message.number, self.standing.view))
        elif isinstance(message, AskStatus):
            ctx.send(sender, self.status(ctx, message.number))

    def alive(self, now_s: float) -> list[Member]:
        """The servers that were heard of lately, in the order of preference."""
        heard = [self._heard[server] for server in self.servers if server in self._heard]
        return [h.member for h in heard if now_s - h.at_s <= self.settings.dead_s]

    def status(self, ctx: Context, number: int) -> Status:
        """How the service is; its `ballot` is the view's number."""
        standing = self.standing
        view = standing.view
        return Status(
            number=number,
            group=ctx.address.partition("/")[2],
            role="views",
            leader=view.primary.address if view.primary is not None else "",
            ballot=str(view.number),
            members=self.servers,
            chosen=view.number,
            applied=view.number,
            stored_from=view.number,
            revision=view.number,
            keys=0,
            slots=(),
            details={
                "backup": view.backup.address if view.backup is not None else "",
                "acknowledged": standing.acknowledged,
                "synced": standing.synced,
                "alive": [member.address for member in self.alive(ctx.now)],
                "lost": self._lost,
            },
        )

    # ------------------------------------------------------------------------------------------------ helpers

    def _on_ping(self, ctx: Context, sender: Address, ping: Ping) -> None:
        if sender not in self.servers:
            return
        member = Member(sender, ping.disk, ping.start)
        known = self._heard.get(sender)
        if known is not None and known.member.outlives(member) and known.member != member:
            return  # of an earlier life, and late
        if ping.known > self.standing.view.number:
            self._stop(ctx, ping.known)
        if self._lost:
            return
        self._heard[sender] = Heard(member, ping.known, ctx.now)
        view = self.standing.view
        if member == view.primary and ping.acknowledged == view.number:
            self._silent = ping.silent
            self._stand(ctx, Standing(view, True, self.standing.synced or ping.synced))
        self._advance(ctx)
        ctx.send(sender, Viewed(self.standing.view))

    def _advance(self, ctx: Context) -> None:
        """Begin the next view, if it is time for one, and tell whom it concerns."""
        alive = self.alive(ctx.now)
        if self._lost:
            view = None
        elif self.standing.view.number > 0:
            view = successor(self.standing, alive, silent=self._silent)
        else:
            view = View(1, alive[0]) if len(alive) == len(self.servers) else None
        if view is None:
            return
        self._silent = False
        self._stand(ctx, Standing(view))
        names = [member.address if member is not None else "" for member in (view.primary, view.backup)]
        ctx.emit(ViewBegan(view.number, *names))
        for member in alive:
            ctx.send(member.address, Viewed(view))

    def _stand(self, ctx: Context, standing: Standing) -> None:
        if standing != self.standing:
            self.standing = standing
            Checked(ctx.store).put(_STANDING, msgspec.msgpack.encode(standing))

    def _stop(self, ctx: Context, known: int) -> None:
        """A server knows a view that this node does not: its disk is lost, or an old one. Who has the whole
        state cannot be told any more."""
        if not self._lost:
            self._lost = True
            ctx.emit(ViewsLost(self.standing.view.number, known))
