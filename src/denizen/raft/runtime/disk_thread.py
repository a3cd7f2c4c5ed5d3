"""The two threads that block on the disk so that the event loop does not.

`LogWriter` makes the core's writes durable: whatever has queued up while the last fsync ran is written together and
shares the next one. `Worker` does the slow work on snapshots, so that it never delays the log. Both report on the event
loop; after an error neither does anything more.
"""

import asyncio
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any

from denizen.raft.effects import Write
from denizen.raft.snapshot_store import SnapshotStore
from denizen.raft.types import Entry, HardState
from denizen.raft.wal import Base, DurableLog


class Worker:
    """A thread that runs pieces of work in order. `done(result)` is called on the loop, `failed(error)` likewise."""

    def __init__(self, name: str, failed: Callable[[BaseException], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._failed = failed
        self._queue: SimpleQueue[tuple[Callable[[], Any], Callable[[Any], None]] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, work: Callable[[], Any], done: Callable[[Any], None]) -> None:
        """Run `work` in the thread."""
        self._queue.put((work, done))

    async def stop(self) -> None:
        """Finish what is queued and end the thread."""
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            work, done = item
            try:
                result = work()
            except BaseException as error:  # noqa: BLE001 - handed to the loop, which stops the node
                self._loop.call_soon_threadsafe(self._failed, error)
                return
            self._loop.call_soon_threadsafe(done, result)


class LogWriter:
    """The thread that makes writes durable, in order."""

    def __init__(
        self,
        log: DurableLog,
        store: SnapshotStore,
        persisted: Callable[[int], None],
        failed: Callable[[BaseException], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._log, self._store = log, store
        self._persisted, self._failed = persisted, failed
        self._queue: SimpleQueue[Write | int | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="raft log", daemon=True)
        self._thread.start()

    def write(self, write: Write) -> None:
        """Make it durable, then call `persisted` with its number (or that of a later one done together with it)."""
        self._queue.put(write)

    def compact(self, index: int) -> None:
        """Delete the segments that hold nothing above `index` and above what the kept snapshots need."""
        self._queue.put(index)

    async def stop(self) -> None:
        """Finish what is queued and end the thread."""
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        try:
            while (item := self._queue.get()) is not None:
                items: list[Write | int | None] = [item]
                try:
                    while len(items) < 64 and items[-1] is not None:
                        items.append(self._queue.get_nowait())
                except Empty:
                    pass
                self._carry_out(items)
                if items[-1] is None:
                    return
        except BaseException as error:  # noqa: BLE001 - handed to the loop, which stops the node
            self._loop.call_soon_threadsafe(self._failed, error)

    def _carry_out(self, items: list[Write | int | None]) -> None:
        hard_state: HardState | None = None
        entries: list[Entry] = []
        number = 0
        for item in items:
            if isinstance(item, Write):
                if item.snapshot is not None:
                    self._save(number, hard_state, entries)
                    self._store.adopt(item.snapshot)
                    base = Base(item.snapshot.index, item.snapshot.term, item.keep_log)
                    self._log.save(item.hard_state, item.entries, base)
                    hard_state, entries = None, []
                else:
                    hard_state = item.hard_state or hard_state
                    entries = [*entries, *item.entries] if entries else item.entries
                number = item.number
            elif item is not None:
                oldest = min(self._store.indexes(), default=0)
                self._log.compact(min(item, oldest))
        self._save(number, hard_state, entries)
        if number:
            self._loop.call_soon_threadsafe(self._persisted, number)

    def _save(self, number: int, hard_state: HardState | None, entries: list[Entry]) -> None:
        if number and (hard_state is not None or entries):
            self._log.save(hard_state, entries)
