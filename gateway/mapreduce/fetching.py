"""Fetching a reducer's part of every map's output from the workers that have it (the shuffle).

A few maps at a time, each piece by piece, into the scratch space. Who does not answer, or has not got it, is
told to the coordinator, which finds or makes it anew and names another place. What is on this worker already
is read where it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gateway.mapreduce.messages import AskPiece, Attempt, Piece, Place
from gateway.mapreduce.scratch import Scratch
from underlay.node import Address, Context

AT_A_TIME = 4
TRY_S = 5.0
"""For one piece; slow links bear 48 KiB in this time from 80 kbit/s on."""
TRIES_MAX = 3
RESETS_MAX = 5


@dataclass
class _Fetch:
    place: Place
    number: int = 0
    """Of the question that is under way; 0: none yet."""
    offset: int = 0
    tries: int = 0
    resets: int = 0


class Fetcher:
    """Of one reduce attempt.

    Args:
        own: this worker's address.
        has: whether the output of a map attempt is on this worker.
        cannot: told of a place from which nothing comes.
        number: gives a number to each question.
    """

    def __init__(
        self,
        attempt: Attempt,
        own: Address,
        scratch: Scratch,
        has: Callable[[Attempt], bool],
        cannot: Callable[[Context, Place], None],
        number: Callable[[Fetcher], int],
    ) -> None:
        self.attempt = attempt
        self.fetched_bytes = 0
        self._own = own
        self._scratch = scratch
        self._has = has
        self._cannot = cannot
        self._number = number
        self._known: dict[int, Place] = {}
        self._here: dict[int, str] = {}
        """Names of runs that are complete here, by map."""
        self._fetches: dict[int, _Fetch] = {}
        self.missing: dict[int, Place] = {}
        """Places from which nothing came, while no other is known; by map."""

    def has(self, maps: int) -> bool:
        """Whether it has its part of so many maps."""
        return len(self._here) == maps

    @property
    def runs(self) -> tuple[str, ...]:
        """The names of all runs that hold anything, in the order of the maps."""
        return tuple(self._here[task] for task in sorted(self._here) if self._here[task])

    def on_places(self, ctx: Context, places: tuple[Place, ...]) -> None:
        """More is known, or something else."""
        for place in places:
            self._known[place.task] = place
            self.missing.pop(place.task, None)
            fetch = self._fetches.get(place.task)
            if fetch is not None and fetch.place.attempt != place.attempt:
                self._abandon(ctx, fetch)
        self.go_on(ctx)

    def go_on(self, ctx: Context) -> None:
        """Fetch what can be fetched."""
        for task in sorted(self._known):
            place = self._known[task]
            if task in self._here or task in self._fetches:
                continue
            if place.size_bytes == 0:
                self._here[task] = ""
            elif place.worker == self._own and self._has(place.attempt):
                self._here[task] = f"{place.attempt}.{self.attempt.task}"
            elif place.worker == self._own:
                self._give_up(ctx, _Fetch(place))
                return
            elif len(self._fetches) < AT_A_TIME:
                fetch = self._fetches[task] = _Fetch(place)
                self._scratch.remove(self._name(task))
                self._ask(ctx, fetch)

    def forget(self, ctx: Context, attempt: Attempt) -> None:
        """The output of a map attempt that was read where it is, on this worker, is no more."""
        if self._here.get(attempt.task, "").startswith(f"{attempt}."):
            del self._here[attempt.task]
            self.go_on(ctx)

    def on_piece(self, ctx: Context, piece: Piece) -> None:
        """An answer, perhaps to what was given up."""
        fetch = next((each for each in self._fetches.values() if each.number == piece.number), None)
        if fetch is None:
            return
        ctx.cancel_timer(("piece", fetch.number))
        task = fetch.place.task
        if piece.size_bytes < 0:
            self._give_up(ctx, fetch)
            return
        fetch.tries = fetch.resets = 0
        self._scratch.append(self._name(task), piece.data)
        fetch.offset += len(piece.data)
        self.fetched_bytes += len(piece.data)
        if fetch.offset < piece.size_bytes:
            self._ask(ctx, fetch)
        else:
            del self._fetches[task]
            self._here[task] = self._name(task)
            self.go_on(ctx)

    def on_silence(self, ctx: Context, number: int) -> None:
        """A question took too long."""
        fetch = next((each for each in self._fetches.values() if each.number == number), None)
        if fetch is None:
            return
        fetch.tries += 1
        ctx.give_up(fetch.place.worker)
        if fetch.tries == TRIES_MAX:
            self._give_up(ctx, fetch)
        else:
            self._ask(ctx, fetch)

    def on_peer_down(self, ctx: Context, peer: Address) -> None:
        """What was asked of it may not be answered: it is asked again. One that was restarted ends the first
        connection to it."""
        for fetch in [each for each in self._fetches.values() if each.place.worker == peer]:
            ctx.cancel_timer(("piece", fetch.number))
            fetch.resets += 1
            if fetch.resets == RESETS_MAX:
                self._give_up(ctx, fetch)
            else:
                self._ask(ctx, fetch)

    def stop(self, ctx: Context) -> None:
        """Nothing of it is wanted."""
        for fetch in self._fetches.values():
            ctx.cancel_timer(("piece", fetch.number))
        self._fetches.clear()

    def _ask(self, ctx: Context, fetch: _Fetch) -> None:
        fetch.number = self._number(self)
        question = AskPiece(fetch.number, fetch.place.attempt, self.attempt.task, fetch.offset)
        ctx.send(fetch.place.worker, question)
        ctx.set_timer(("piece", fetch.number), TRY_S)

    def _give_up(self, ctx: Context, fetch: _Fetch) -> None:
        self._known.pop(fetch.place.task, None)
        self.missing[fetch.place.task] = fetch.place
        self._abandon(ctx, fetch)
        self._cannot(ctx, fetch.place)
        self.go_on(ctx)

    def _abandon(self, ctx: Context, fetch: _Fetch) -> None:
        ctx.cancel_timer(("piece", fetch.number))
        self._fetches.pop(fetch.place.task, None)
        self._scratch.remove(self._name(fetch.place.task))

    def _name(self, task: int) -> str:
        return f"{self.attempt}.in.{task:06d}."
