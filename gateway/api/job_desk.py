"""The desk for jobs: how the HTTP door's coroutines ask the coordinator and wait for what it says."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

from gateway.api.desk import Refused, Waiting
from gateway.mapreduce.job import JobSource
from gateway.mapreduce.messages import (
    AskJobs,
    AskOne,
    AskPlan,
    AskRows,
    JobState,
    JobsTold,
    JobTold,
    PlanTold,
    RowsTold,
    SplitPlan,
    Stop,
    Submit,
)
from underlay.messages import Message


class JobDesk(Waiting):
    """One door's.

    Args:
        say: hands a message to the coordinator's node, if there is one.
    """

    def __init__(self, say: Callable[[Message], None]) -> None:
        super().__init__()
        self._say = say

    async def submit(self, source: JobSource, paths: tuple[str, ...]) -> JobState:
        """Have a job run; raises Refused with what is wrong with it."""
        number, future = self._open()
        self._say(Submit(number, source, paths))
        return _state(await self._wait(number, future))

    async def jobs(self) -> JobsTold:
        """All that are known, newest first, and the workers."""
        number, future = self._open()
        self._say(AskJobs(number))
        told: JobsTold = await self._wait(number, future)
        return told

    async def job(self, id_: str) -> JobState:
        """One with its tasks; raises Refused if there is none of that name."""
        number, future = self._open()
        self._say(AskOne(number, id_))
        return _state(await self._wait(number, future))

    async def cancel(self, id_: str) -> JobState:
        """Stop one, if it has not ended; as `job`."""
        number, future = self._open()
        self._say(Stop(number, id_))
        return _state(await self._wait(number, future))

    async def plan(self, slots: tuple[tuple[int, int], ...]) -> tuple[SplitPlan, ...]:
        """How a job over these slots would be split; raises Refused."""
        number, future = self._open()
        self._say(AskPlan(number, slots))
        told: PlanTold = await self._wait(number, future)
        if told.problem:
            raise Refused(told.problem)
        return told.splits

    async def part(self, state: JobState, part: int) -> AsyncIterator[bytes]:
        """A part of a finished job's result, chunk by chunk; raises Refused."""
        for chunk in range(state.chunks[part]):
            number, future = self._open()
            self._say(AskRows(number, state.id, part, chunk))
            told: RowsTold = await self._wait(number, future)
            if told.problem:
                raise Refused(told.problem)
            yield told.data

    def hear(self, message: Message) -> None:
        """The node said something."""
        if isinstance(message, JobTold | JobsTold | RowsTold | PlanTold):
            self._close(message.number, message)


def _state(told: JobTold) -> JobState:
    if told.state is None:
        raise Refused(told.problem)
    return told.state
