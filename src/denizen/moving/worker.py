"""A worker process of a mover: copies slices, so that folding never holds up the process that decides."""

import gc
import os
from collections.abc import Mapping
from typing import Any

import asyncpg
import msgspec

from denizen import limits
from denizen.errors import DenizenError
from denizen.events.keyring import Keyring
from denizen.events.sealing import use
from denizen.moving.messages import Plan, Ready, SliceDone, SliceFailed, SliceTask, decode_for_worker
from denizen.moving.servers import meaning, open_connection
from denizen.moving.slices import Slicer
from denizen.processes.frames import Trouble, pipes, read_frame
from denizen.processes.parenthood import run_worker
from denizen.sharding.ids import ShardId
from denizen.sharding.names_of import LoginNamesOf
from denizen.users.login_names import LoginNameKind


class Worker:
    """One connection to each server that it was sent to, and the fold."""

    def __init__(self, plan: Plan) -> None:
        use(Keyring.of(plan.keyring))
        kinds = frozenset(LoginNameKind(kind) for kind in plan.kinds)
        self._slicer = Slicer(LoginNamesOf(plan.hash_seed, kinds))
        self._connections: dict[bytes, asyncpg.Connection] = {}

    async def copy(self, task: SliceTask) -> SliceDone | SliceFailed:
        """Copy a slice; after a failure, connections are made anew."""
        try:
            source = await self._connection(task.move.source, task.source)
            target = await self._connection(task.move.target, task.target)
            return await self._slicer.copy(source, target, task.move, task.events_max, tell=task.tell)
        except DenizenError as error:
            self.drop()
            return SliceFailed(error.code, error.detail)

    def drop(self) -> None:
        """Give every connection up; what they had begun is undone."""
        for connection in self._connections.values():
            connection.terminate()
        self._connections.clear()

    async def _connection(self, shard: ShardId, arguments: Mapping[str, Any]) -> asyncpg.Connection:
        place = msgspec.msgpack.encode(arguments)
        known = self._connections.get(place)
        if known is None or known.is_closed():
            with meaning(shard):
                known = self._connections[place] = await open_connection(arguments, durable=False)
        return known


async def serve() -> None:
    """Work until the parent closes the pipe."""
    reader, send = await pipes()
    first = await read_frame(reader)
    if first is None:
        return
    plan = decode_for_worker(first)
    if not isinstance(plan, Plan):
        raise TypeError("the first message is the plan")
    worker = Worker(plan)
    send(Ready())
    try:
        while (content := await read_frame(reader)) is not None:
            task = decode_for_worker(content)
            if isinstance(task, SliceTask):
                send(await worker.copy(task))
                gc.collect(0)
    except Exception as error:
        send(Trouble("move_worker_lost", f"{type(error).__name__}: {error}"))
        raise
    finally:
        worker.drop()


def main() -> None:
    """The process. It gives way to those that serve."""
    os.nice(limits.move_worker_niceness)
    gc.disable()  # rows have no cycles; what else there is, is collected between slices
    run_worker(serve)


if __name__ == "__main__":
    main()
