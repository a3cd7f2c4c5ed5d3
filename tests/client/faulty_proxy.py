"""A proxy that breaks connections: before the request reaches the server, or after, so that only the reply is lost."""

import asyncio
from contextlib import suppress
from enum import Enum


class Fault(Enum):
    """What happens to one request."""

    BEFORE = "the connection breaks before the request reaches the server"
    AFTER = "the server gets the request, and its reply is lost"
    UNAVAILABLE = "somebody on the way answers 503"


REFUSAL = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 5\r\nConnection: close\r\n\r\nsorry"


class FaultyProxy:
    """Each request takes the next of `faults`, if there is one."""

    def __init__(self, host: str, port: int) -> None:
        self.faults: list[Fault] = []
        self.requests: list[bytes] = []
        self.url = ""
        self._host = host
        self._port = port

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            while request := await _message(reader):
                self.requests.append(request)
                fault = self.faults.pop(0) if self.faults else None
                if fault is Fault.BEFORE:
                    break
                if fault is Fault.UNAVAILABLE:
                    writer.write(REFUSAL)
                    break
                reply = await self._forward(request)
                if fault is Fault.AFTER:
                    break
                writer.write(reply)
                await writer.drain()
        writer.close()

    async def _forward(self, request: bytes) -> bytes:
        reader, writer = await asyncio.open_connection(self._host, self._port)
        writer.write(request)
        reply = await _message(reader)
        writer.close()
        return reply


async def _message(reader: asyncio.StreamReader) -> bytes:
    """One whole message with a declared length; nothing at the end of the connection."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return b""
    lengths = [line.split(b":")[1] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    return head + await reader.readexactly(int(lengths[0]) if lengths else 0)
