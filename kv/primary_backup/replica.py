"""A server of a primary/backup service, as a `Replication`.

Puts the parts together and owns what happens when: pings, views, who this server is in them. What it does as
primary is in `primary` (and `peer`, `lease`), what it does as backup in `backup`, its state in `journal`.

Source: Budhiraja, Marzullo, Schneider, Toueg, "The primary-backup approach" (1993), and the course exercise
that is built on it. Beyond these: the state survives a crash of both servers, reads under a lease, a backup
that the primary cannot reach is replaced.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from kv.operations import Operation
from kv.paxos.batching import Proposal
from kv.primary_backup import messages as m
from kv.primary_backup.backup import Backup
from kv.primary_backup.journal import Journal
from kv.primary_backup.primary import Primary
from kv.primary_backup.settings import Settings
from kv.records import Checked, Damaged
from kv.replication import Machine, Owner, Token
from underlay.messages import Message
from underlay.node import Address, Context, Timer
from underlay.store import Store

_PING: Timer = ("replication", "ping")
_OFFICE: Timer = ("replication", "office")
_DISK = b"pd"
_KNOWN = b"pv"


class PrimaryBackup:
    """One server.

    Args:
        owner: is told what was executed.
        machine: executes; empty.
        views: the view service.
        settings: alike on all servers and the view service.
    """

    protocol = m.PEER_MESSAGES

    def __init__(
        self, owner: Owner, machine: Machine, views: Address, settings: Settings | None = None
    ) -> None:
        self.settings = settings or Settings()
        self.view = m.View()
        """The latest that it has heard of."""
        self.journal = Journal(machine, self.settings.checkpoint_operations)
        self._owner = owner
        self._views = views
        self._known = 0
        """The latest view that this disk has heard of, in this life or an earlier one."""
        self._primary: Primary | None = None
        self._backup: Backup | None = None
        self._restrained_until_s = 0.0
        """Until then some primary may count on this server not to take office."""
        self._on: dict[type[Message], Callable[[Context, Address, Any], None]] = {
            m.Viewed: self._on_viewed,
            m.Forward: self._on_forward,
            m.Forwarded: self._on_forwarded,
            m.Chunk: self._on_chunk,
            m.ChunkStored: self._on_chunk_stored,
            m.Confirm: self._on_confirm,
            m.Confirmed: self._on_confirmed,
            m.Flush: self._on_flush,
            m.Logged: self._on_logged,
            m.Sweep: self._on_sweep,
        }

    # --------------------------------------------------------------------------------------- as a Replication

    @property
    def leading(self) -> bool:
        return self._primary is not None

    @property
    def leader(self) -> Address | None:
        return self.view.primary.address if self.view.primary is not None else None

    def on_start(self, ctx: Context) -> None:
        try:
            identity = self._recover(_store(ctx))
        except Damaged:
            ctx.store.wipe()
            identity = self._recover(_store(ctx))
        if identity is None:
            identity = (ctx.rng.getrandbits(63) | 1, 0)
        else:
            self._restrained_until_s = ctx.now + self.settings.restraint_s
            ctx.send(ctx.address, m.Sweep())
        disk, starts = identity
        self._me = m.Member(ctx.address, disk, starts + 1)
        _store(ctx).put(_DISK, msgspec.msgpack.encode((disk, starts + 1)))
        self._ping(ctx)
        ctx.set_timer(_PING, self.settings.ping_s)

    def on_message(self, ctx: Context, sender: Address, message: Message) -> None:
        handle = self._on.get(type(message))
        if handle is not None:
            handle(ctx, sender, message)

    def on_timer(self, ctx: Context, timer: Timer) -> None:
        if timer == _PING:
            if self._primary is not None and self._primary.peer is not None:
                self._primary.peer.tick(ctx)
            self._ping(ctx)
            ctx.set_timer(_PING, self.settings.ping_s)
        elif timer == _OFFICE:
            self._take_office(ctx)

    def on_peer_down(self, ctx: Context, peer: Address) -> None:
        if self._primary is not None:
            backup = self._primary.backup(peer, self.view.number)
            if backup is not None:
                backup.lost()

    def propose(self, ctx: Context, operations: Sequence[Operation], token: Token) -> None:
        assert self._primary is not None, "only a primary proposes"
        self._primary.propose(ctx, Proposal(operations, token))

    def read(self, ctx: Context, token: Token) -> None:
        assert self._primary is not None, "only a primary reads"
        if self._primary.read(ctx, token):
            self._owner.readable(ctx, token)

    def describe(self) -> dict[str, object]:
        primary, journal = self._primary, self.journal
        members = (self.view.primary, self.view.backup)
        return {
            "role": "primary" if primary else "backup" if self._backup else "idle",
            "leader": self.leader or "",
            "ballot": str(self.view.number),
            "members": tuple(member.address for member in members if member is not None),
            "chosen": primary.chosen if primary is not None else journal.applied,
            "applied": journal.applied,
            "stored_from": journal.checkpointed + 1,
        }

    # -------------------------------------------------------------------------------------------------- views

    def _ping(self, ctx: Context) -> None:
        me, primary = self._me, self._primary
        if primary is None:
            ping = m.Ping(me.disk, me.start, self._known)
        else:
            silent = primary.peer is not None and primary.peer.silent(ctx.now)
            ping = m.Ping(me.disk, me.start, self._known, primary.view.number, primary.synced, silent)
        ctx.send(self._views, ping)

    def _on_viewed(self, ctx: Context, sender: Address, viewed: m.Viewed) -> None:
        view = viewed.view
        if sender != self._views or view.number <= self.view.number:
            return
        self.view = view
        self._known = max(self._known, view.number)
        _store(ctx).put(_KNOWN, msgspec.msgpack.encode(self._known))
        self._backup = None
        if view.primary == self._me:
            if self._primary is None:
                self._take_office(ctx)
            else:
                for token in self._primary.follow(ctx, view):
                    self._owner.readable(ctx, token)
                self._advance(ctx)
                self._ping(ctx)
            return
        if self._primary is not None:
            self._primary = None
            self._owner.left_office(ctx)
        if view.backup == self._me and view.primary is not None:
            self._backup = Backup(view.number, view.primary, self.journal)

    def _take_office(self, ctx: Context) -> None:
        """Begin to work as primary, but not while the last one may count on its lease."""
        if self._primary is not None or self.view.primary != self._me:
            return
        if ctx.now < self._restrained_until_s:
            ctx.set_timer(_OFFICE, self._restrained_until_s - ctx.now)
            return
        self._primary = Primary(ctx, self.view, self.journal, self.settings)
        self.journal.checkpoint_if_due(_store(ctx))
        self._ping(ctx)
        self._owner.took_office(ctx)

    # ------------------------------------------------------------------------------------------------- backup

    def _serving(self, ctx: Context, sender: Address, view: int) -> Backup | None:
        """This server as the sender's backup in that view, if it is that."""
        if view > self.view.number:
            self._ping(ctx)  # the primary knows a view that this server has not heard of
        backup = self._backup
        return backup if backup is not None and backup.serves(sender, view) else None

    def _on_chunk(self, ctx: Context, sender: Address, chunk: m.Chunk) -> None:
        backup = self._serving(ctx, sender, chunk.view)
        if backup is None:
            return
        was_installed = backup.installed
        next_ = backup.store_chunk(_store(ctx), chunk)
        ctx.send(sender, m.ChunkStored(chunk.view, next_))
        if backup.installed and not was_installed:
            ctx.send(ctx.address, m.Sweep())

    def _on_forward(self, ctx: Context, sender: Address, forward: m.Forward) -> None:
        backup = self._serving(ctx, sender, forward.view)
        if backup is not None and backup.installed:
            ctx.send(sender, backup.log(_store(ctx), forward))

    def _on_confirm(self, ctx: Context, sender: Address, confirm: m.Confirm) -> None:
        backup = self._serving(ctx, sender, confirm.view)
        if backup is not None:
            self._restrained_until_s = ctx.now + self.settings.restraint_s
            ctx.send(sender, m.Confirmed(confirm.view, confirm.round))

    def _on_sweep(self, ctx: Context, sender: Address, sweep: m.Sweep) -> None:
        if self.journal.sweep(_store(ctx)):
            ctx.send(ctx.address, sweep)

    # ------------------------------------------------------------------------------------------------ primary

    def _on_flush(self, ctx: Context, sender: Address, flush: m.Flush) -> None:
        self._flush(ctx)

    def _on_logged(self, ctx: Context, sender: Address, logged: m.Logged) -> None:
        if self._primary is not None:
            self._primary.logged(logged)
            self._advance(ctx)

    def _on_forwarded(self, ctx: Context, sender: Address, forwarded: m.Forwarded) -> None:
        backup = self._primary and self._primary.backup(sender, forwarded.view)
        if backup:
            backup.forwarded(ctx, forwarded.through, forwarded.gap)
            self._advance(ctx)

    def _on_chunk_stored(self, ctx: Context, sender: Address, stored: m.ChunkStored) -> None:
        backup = self._primary and self._primary.backup(sender, stored.view)
        if backup:
            backup.stored(ctx, stored.next)
            self._advance(ctx)

    def _on_confirmed(self, ctx: Context, sender: Address, confirmed: m.Confirmed) -> None:
        backup = self._primary and self._primary.backup(sender, confirmed.view)
        if backup:
            tokens = backup.lease.confirmed(confirmed.round)
            backup.confirmed(ctx)
            for token in tokens:
                self._owner.readable(ctx, token)
            if backup.lease.waiting and not backup.lease.under_way:
                backup.ask(ctx)

    def _advance(self, ctx: Context) -> None:
        """More may be chosen, the backup may be synced, and there may be room for more entries."""
        primary = self._primary
        if primary is None:
            return
        was_synced = primary.synced
        primary.choose()
        while (done := primary.execute_next()) is not None:
            for token, outcomes in done:
                self._owner.applied(ctx, token, outcomes)
        self.journal.checkpoint_if_due(_store(ctx))
        if primary.synced and not was_synced:
            self._ping(ctx)
        self._flush(ctx)

    def _flush(self, ctx: Context) -> None:
        primary = self._primary
        entries = primary.flush(ctx) if primary is not None else ()
        if primary is not None and entries:
            first = primary.append(ctx, entries)
            self.journal.write(_store(ctx), first)
            ctx.when_durable(primary.logged_message())

    # ------------------------------------------------------------------------------------------------ helpers

    def _recover(self, store: Store) -> tuple[int, int] | None:
        """Read the store; returns the disk's name and how often it was started, or None if it is new."""
        identity, known = store.get(_DISK), store.get(_KNOWN)
        self._known = msgspec.msgpack.decode(known, type=int) if known is not None else 0
        self.journal.load(store)
        return None if identity is None else msgspec.msgpack.decode(identity, type=tuple[int, int])


def _store(ctx: Context) -> Checked:
    return Checked(ctx.store)
