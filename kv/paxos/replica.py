"""Multi-Paxos: one replica of a group, as a `Replication`.

Puts the parts together and owns what happens when: who is listened to, when to stand, what follows when
something is chosen. Each rule is in its own module: votes in `acceptor`, Phase 1 in `election`, Phase 2 in
`leader`, promises of time in `lease`, the machine and its checkpoints in `execution`, beginnings in
`joining`.

Sources: Lamport, "Paxos Made Simple" (2001); Chandra, Griesemer, Redstone, "Paxos Made Live" (2007), for
leases, snapshots and lost disks; Ongaro, "Consensus: Bridging Theory and Practice" (2014), for pre-vote and
ReadIndex; Lampson's restriction of alpha to 1 (Lamport, Malkhi, Zhou, "Reconfiguring a State Machine", 2010)
for the membership: nothing is proposed after a Reconfigure until it is chosen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from kv.operations import Operation
from kv.paxos import messages as m
from kv.paxos.acceptor import Acceptor
from kv.paxos.batching import Proposal
from kv.paxos.candidacy import Candidacy
from kv.paxos.election import ELECTION, Election
from kv.paxos.execution import Execution
from kv.paxos.joining import Newcomer
from kv.paxos.leader import Leader
from kv.paxos.log import decode_entry
from kv.paxos.settings import Settings
from kv.paxos.snapshot import Arrival
from kv.records import Checked, Damaged
from kv.replication import Machine, Owner, Token
from underlay.messages import Message
from underlay.node import Address, Context, Timer
from underlay.store import Store

_HEARTBEAT: Timer = ("replication", "heartbeat")
_GREET: Timer = ("replication", "greet")
_DISK = b"pd"
_RETAINED_AT_MOST = 16
"""Times the log that is usually retained: a snapshot that takes longer to send begins again."""


class Paxos:
    """One replica.

    Args:
        owner: is told what was executed.
        machine: executes; empty.
        members: addresses of all replicas of the group when it was founded, this one's among them.
        settings: alike on all replicas.
        replaces: this replica takes the place of that member of a running group.
    """

    protocol = m.PEER_MESSAGES

    def __init__(
        self,
        owner: Owner,
        machine: Machine,
        members: Sequence[Address],
        settings: Settings | None = None,
        replaces: Address = "",
    ) -> None:
        self.settings = settings or Settings()
        self.me = m.Member("", 0)
        self.leads: Leader | None = None
        self._owner = owner
        self._machine = machine
        self._initial = tuple(members)
        self._replaces = replaces
        self._leader_address: Address | None = None
        self._arrival: Arrival | None = None
        self._begin_empty()

    def _begin_empty(self) -> None:
        self.acceptor = Acceptor()
        self.execution = Execution(self._machine)
        self.election = election = Election(self, self.acceptor, self.execution, self.settings)
        self._on: dict[type[Message], Callable[[Context, Address, Any], None]] = {
            m.PreVote: election.on_pre_vote,
            m.PreVoteGranted: election.on_pre_vote_granted,
            m.Prepare: election.on_prepare,
            m.Promise: election.on_promise,
            m.Refused: election.on_refused,
            m.Accept: self._on_accept,
            m.Accepted: self._on_accepted,
            m.Heartbeat: self._on_heartbeat,
            m.Heard: self._on_heard,
            m.Chunk: self._on_chunk,
            m.ChunkStored: self._on_chunk_stored,
            m.Greet: self._on_greet,
            m.Empty: self._on_empty,
            m.Founded: self._on_founded,
            m.Flush: self._on_flush,
            m.Synced: self._on_synced,
            m.Sweep: self._on_sweep,
        }

    # --------------------------------------------------------------------------------------- as a Replication

    @property
    def leading(self) -> bool:
        return self.leads is not None and self.leads.in_office

    @property
    def leader(self) -> Address | None:
        return self._leader_address

    def on_start(self, ctx: Context) -> None:
        try:
            self._begin(ctx, self._recover(self.disk(ctx)))
        except Damaged:
            self._lose_disk(ctx)

    def on_message(self, ctx: Context, sender: Address, message: Message) -> None:
        handle = self._on.get(type(message))
        if handle is not None:
            try:
                handle(ctx, sender, message)
            except Damaged:
                self._lose_disk(ctx)

    def on_timer(self, ctx: Context, timer: Timer) -> None:
        if timer == _HEARTBEAT:
            self._on_heartbeat_due(ctx)
        elif timer == ELECTION:
            self.election.on_timer(ctx)
        elif timer == _GREET and not self.votes:
            self._greet(ctx)

    def on_peer_down(self, ctx: Context, peer: Address) -> None:
        if self.leads is not None:
            self.leads.lost(peer)

    def propose(self, ctx: Context, operations: Sequence[Operation], token: Token) -> None:
        assert self.leads is not None, "only a leader proposes"
        self.leads.propose(ctx, Proposal(operations, token))

    def read(self, ctx: Context, token: Token) -> None:
        assert self.leads is not None, "only a leader reads"
        if self.leads.read(ctx, token):
            self._owner.readable(ctx, token)
        else:
            self._answer_reads(ctx)

    def describe(self) -> dict[str, object]:
        acceptor = self.acceptor
        return {
            "role": self._role(),
            "leader": self._leader_address or "",
            "ballot": str(acceptor.promised),
            "members": tuple(member.address for member in self.execution.members),
            "chosen": acceptor.chosen,
            "applied": self.execution.applied,
            "stored_from": acceptor.log.first,
        }

    # -------------------------------------------------------------------------------- as who stands and leads

    @property
    def votes(self) -> bool:
        return self.me in self.execution.members

    def disk(self, ctx: Context) -> Store:
        return Checked(ctx.store)

    def ask_others(self, ctx: Context, message: Message) -> None:
        for member in self.execution.members:
            if member != self.me:
                ctx.send(member.address, message)

    def lead(self, ctx: Context, candidacy: Candidacy) -> None:
        self._leader_address = ctx.address
        leader = Leader(ctx, candidacy.ballot, self.acceptor, self.execution, self.settings)
        self.leads = leader
        leader.open(ctx, candidacy.entries(self.acceptor.chosen), candidacy.promised)
        ctx.set_timer(_HEARTBEAT, self.settings.heartbeat_s)

    def resign(self, ctx: Context) -> None:
        self._leader_address = None
        leader, self.leads = self.leads, None
        if leader is not None:
            ctx.cancel_timer(_HEARTBEAT)
            self.election.await_leader(ctx)
            if leader.in_office:
                self._owner.left_office(ctx)

    # ---------------------------------------------------------------------------------------------- following

    def _heeds(self, ctx: Context, sender: Address, ballot: m.Ballot) -> bool:
        """Whether `sender` leads in `ballot`, as far as this replica knows; from now on it does."""
        acceptor = self.acceptor
        if ballot < acceptor.promised:
            ctx.send(sender, m.Refused(ballot, acceptor.promised))
            return False
        if ballot > acceptor.promised:
            self.resign(ctx)
            acceptor.promise(self.disk(ctx), ballot)
        self._leader_address = sender
        self.election.heard(ctx, sender)
        return True

    def _on_heartbeat(self, ctx: Context, sender: Address, heartbeat: m.Heartbeat) -> None:
        if self._in_group and self._heeds(ctx, sender, heartbeat.ballot):
            self.acceptor.learn(heartbeat.chosen)
            heard = m.Heard(heartbeat.ballot, self.me.disk, heartbeat.round, self.acceptor.through)
            ctx.send(sender, heard)
            self._execute(ctx)

    def _on_accept(self, ctx: Context, sender: Address, accept: m.Accept) -> None:
        if self._in_group and self._heeds(ctx, sender, accept.ballot):
            acceptor = self.acceptor
            taken = acceptor.accept(self.disk(ctx), accept.first, accept.entries)
            acceptor.learn(accept.chosen)
            ctx.send(sender, m.Accepted(accept.ballot, self.me.disk, acceptor.through, not taken))
            self._execute(ctx)

    def _on_chunk(self, ctx: Context, sender: Address, chunk: m.Chunk) -> None:
        if self._heeds(ctx, sender, chunk.ballot):
            known = self._in_group and chunk.position <= self.execution.applied
            next_ = chunk.number + 1 if known else self._take(ctx, chunk)
            ctx.send(sender, m.ChunkStored(chunk.ballot, self.me.disk, chunk.position, next_))

    def _take(self, ctx: Context, chunk: m.Chunk) -> int:
        """Take a chunk of a snapshot; returns the number of the one to follow."""
        store = self.disk(ctx)
        if chunk.number == 0:
            self._arrival = Arrival(self.execution, store, chunk)
        arrival = self._arrival
        if arrival is None or arrival.of != (chunk.ballot, chunk.position):
            return 0
        if arrival.take(store, chunk):
            self._arrival = None
            self.acceptor.install(store, chunk.position)
            self.election.await_leader(ctx)
            ctx.send(ctx.address, m.Sweep())
        return arrival.next

    def _on_sweep(self, ctx: Context, sender: Address, sweep: m.Sweep) -> None:
        if self.execution.sweep(self.disk(ctx)):
            ctx.send(ctx.address, sweep)

    # ------------------------------------------------------------------------------------------------ leading

    def _on_heartbeat_due(self, ctx: Context) -> None:
        leader = self.leads
        if leader is None:
            return
        if not leader.has_majority(ctx.now):
            self.resign(ctx)
            return
        leader.send_heartbeats(ctx)
        ctx.set_timer(_HEARTBEAT, self.settings.heartbeat_s)
        self._answer_reads(ctx)

    def _on_heard(self, ctx: Context, sender: Address, heard: m.Heard) -> None:
        leader = self.leads
        if leader is not None and leader.ballot == heard.ballot:
            leader.heard(ctx, m.Member(sender, heard.disk), heard.round, heard.through)
            self._advance(ctx, leader)
            self._answer_reads(ctx)

    def _on_accepted(self, ctx: Context, sender: Address, accepted: m.Accepted) -> None:
        leader = self.leads
        if leader is not None and leader.ballot == accepted.ballot:
            leader.accepted(ctx, m.Member(sender, accepted.disk), accepted.through, accepted.gap)
            self._advance(ctx, leader)

    def _on_chunk_stored(self, ctx: Context, sender: Address, stored: m.ChunkStored) -> None:
        leader = self.leads
        if leader is not None and leader.ballot == stored.ballot:
            leader.stored(ctx, m.Member(sender, stored.disk), stored.position, stored.next)
            self._advance(ctx, leader)

    def _on_synced(self, ctx: Context, sender: Address, synced: m.Synced) -> None:
        leader = self.leads
        if leader is not None and leader.ballot == synced.ballot:
            leader.synced(synced.through)
            self._advance(ctx, leader)

    def _on_flush(self, ctx: Context, sender: Address, flush: m.Flush) -> None:
        if self.leads is not None:
            self.leads.flush(ctx)

    def _advance(self, ctx: Context, leader: Leader) -> None:
        """More may be chosen, and the pipeline may have room."""
        chosen = leader.chosen()
        if chosen > self.acceptor.chosen:
            self.acceptor.chosen = chosen
            self._execute(ctx)
        if self.leads is leader:
            leader.flush(ctx)
            leader.change_members(ctx)

    def _answer_reads(self, ctx: Context) -> None:
        if self.leads is not None:
            for token in self.leads.confirmed_reads(ctx):
                self._owner.readable(ctx, token)

    # ---------------------------------------------------------------------------------------------- execution

    def _execute(self, ctx: Context) -> None:
        """Execute what is chosen, tell the owner, and write a checkpoint now and then."""
        acceptor, execution, leader = self.acceptor, self.execution, self.leads
        members = execution.members
        while execution.applied < acceptor.chosen:
            slot = acceptor.log.get(execution.applied + 1)
            assert slot is not None, f"position {execution.applied + 1} is chosen, and not in the log"
            outcomes = execution.execute(decode_entry(slot.entry))
            if leader is not None:
                start = 0
                for proposal, count in leader.shares(execution.applied):
                    proposal.outcomes += outcomes[start : start + count]
                    start += count
                    if proposal.done:
                        self._owner.applied(ctx, proposal.token, proposal.outcomes)
        if execution.checkpoint_is_due(self.settings, acceptor.log):
            self._checkpoint(ctx)
        if execution.members != members:
            if leader is not None:  # who led goes on by Phase 1 among the new members
                self.election.stand(ctx, at_once=True)
        elif leader is not None and leader.take_office():
            self._owner.took_office(ctx)

    def _checkpoint(self, ctx: Context) -> None:
        log, settings, store = self.acceptor.log, self.settings, self.disk(ctx)
        first = log.first_to_retain(
            self.execution.applied, settings.retained_entries, settings.retained_bytes
        )
        if self.leads is not None and len(log) < _RETAINED_AT_MOST * settings.retained_entries:
            first = min(first, self.leads.needed_from())
        log.truncate(store, first)
        self.execution.checkpoint(store, log.first)

    # --------------------------------------------------------------------------------------------- beginnings

    @property
    def _in_group(self) -> bool:
        return bool(self.execution.founders)

    def _role(self) -> str:
        if self.leads is not None:
            return "leader"
        if not self.votes:
            return "joining"
        return "candidate" if self.election.candidacy is not None else "follower"

    def _recover(self, store: Store) -> int | None:
        """Load what the disk has; returns its name, or None if it is empty."""
        disk = store.get(_DISK)
        if disk is None:
            return None
        stored_from = self.execution.load(store)
        if stored_from is not None:
            self.acceptor.load(store, stored_from, self.execution.applied)
        return int.from_bytes(disk, "big")

    def _lose_disk(self, ctx: Context) -> None:
        """Something durable is damaged: nobody knows what else is, so it all counts as lost, promises too.
        What comes back is somebody else, who begins empty."""
        self.resign(ctx)
        self._arrival = None
        ctx.store.wipe()
        self._machine.restore(())
        self._begin_empty()
        self._begin(ctx, None)

    def _begin(self, ctx: Context, disk: int | None) -> None:
        if disk is None:
            disk = ctx.rng.getrandbits(63) | 1
            self.disk(ctx).put(_DISK, disk.to_bytes(8, "big"))
        self.me = m.Member(ctx.address, disk)
        self._newcomer = Newcomer(self.me, self._initial, self._replaces, self.disk(ctx))
        if self._in_group:
            self.election.restarted(ctx)
            self._execute(ctx)
            ctx.send(ctx.address, m.Sweep())
        else:
            self._found_if_complete(ctx)
        if not self.votes:
            self._greet(ctx)

    def _greet(self, ctx: Context) -> None:
        if not self._in_group or self._owner.complete:
            self._newcomer.greet(ctx, empty=not self._in_group)
        ctx.set_timer(_GREET, self.settings.heartbeat_s)

    def _on_greet(self, ctx: Context, sender: Address, greet: m.Greet) -> None:
        newcomer = m.Member(sender, greet.disk)
        if not self._in_group:
            self._newcomer.greeted(ctx, self.disk(ctx), sender, greet)
        elif greet.empty and newcomer in self.execution.founders:
            ctx.send(sender, m.Founded(self.execution.founders))
        elif self.leads is not None and newcomer not in self.execution.members:
            self.leads.admit(ctx, newcomer, greet.replaces, empty=greet.empty)

    def _on_empty(self, ctx: Context, sender: Address, empty: m.Empty) -> None:
        if not self._in_group:
            self._newcomer.found_empty(sender, empty)
            self._found_if_complete(ctx)

    def _found_if_complete(self, ctx: Context) -> None:
        founders = self._newcomer.founders()
        if founders is not None:
            self.execution.found(self.disk(ctx), founders)
            self.ask_others(ctx, m.Founded(founders))
            self.election.stand_soon(ctx, 0.0 if len(founders) == 1 else self.settings.heartbeat_s)

    def _on_founded(self, ctx: Context, sender: Address, founded: m.Founded) -> None:
        if not self._in_group and self._newcomer.accepts(sender, founded):
            self.execution.found(self.disk(ctx), founded.members)
            self.election.await_leader(ctx)
