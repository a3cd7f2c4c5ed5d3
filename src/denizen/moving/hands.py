"""The worker processes of a mover: started when a copy wants one, kept for the next, a bounded number of them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from denizen.errors import DenizenError, Unavailable
from denizen.moving.errors import BY_CODE, MoveRefused, WorkerLost
from denizen.moving.messages import Plan, SliceDone, SliceFailed, SliceTask, decode_for_mover
from denizen.processes.frames import Hand, WorkerFailedError

_MODULE: Final = "denizen.moving.worker"


class Hands:
    """Gives slices to whichever worker is free."""

    def __init__(self, plan: Plan, workers_max: int) -> None:
        self._plan = plan
        self._workers_max = workers_max
        self._places = asyncio.Semaphore(workers_max)
        self._idle: list[Hand] = []
        self._busy: set[Hand] = set()

    async def copy(self, task: SliceTask) -> SliceDone:
        """Have a slice copied. `WorkerLost` if its process ended; else errors as the worker met them."""
        async with self._hand() as hand:
            answer = await hand.ask(task)
        if isinstance(answer, SliceDone):
            return answer
        if isinstance(answer, SliceFailed):
            raise _error_of(answer)
        raise WorkerLost("a copying process gave an answer that is none")

    async def warm(self) -> None:
        """Start as many workers as there may be."""
        missing = self._workers_max - len(self._idle) - len(self._busy)
        self._idle += await asyncio.gather(*(self._start() for _ in range(missing)))

    async def close(self) -> None:
        """End every worker."""
        hands, self._idle = [*self._idle, *self._busy], []
        for hand in self._busy:
            hand.kill()
        await asyncio.gather(*(hand.stop() for hand in hands))

    @asynccontextmanager
    async def _hand(self) -> AsyncIterator[Hand]:
        async with self._places:
            hand = self._idle.pop() if self._idle else await self._start()
            self._busy.add(hand)
            try:
                yield hand
            except BaseException as error:  # it is in the middle of something, or gone
                hand.kill()
                await asyncio.shield(hand.stop())
                if isinstance(error, WorkerFailedError):
                    raise WorkerLost(error.detail) from error
                raise
            else:
                self._idle.append(hand)
            finally:
                self._busy.discard(hand)

    async def _start(self) -> Hand:
        hand = await Hand.start(_MODULE, decode_for_mover)
        try:
            await hand.ask(self._plan)
        except BaseException as error:
            hand.kill()
            await asyncio.shield(hand.stop())
            if isinstance(error, WorkerFailedError):
                raise WorkerLost(error.detail) from error
            raise
        return hand


def _error_of(failed: SliceFailed) -> DenizenError:
    kind = Unavailable if failed.code == Unavailable.code else BY_CODE.get(failed.code, MoveRefused)
    return kind(failed.detail)
