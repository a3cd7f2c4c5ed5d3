"""Requests that wait for a bucket on the move: held writes, and reads whose shard has given the bucket away.

    a new map ──────▶ wakes whoever waits for a bucket that it places anew, at once
    a look, at times ▶ one question to each shard about all buckets waited for: who serves them now?

The look is for gateways that the control plane does not reach, or not soon: the shards know who serves a bucket, and
correct a map that is behind. However many requests wait, there is one look at a time. How many may wait is bounded.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import NamedTuple

from denizen import limits
from denizen.errors import Overloaded
from denizen.sharding.ids import Bucket, Epoch, ShardId


class Place(NamedTuple):
    """Where a bucket is served."""

    shard: ShardId
    epoch: Epoch


Look = Callable[[Collection[Bucket]], Awaitable[Mapping[Bucket, Place]]]


class Holds:
    """Everything that waits in one router. Owns the task that looks."""

    def __init__(self, look: Look) -> None:
        """`look` asks the shards who serves these buckets, and says so for those that somebody does."""
        self._look = look
        self._waiting: dict[Bucket, asyncio.Future[None]] = {}
        self._count = 0
        self._looking: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return self._count

    async def wait(self, bucket: Bucket, deadline: float) -> None:
        """Return when there is news of the bucket, or at the deadline. `Overloaded` if too many wait already."""
        if self._count >= limits.held_requests_max:
            raise Overloaded("too many requests wait for buckets that move; slow down and try again")
        loop = asyncio.get_running_loop()
        future = self._waiting.get(bucket)
        if future is None:
            future = self._waiting[bucket] = loop.create_future()
        if self._looking is None or self._looking.done():
            self._looking = loop.create_task(self._keep_looking())
        self._count += 1
        try:
            async with asyncio.timeout_at(deadline):
                await asyncio.shield(future)
        except TimeoutError:
            return
        finally:
            self._count -= 1

    def wake(self, buckets: Collection[Bucket]) -> None:
        """There is news of these buckets."""
        for bucket in buckets if len(buckets) < len(self._waiting) else list(self._waiting):
            if bucket in self._waiting and bucket in buckets:
                self._waiting.pop(bucket).set_result(None)

    async def stop(self) -> None:
        """Let everybody go."""
        self.wake(set(self._waiting))
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)

    async def _keep_looking(self) -> None:
        """Look again and again, for as long as anybody waits; less often as time goes by."""
        pause = limits.hold_look_s_min
        while self._count:
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, limits.hold_look_s_max)
            if self._waiting:
                self.wake((await self._look(set(self._waiting))).keys())
            if not self._count:
                self._waiting.clear()
