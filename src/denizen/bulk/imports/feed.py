"""Reading and cutting in a thread of its own, so that a slow pipe or a busy disk never holds up the parent's loop."""

import asyncio
import threading
from collections.abc import Iterator

from denizen.bulk.imports.windows import Cut


class Feed:
    """Windows that are not done yet, a few ahead. `next` gives None at the end, or when a stop was asked for."""

    def __init__(self, cuts: Iterator[Cut], done: frozenset[int], ahead: int, stopping: asyncio.Event) -> None:
        self.exhausted = False
        self._cuts = cuts
        self._done = done
        self._stopping = stopping
        self._queue: asyncio.Queue[Cut | BaseException | None] = asyncio.Queue(ahead)
        self._loop = asyncio.get_running_loop()
        threading.Thread(target=self._read, daemon=True, name="import-reader").start()

    async def next(self) -> Cut | None:
        """The next window to be done. Raises what the reading raised."""
        if self._stopping.is_set():
            return None
        getting = asyncio.ensure_future(self._queue.get())
        stopped = asyncio.ensure_future(self._stopping.wait())
        await asyncio.wait({getting, stopped}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if not getting.done():
            getting.cancel()
            return None
        found = getting.result()
        if found is None:
            self.exhausted = True
            self._queue.put_nowait(None)  # for the other workers
        elif isinstance(found, BaseException):
            raise found
        return found

    def _read(self) -> None:
        try:
            for piece in self._cuts:
                if self._stopping.is_set():
                    return
                if piece.window.first_line not in self._done:
                    self._put(piece)
            self._put(None)
        except (RuntimeError, asyncio.CancelledError):
            return  # the loop is closed: nobody waits any more
        except BaseException as error:  # noqa: BLE001  it is raised where the windows are asked for
            self._put(error)

    def _put(self, item: Cut | BaseException | None) -> None:
        asyncio.run_coroutine_threadsafe(self._queue.put(item), self._loop).result()
