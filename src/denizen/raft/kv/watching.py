"""Watches: the changes of a range from a revision on, in order, each once.

A watch is a place in the store's kept history: it reads forward from there and waits at the end. So nothing is queued
for a slow reader, and nothing can be skipped or repeated; one that falls behind what is kept is told so
(`CompactedRevision`). Only applied entries are in the history, and those never change: a watch never goes back.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable

from msgspec import Struct

from denizen.raft.kv.errors import CompactedRevision, Overloaded, Unavailable
from denizen.raft.kv.keyspace import Keyspace
from denizen.raft.kv.limits import WATCH_BATCH_EVENTS_MAX, WATCHES_MAX
from denizen.raft.kv.model import NO_END, Event
from denizen.raft.kv.sorted_keys import in_range


class WatchQuery(Struct, frozen=True):
    """What to watch; `from_revision` is the first revision of interest (0: what comes after now)."""

    key: bytes
    end: bytes = NO_END
    from_revision: int = 0
    puts: bool = True
    deletes: bool = True


class Changes(Struct, frozen=True):
    """Some events in order, whole revisions only; everything up to and with `revision` has been told."""

    revision: int
    events: list[Event]


class Watches:
    """All watches of one node. `wake` tells them that the store has changed, `close` ends them."""

    def __init__(self, keyspace: Callable[[], Keyspace]) -> None:
        self._keyspace = keyspace
        self._changed = asyncio.Event()
        self._closed = False
        self.count = 0

    def wake(self) -> None:
        if self.count:
            self._changed.set()
            self._changed = asyncio.Event()

    def close(self) -> None:
        self._closed = True
        self.wake()

    async def follow(self, query: WatchQuery, heartbeat_s: float) -> AsyncGenerator[Changes, None]:
        """Yield changes as they come, and an empty `Changes` when nothing happened for `heartbeat_s`.

        Raises `CompactedRevision` when the next revision to tell is forgotten, `Unavailable` when the node stops.
        """
        if self.count >= WATCHES_MAX:
            raise Overloaded(f"this node serves {WATCHES_MAX} watches already: use another node")
        self.count += 1
        try:
            cursor = query.from_revision or self._keyspace().revision + 1
            while not self._closed:
                changed = self._changed
                changes = self._read(query, cursor)
                if changes.revision >= cursor:
                    cursor = changes.revision + 1
                    if changes.events:
                        yield changes
                    continue
                try:
                    await asyncio.wait_for(changed.wait(), heartbeat_s)
                except TimeoutError:
                    yield Changes(cursor - 1, [])
            raise Unavailable("this node is stopping: watch at another one, from the next revision")
        finally:
            self.count -= 1

    def _read(self, query: WatchQuery, cursor: int) -> Changes:
        keyspace = self._keyspace()
        if cursor <= keyspace.compacted:
            raise CompactedRevision(
                f"revision {cursor} is forgotten: read the present, then watch from the revision after it",
                compacted_revision=keyspace.compacted,
                revision=keyspace.revision,
            )
        found: list[Event] = []
        last = cursor - 1
        for revision in range(cursor, keyspace.revision + 1):
            events = keyspace.events_of(revision)
            found += [event for event in events if _wanted(event, query)]
            last = revision
            if len(found) >= WATCH_BATCH_EVENTS_MAX:
                break
        return Changes(last, found)


def _wanted(event: Event, query: WatchQuery) -> bool:
    if not in_range(event.kv.key, query.key, query.end):
        return False
    return query.deletes if event.is_delete else query.puts
