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

import msgspec

from kv.operations import Operation
from kv.paxos import messages as m
from kv.paxos.acceptor import Acceptor
from kv.paxos.batching import Proposal
from kv.paxos.election import Candidacy
from kv.paxos.execution import Execution, State
from kv.paxos.joining import Newcomer
from kv.paxos.leader import Leader
from kv.paxos.lease import Restraint
from kv.paxos.log import decode_entry
from kv.paxos.settings import Settings
from kv.replication import Machine, Owner, Token
from underlay.messages import Message
from underlay.node import Address, Context, Timer
from underlay.store import Store

_ELECTION: Timer = ("replication", "election")
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
        self.acceptor = Acceptor()
        self.execution = Execution(machine)
        self._owner = owner
        self._initial = tuple(members)
        self._replaces = replaces
        self._restraint = Restraint()
        self._leader: Leader | None = None
        self._leader_address: Address | None = None
        self._candidacy: Candidacy | None = None
        self._asked_by: Address | None = None
        """Who was promised something last, and has not led since."""
        self._stands_at_s = 0.0
        self._highest_round = 0
        self._staged: tuple[m.Ballot, int, int, bytes] | None = None
        """Of the snapshot that is arriving: ballot, position, number of the next chunk, state."""
        self._on: dict[type[Message], Callable[[Context, Address, Any], None]] = {
            m.PreVote: self._on_pre_vote,
            m.PreVoteGranted: self._on_pre_vote_granted,
            m.Prepare: self._on_prepare,
            m.Promise: self._on_promise,
            m.Refused: self._on_refused,
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
        return self._leader is not None and self._leader.in_office

    @property
    def leader(self) -> Address | None:
        return self._leader_address

    def on_start(self, ctx: Context) -> None:
        disk = self._recover(ctx.store)
        if disk is None:
            disk = ctx.rng.getrandbits(63) | 1
            ctx.store.put(_DISK, disk.to_bytes(8, "big"))
        self._me = m.Member(ctx.address, disk)
        self._newcomer = Newcomer(self._me, self._initial, self._replaces)
        if self._in_group:
            self._restraint.restarted(ctx.now, self.settings.election_timeout_s)
            self._execute(ctx)
            self._await_leader(ctx)
            ctx.send(ctx.address, m.Sweep())
        else:
            self._found_if_complete(ctx)
        if not self._votes:
            self._greet(ctx)

    def on_message(self, ctx: Context, sender: Address, message: Message) -> None:
        handle = self._on.get(type(message))
        if handle is not None:
            handle(ctx, sender, message)

    def on_timer(self, ctx: Context, timer: Timer) -> None:
        if timer == _HEARTBEAT:
            self._on_heartbeat_due(ctx)
        elif timer == _ELECTION:
            self._on_election_due(ctx)
        elif timer == _GREET and not self._votes:
            self._greet(ctx)

    def on_peer_down(self, ctx: Context, peer: Address) -> None:
        if self._leader is not None:
            self._leader.lost(peer)

    def propose(self, ctx: Context, operations: Sequence[Operation], token: Token) -> None:
        assert self._leader is not None, "only a leader proposes"
        self._leader.propose(ctx, Proposal(operations, token))

    def read(self, ctx: Context, token: Token) -> None:
        assert self._leader is not None, "only a leader reads"
        if self._leader.read(ctx, token):
            self._owner.readable(ctx, token)
        else:
            self._answer_reads(ctx)

    def describe(self) -> dict[str, object]:
        acceptor = self.acceptor
        return {
            "role": self._role,
            "leader": self._leader_address or "",
            "ballot": str(acceptor.promised),
            "members": tuple(member.address for member in self.execution.members),
            "chosen": acceptor.chosen,
            "applied": self.execution.applied,
            "stored_from": acceptor.log.first,
        }

    # ---------------------------------------------------------------------------------------------- elections

    def _on_election_due(self, ctx: Context) -> None:
        if self._leader is not None:
            return
        if self._candidacy is None and ctx.now < self._stands_at_s:
            ctx.set_timer(_ELECTION, self._stands_at_s - ctx.now)
        else:
            self._stand(ctx)

    def _stand(self, ctx: Context, *, at_once: bool = False) -> None:
        """Begin with a pre-vote, or `at_once` with Phase 1, which only who led until now may."""
        self._leader_address = self._candidacy = None
        self._wait_for_votes(ctx)
        if not self._votes:
            return
        rounds = max(self.acceptor.promised.round, self._highest_round)
        ballot = m.Ballot(rounds + 1, self._me.disk)
        self._candidacy = Candidacy(ballot, self.execution.members)
        if self._candidacy.grant(self._me) or at_once:
            self._prepare(ctx, self._candidacy)
        else:
            self._ask_others(ctx, m.PreVote(ballot, self.acceptor.chosen))

    def _on_pre_vote(self, ctx: Context, sender: Address, asked: m.PreVote) -> None:
        if self._may_promise(ctx, sender, asked.ballot, asked.chosen):
            ctx.send(sender, m.PreVoteGranted(asked.ballot, self._me.disk))

    def _on_pre_vote_granted(self, ctx: Context, sender: Address, granted: m.PreVoteGranted) -> None:
        candidacy = self._candidacy
        if candidacy is None or candidacy.preparing or candidacy.ballot != granted.ballot:
            return
        if candidacy.grant(m.Member(sender, granted.disk)):
            self._prepare(ctx, candidacy)

    def _prepare(self, ctx: Context, candidacy: Candidacy) -> None:
        acceptor = self.acceptor
        candidacy.preparing = True
        acceptor.promise(ctx.store, candidacy.ballot)
        for vote in acceptor.votes(acceptor.chosen):
            candidacy.count(vote)
        candidacy.promised[self._me] = acceptor.chosen
        self._wait_for_votes(ctx)
        self._ask_others(ctx, m.Prepare(candidacy.ballot, acceptor.chosen))
        self._lead_if_prepared(ctx, candidacy)

    def _on_prepare(self, ctx: Context, sender: Address, asked: m.Prepare) -> None:
        if not self._may_promise(ctx, sender, asked.ballot, asked.chosen):
            return
        acceptor = self.acceptor
        if asked.ballot > acceptor.promised:
            self._resign(ctx)
            self._candidacy = self._leader_address = None
            acceptor.promise(ctx.store, asked.ballot)
            self._await_leader(ctx)
        if self._asked_by == sender:  # again: the stream that carried the last answer may be stuck
            ctx.give_up(sender)
        self._asked_by = sender
        votes: list[m.Vote] = []
        room_bytes, part = self.settings.message_bytes_max, 0
        for vote in acceptor.votes(asked.chosen):
            room_bytes -= len(vote.entry) + 32
            if votes and room_bytes < 0:
                ctx.send(sender, self._promise(votes, part, last=False))
                room_bytes, part = self.settings.message_bytes_max - len(vote.entry), part + 1
                votes = []
            votes.append(vote)
        ctx.send(sender, self._promise(votes, part, last=True))

    def _promise(self, votes: list[m.Vote], part: int, *, last: bool) -> m.Promise:
        acceptor = self.acceptor
        return m.Promise(acceptor.promised, self._me.disk, acceptor.chosen, tuple(votes), part, last)

    def _on_promise(self, ctx: Context, sender: Address, promise: m.Promise) -> None:
        candidacy = self._candidacy
        if candidacy is not None and candidacy.preparing and candidacy.ballot == promise.ballot:
            candidacy.promise(m.Member(sender, promise.disk), promise)
            self._lead_if_prepared(ctx, candidacy)

    def _lead_if_prepared(self, ctx: Context, candidacy: Candidacy) -> None:
        if not candidacy.prepared:
            return
        self._candidacy = None
        self._leader_address = ctx.address
        self._leader = Leader(ctx, candidacy.ballot, self.acceptor, self.execution, self.settings)
        found = candidacy.entries(self.acceptor.chosen)
        self._leader.open(ctx, found, candidacy.promised)
        ctx.cancel_timer(_ELECTION)
        ctx.set_timer(_HEARTBEAT, self.settings.heartbeat_s)

    def _on_refused(self, ctx: Context, sender: Address, refused: m.Refused) -> None:
        if all(member.address != sender for member in self.execution.members):
            return
        self._highest_round = max(self._highest_round, refused.promised.round)
        if refused.promised <= refused.ballot:
            return
        if self._leader is not None and self._leader.ballot == refused.ballot:
            self._resign(ctx)
            self._stand(ctx)
        elif self._candidacy is not None and self._candidacy.ballot == refused.ballot:
            self._candidacy = None
            self._stands_at_s = ctx.now + self.settings.election_timeout_s * ctx.rng.random() / 4.0
            ctx.set_timer(_ELECTION, self._stands_at_s - ctx.now)

    def _may_promise(self, ctx: Context, sender: Address, ballot: m.Ballot, chosen: int) -> bool:
        """Whether nothing stands against promising `ballot` to `sender`, whose log is chosen through
        `chosen`."""
        acceptor = self.acceptor
        if not self._in_group or all(member.address != sender for member in self.execution.members):
            return False
        if self._restraint.hinders(sender, ctx.now):
            return False
        if self._leader is not None and self._leader.has_majority(ctx.now):
            return False
        if ballot < acceptor.promised or not acceptor.reaches_back_to(chosen):
            ctx.send(sender, m.Refused(ballot, acceptor.promised))
            return False
        return True

    def _resign(self, ctx: Context) -> None:
        leader, self._leader = self._leader, None
        if leader is None:
            return
        self._leader_address = None
        ctx.cancel_timer(_HEARTBEAT)
        self._await_leader(ctx)
        if leader.in_office:
            self._owner.left_office(ctx)

    def _await_leader(self, ctx: Context) -> None:
        """Stand if no leader is heard of for an election timeout and up to half as long again."""
        self._put_off(ctx)
        ctx.set_timer(_ELECTION, self._stands_at_s - ctx.now)

    def _put_off(self, ctx: Context) -> None:
        self._stands_at_s = ctx.now + self.settings.election_timeout_s * (1.0 + 0.5 * ctx.rng.random())

    def _wait_for_votes(self, ctx: Context) -> None:
        ctx.set_timer(_ELECTION, self.settings.election_timeout_s * (0.5 + 0.25 * ctx.rng.random()))

    # ---------------------------------------------------------------------------------------------- following

    def _heeds(self, ctx: Context, sender: Address, ballot: m.Ballot) -> bool:
        """Whether `sender` leads in `ballot`, as far as this replica knows; from now on it does."""
        acceptor = self.acceptor
        if ballot < acceptor.promised:
            ctx.send(sender, m.Refused(ballot, acceptor.promised))
            return False
        self._candidacy = self._asked_by = None
        if ballot > acceptor.promised:
            self._resign(ctx)
            acceptor.promise(ctx.store, ballot)
        self._leader_address = sender
        self._restraint.heard(sender, ctx.now, self.settings.election_timeout_s)
        self._put_off(ctx)
        return True

    def _on_heartbeat(self, ctx: Context, sender: Address, heartbeat: m.Heartbeat) -> None:
        if self._in_group and self._heeds(ctx, sender, heartbeat.ballot):
            self.acceptor.learn(heartbeat.chosen)
            heard = m.Heard(heartbeat.ballot, self._me.disk, heartbeat.round, self.acceptor.through)
            ctx.send(sender, heard)
            self._execute(ctx)

    def _on_accept(self, ctx: Context, sender: Address, accept: m.Accept) -> None:
        if not self._in_group or not self._heeds(ctx, sender, accept.ballot):
            return
        acceptor = self.acceptor
        taken = acceptor.accept(ctx.store, accept.first, accept.entries)
        acceptor.learn(accept.chosen)
        ctx.send(sender, m.Accepted(accept.ballot, self._me.disk, acceptor.through, not taken))
        self._execute(ctx)

    def _on_chunk(self, ctx: Context, sender: Address, chunk: m.Chunk) -> None:
        if not self._heeds(ctx, sender, chunk.ballot):
            return
        if self._in_group and chunk.position <= self.execution.applied:
            next_ = chunk.number + 1
        else:
            next_ = self._stage(ctx, chunk)
        ctx.send(sender, m.ChunkStored(chunk.ballot, self._me.disk, chunk.position, next_))

    def _stage(self, ctx: Context, chunk: m.Chunk) -> int:
        """Take a chunk of a snapshot; returns the number of the one to follow."""
        if chunk.number == 0:
            while self.execution.sweep(ctx.store, staged=True):
                """What an earlier snapshot left unfinished must not mix with this one."""
            self._staged = (chunk.ballot, chunk.position, 0, chunk.state)
        if self._staged is None or self._staged[:2] != (chunk.ballot, chunk.position):
            return 0
        ballot, position, expected, state = self._staged
        if chunk.number != expected:
            return expected
        self.execution.stage(ctx.store, chunk.records)
        self._staged = (ballot, position, expected + 1, state)
        if chunk.last:
            self._staged = None
            self.execution.install(ctx.store, msgspec.msgpack.decode(state, type=State))
            self.acceptor.install(ctx.store, position)
            self._await_leader(ctx)
            ctx.send(ctx.address, m.Sweep())
        return expected + 1

    def _on_sweep(self, ctx: Context, sender: Address, sweep: m.Sweep) -> None:
        if self.execution.sweep(ctx.store):
            ctx.send(ctx.address, sweep)

    # ------------------------------------------------------------------------------------------------ leading

    def _on_heartbeat_due(self, ctx: Context) -> None:
        leader = self._leader
        if leader is None:
            return
        if not leader.has_majority(ctx.now):
            self._resign(ctx)
            return
        leader.send_heartbeats(ctx)
        ctx.set_timer(_HEARTBEAT, self.settings.heartbeat_s)
        self._answer_reads(ctx)

    def _on_heard(self, ctx: Context, sender: Address, heard: m.Heard) -> None:
        leader = self._leader
        if leader is not None and leader.ballot == heard.ballot:
            leader.heard(ctx, m.Member(sender, heard.disk), heard.round, heard.through)
            self._advance(ctx, leader)
            self._answer_reads(ctx)

    def _on_accepted(self, ctx: Context, sender: Address, accepted: m.Accepted) -> None:
        leader = self._leader
        if leader is not None and leader.ballot == accepted.ballot:
            leader.accepted(ctx, m.Member(sender, accepted.disk), accepted.through, accepted.gap)
            self._advance(ctx, leader)

    def _on_chunk_stored(self, ctx: Context, sender: Address, stored: m.ChunkStored) -> None:
        leader = self._leader
        if leader is not None and leader.ballot == stored.ballot:
            leader.stored(ctx, m.Member(sender, stored.disk), stored.position, stored.next)
            self._advance(ctx, leader)

    def _on_synced(self, ctx: Context, sender: Address, synced: m.Synced) -> None:
        leader = self._leader
        if leader is not None and leader.ballot == synced.ballot:
            leader.synced(synced.through)
            self._advance(ctx, leader)

    def _on_flush(self, ctx: Context, sender: Address, flush: m.Flush) -> None:
        if self._leader is not None:
            self._leader.flush(ctx)

    def _advance(self, ctx: Context, leader: Leader) -> None:
        """More may be chosen, and the pipeline may have room."""
        chosen = leader.chosen()
        if chosen > self.acceptor.chosen:
            self.acceptor.chosen = chosen
            self._execute(ctx)
        if self._leader is leader:
            leader.flush(ctx)
            leader.change_members(ctx)

    def _answer_reads(self, ctx: Context) -> None:
        if self._leader is not None:
            for token in self._leader.confirmed_reads(ctx):
                self._owner.readable(ctx, token)

    # ---------------------------------------------------------------------------------------------- execution

    def _execute(self, ctx: Context) -> None:
        """Execute what is chosen, tell the owner, and write a checkpoint now and then."""
        acceptor, execution, leader = self.acceptor, self.execution, self._leader
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
        self._checkpoint_if_due(ctx)
        if execution.members != members:
            self._members_changed(ctx)
        elif leader is not None and leader.take_office():
            self._owner.took_office(ctx)

    def _checkpoint_if_due(self, ctx: Context) -> None:
        execution, log, settings = self.execution, self.acceptor.log, self.settings
        entries = execution.applied - execution.checkpointed
        if not entries or (
            execution.operations < settings.checkpoint_operations
            and entries < settings.checkpoint_entries
            and log.size_bytes < 2 * settings.retained_bytes
        ):
            return
        first = log.first_to_retain(execution.applied, settings.retained_entries, settings.retained_bytes)
        if self._leader is not None and len(log) < _RETAINED_AT_MOST * settings.retained_entries:
            first = min(first, self._leader.needed_from())
        log.truncate(ctx.store, first)
        execution.checkpoint(ctx.store, log.first)

    def _members_changed(self, ctx: Context) -> None:
        """Nothing was proposed after the Reconfigure: whoever led goes on by Phase 1 among the new
        members."""
        if self._leader is not None:
            self._resign(ctx)
            self._stand(ctx, at_once=True)

    # --------------------------------------------------------------------------------------------- beginnings

    @property
    def _in_group(self) -> bool:
        return bool(self.execution.founders)

    @property
    def _votes(self) -> bool:
        return self._me in self.execution.members

    @property
    def _role(self) -> str:
        if self._leader is not None:
            return "leader"
        if not self._votes:
            return "joining"
        return "candidate" if self._candidacy is not None else "follower"

    def _ask_others(self, ctx: Context, message: Message) -> None:
        for member in self.execution.members:
            if member != self._me:
                ctx.send(member.address, message)

    def _recover(self, store: Store) -> int | None:
        """Load what the disk has; returns its name, or None if it has nothing."""
        disk = store.get(_DISK)
        if disk is None:
            return None
        stored_from = self.execution.load(store)
        if stored_from is not None:
            self.acceptor.load(store, stored_from, self.execution.applied)
        return int.from_bytes(disk, "big")

    def _greet(self, ctx: Context) -> None:
        self._newcomer.greet(ctx, empty=not self._in_group)
        ctx.set_timer(_GREET, self.settings.heartbeat_s)

    def _on_greet(self, ctx: Context, sender: Address, greet: m.Greet) -> None:
        newcomer = m.Member(sender, greet.disk)
        if not self._in_group:
            self._newcomer.greeted(ctx, sender, greet)
        elif greet.empty and newcomer in self.execution.founders:
            ctx.send(sender, m.Founded(self.execution.founders))
        elif self._leader is not None and newcomer not in self.execution.members:
            self._leader.admit(ctx, newcomer, greet.replaces, empty=greet.empty)

    def _on_empty(self, ctx: Context, sender: Address, empty: m.Empty) -> None:
        if not self._in_group:
            self._newcomer.found_empty(sender, empty)
            self._found_if_complete(ctx)

    def _found_if_complete(self, ctx: Context) -> None:
        founders = self._newcomer.founders()
        if founders is not None:
            self.execution.found(ctx.store, founders)
            self._ask_others(ctx, m.Founded(founders))
            self._stand(ctx)

    def _on_founded(self, ctx: Context, sender: Address, founded: m.Founded) -> None:
        if not self._in_group and self._newcomer.accepts(founded):
            self.execution.found(ctx.store, founded.members)
            self._await_leader(ctx)
