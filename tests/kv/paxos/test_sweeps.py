"""Seeds of misfortune: whatever breaks, replicas agree and clients see one order; afterwards the group goes
on.

And the same misfortune finds every rule that is broken on purpose: a check that cannot fail shows nothing.
"""

from collections.abc import Callable
from typing import Any

import pytest

from kv.paxos.acceptor import Acceptor
from kv.paxos.candidacy import Candidacy
from kv.paxos.election import Election
from kv.paxos.leader import Leader
from kv.paxos.lease import Lease
from kv.paxos.messages import Ballot, Vote
from tests.kv.paxos.chaos import ordeal
from tests.kv.small import SmallMachine
from underlay.node import Address, Context
from underlay.store import Store

Patch = pytest.MonkeyPatch
Change = Callable[[Patch], None]


@pytest.mark.sweep(25)
def test_replicas_agree_and_clients_see_one_order(seed: int) -> None:
    ordeal(seed)


@pytest.mark.sweep(15)
def test_agreement_needs_no_clocks(seed: int) -> None:
    ordeal(seed, without_time)


def without_time(patch: Patch) -> None:
    """Nobody waits for anybody: no leases, no pre-vote, no restraint, and a leader leads until it hears of
    another. What is left is Paxos, which is safe at any time; now its rules are tried hard."""

    def may_promise(self: Election, ctx: Context, sender: Address, ballot: Ballot, chosen: int) -> bool:
        return ballot >= self._acceptor.promised and self._acceptor.reaches_back_to(chosen)

    stand = Election.stand
    patch.setattr(Lease, "holds", lambda *_: False)
    patch.setattr(Election, "_may_promise", may_promise)
    patch.setattr(Leader, "has_majority", lambda *_: True)
    patch.setattr(Election, "stand", lambda self, ctx, at_once=True: stand(self, ctx, at_once=True))


def forgets_its_promise(patch: Patch) -> None:
    """It promises, but not durably."""

    def promise(self: Acceptor, store: Store, ballot: Ballot) -> None:
        if ballot > self.promised:
            self.promised, self.through = ballot, self.chosen

    patch.setattr(Acceptor, "promise", promise)


def reads_after_its_lease(patch: Patch) -> None:
    """It answers reads from what it has, for as long as it believes to lead."""
    patch.setattr(Lease, "holds", lambda *_: True)
    patch.setattr(Leader, "has_majority", lambda *_: True)


def takes_the_oldest_vote(patch: Patch) -> None:
    """Of the votes that Phase 1 finds it takes that of the lowest ballot, not of the highest."""

    def count(self: Candidacy, vote: Vote) -> None:
        known = self._votes.setdefault(vote.position, vote)
        if vote.ballot < known.ballot:
            self._votes[vote.position] = vote

    patch.setattr(Candidacy, "count", count)


def believes_what_it_holds(patch: Patch) -> None:
    """It takes for chosen what it accepted in an earlier ballot."""

    def learn(self: Acceptor, chosen: int) -> None:
        while self.chosen < chosen and self.log.get(self.chosen + 1):
            self.chosen += 1

    patch.setattr(Acceptor, "learn", learn)


def forgets_sessions(patch: Patch) -> None:
    """The machine executes a repetition again."""
    execute = SmallMachine.execute

    def forgetful(self: SmallMachine, operation: Any, time_s: float) -> Any:
        return execute(self, type(operation)(operation.command), time_s)

    patch.setattr(SmallMachine, "execute", forgetful)


BREAKS: list[tuple[Change, ...]] = [
    (forgets_its_promise, without_time),
    (takes_the_oldest_vote, without_time),
    (believes_what_it_holds, without_time),
    (reads_after_its_lease,),
    (forgets_sessions,),
]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("changes", BREAKS, ids=lambda changes: str(changes[0].__name__))
def test_a_broken_rule_is_found(changes: tuple[Change, ...]) -> None:
    with pytest.raises(AssertionError):
        ordeals(60, *changes)


def ordeals(seeds: int, *changes: Change) -> None:
    for seed in range(seeds):
        ordeal(seed, *changes)
