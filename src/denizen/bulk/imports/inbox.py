"""What the parent sends to a worker: windows, some ahead, and at last that it is enough."""

import asyncio
from types import TracebackType

from denizen.bulk.imports.messages import Enough, Window, decode_for_worker
from denizen.processes.frames import read_frame


class Inbox:
    """Reads the parent's messages while it is open; windows wait here. `enough`: no other window is to be begun."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self.enough = False
        self._reader = reader
        self._windows: asyncio.Queue[Window | None] = asyncio.Queue()
        self._reading: asyncio.Task[None] | None = None

    async def __aenter__(self) -> None:
        self._reading = asyncio.create_task(self._read())

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)

    async def next(self) -> Window | None:
        """The next window, waited for; None when no more come."""
        window = await self._windows.get()
        if window is None:
            self._windows.put_nowait(None)
        return window

    def at_hand(self) -> Window | None:
        """The next window if it is here already."""
        if self._windows.empty():
            return None
        window = self._windows.get_nowait()
        if window is None:
            self._windows.put_nowait(None)
        return window

    async def _read(self) -> None:
        try:
            while (content := await read_frame(self._reader)) is not None:
                message = decode_for_worker(content)
                if isinstance(message, Window):
                    self._windows.put_nowait(message)
                elif isinstance(message, Enough):
                    self.enough = True
        finally:
            self._windows.put_nowait(None)
