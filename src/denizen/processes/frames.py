"""Frames of MessagePack over pipes between a parent and its worker processes: four bytes of length before each."""

import asyncio
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import msgspec

import denizen
from denizen import limits
from denizen.errors import DenizenError

_encode: Final = msgspec.msgpack.Encoder().encode


class WorkerFailedError(DenizenError):
    """A worker process could not go on; what was reported before stands."""

    code, status, title, retryable = "worker_failed", 503, "Stopped", True


class Trouble(msgspec.Struct, frozen=True, tag="trouble"):
    """From a worker, its last word: why it cannot go on."""

    code: str
    detail: str


def frame(message: Any) -> bytes:
    """The message as it goes over the pipe."""
    content = _encode(message)
    return len(content).to_bytes(4, "big") + content


async def read_frame(reader: asyncio.StreamReader) -> bytes | None:
    """The next frame's content, None at the end of the pipe."""
    try:
        size = int.from_bytes(await reader.readexactly(4), "big")
        if size > limits.bulk_frame_bytes_max:
            raise ValueError(f"a frame of {size} bytes")
        return await reader.readexactly(size)
    except (asyncio.IncompleteReadError, ConnectionError):
        return None


async def pipes() -> tuple[asyncio.StreamReader, Callable[[Any], None]]:
    """In a worker: where the parent's messages come from, and how to answer."""
    reader = asyncio.StreamReader(limit=1 << 20)
    protocol = asyncio.StreamReaderProtocol(reader)
    await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, os.fdopen(0, "rb", buffering=0))
    output = os.fdopen(os.dup(1), "wb")

    def send(message: Any) -> None:
        output.write(frame(message))
        output.flush()

    return reader, send


class Hand:
    """One worker process, as its parent has it; `decode` reads its answers."""

    def __init__(self, process: asyncio.subprocess.Process, decode: Callable[[bytes], Any]) -> None:
        self._process = process
        self._decode = decode
        self._answers = asyncio.Lock()

    @classmethod
    async def start(cls, module: str, decode: Callable[[bytes], Any], inherited: Sequence[int] = ()) -> "Hand":
        """Start `python -m module`; it inherits these handles and no signal of the terminal."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",
            "-m",
            module,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            pass_fds=inherited,
            start_new_session=True,
            limit=limits.bulk_frame_bytes_max,
            env={**os.environ, "PYTHONPATH": _SOURCE},
        )
        return cls(process, decode)

    def tell(self, message: Any) -> None:
        """Send a message that is not answered."""
        if self._process.stdin is None:
            raise WorkerFailedError("a worker has no pipes")
        self._process.stdin.write(frame(message))

    async def ask(self, message: Any) -> Any:
        """Send a message and wait for the answer. Raises `WorkerFailedError`.

        Several may be asked at once; a worker answers in the order of the questions.
        """
        self.tell(message)
        async with self._answers:  # whoever asks first, waits first
            return await self._answer()

    async def _answer(self) -> Any:
        stdin, stdout = self._process.stdin, self._process.stdout
        if stdin is None or stdout is None:
            raise WorkerFailedError("a worker has no pipes")
        with suppress(ConnectionError):  # it says why below, or it is dead
            await stdin.drain()
        content = await read_frame(stdout)
        if content is None:
            code = await self._process.wait()
            raise WorkerFailedError(f"a worker process ended unexpectedly (exit code {code})")
        answer = self._decode(content)
        if isinstance(answer, Trouble):
            raise WorkerFailedError(answer.detail)
        return answer

    async def stop(self) -> None:
        """End it in order: it is idle, or broken."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            await asyncio.wait_for(self._process.wait(), limits.close_deadline_s * 2)
        except TimeoutError:
            self.kill()
            await self._process.wait()

    def kill(self) -> None:
        """End it at once; its open transactions are undone."""
        if self._process.returncode is None:
            self._process.kill()


async def start_hands(
    count: int, module: str, decode: Callable[[bytes], Any], plan: Any, inherited: Sequence[int] = ()
) -> list[Hand]:
    """Start so many workers, tell each the plan, and wait until all have answered; if one fails, none is left."""
    hands = [await Hand.start(module, decode, inherited) for _ in range(count)]
    results = await asyncio.gather(*(hand.ask(plan) for hand in hands), return_exceptions=True)
    failures = [result for result in results if isinstance(result, BaseException)]
    if failures:
        await asyncio.gather(*(hand.stop() for hand in hands))
        raise failures[0]
    return hands


def first_cause(error: BaseException) -> BaseException:
    """The first exception inside groups of them."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


_SOURCE: Final = os.pathsep.join(
    part for part in (str(Path(denizen.__file__).parent.parent), os.environ.get("PYTHONPATH", "")) if part
)
