"""The desk: how a door's coroutines ask the gateway's node and wait for what it says.

Owns the numbers of what is under way, and the patience. The node is reached through the door's binding host;
nothing here knows which protocol the door speaks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from edge.observation import Observation
from gateway.messages import Answer, AnyQuestion, Ask, Judged, Offered, Unreadable, Verdict
from underlay.messages import Message

PATIENCE_S = 15.0
"""Longer than the node's own for what it asks of others."""
UNDER_WAY_MAX = 512


class Unanswered(Exception):
    """No answer: too much is under way, or the node is not up; a sentence for the client."""


class Refused(Exception):
    """The node answered that it cannot tell; a sentence for the client."""


class Waiting:
    """Questions under way, by number."""

    def __init__(self) -> None:
        self._number = 0
        self._waiting: dict[int, asyncio.Future[Any]] = {}

    def _open(self) -> tuple[int, asyncio.Future[Any]]:
        if len(self._waiting) >= UNDER_WAY_MAX:
            raise Unanswered("too many requests are under way")
        self._number += 1
        future = self._waiting[self._number] = asyncio.get_running_loop().create_future()
        return self._number, future

    async def _wait(self, number: int, future: asyncio.Future[Any]) -> Any:
        try:
            return await asyncio.wait_for(future, PATIENCE_S)
        except TimeoutError as error:
            raise Unanswered("the gateway does not answer") from error
        finally:
            self._waiting.pop(number, None)

    def _close(self, number: int, result: object) -> None:
        future = self._waiting.get(number)
        if future is not None and not future.done():
            future.set_result(result)


class Desk(Waiting):
    """One door's.

    Args:
        say: hands a message to the gateway's node.
        door: the door's name in the node's counters.
        now: the device's clock, seconds.
    """

    def __init__(self, say: Callable[[Message], None], door: str, now: Callable[[], float]) -> None:
        super().__init__()
        self.now = now
        self._say = say
        self._door = door

    async def offer(self, observations: Sequence[Observation]) -> tuple[Verdict, ...]:
        """One verdict for each, once all are durable or refused."""
        number, future = self._open()
        self._say(Offered(number, self._door, tuple(observations)))
        verdicts: tuple[Verdict, ...] = await self._wait(number, future)
        return verdicts

    async def ask(self, question: AnyQuestion) -> Any:
        """What the question's docstring says; raises Refused with the node's problem."""
        number, future = self._open()
        self._say(Ask(number, question))
        answer: Answer = await self._wait(number, future)
        if answer.problem:
            raise Refused(answer.problem)
        return answer.body

    def unreadable(self, sender: str, reason: str, sample: bytes) -> None:
        """Something came that is no observation."""
        self._say(Unreadable(self._door, sender, reason, sample[:1024]))

    def hear(self, message: Message) -> None:
        """The node said something."""
        match message:
            case Judged(token, verdicts):
                self._close(token, verdicts)
            case Answer(token):
                self._close(token, message)
