"""The worker processes of an import, as the parent has them. Whatever happens, none is left behind."""

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

import denizen
from denizen import limits
from denizen.bulk.imports.messages import (
    FromWorker,
    Plan,
    Ready,
    Report,
    ToWorker,
    Trouble,
    Window,
    decode_for_parent,
    frame,
    read_frame,
)
from denizen.errors import BadDeployment, DenizenError


class WorkerFailedError(DenizenError):
    """A worker could not go on; what was reported before is durable, and the import can be resumed."""

    code, status, title, retryable = "import_stopped", 503, "Import stopped", True


class Hand:
    """One worker process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def start(cls, inherited: Sequence[int]) -> "Hand":
        """Start the process; it inherits these handles."""
        source = str(Path(denizen.__file__).parent.parent)
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",
            "-m",
            "denizen.bulk.imports.worker",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            pass_fds=inherited,
            start_new_session=True,
            limit=limits.import_frame_bytes_max,
            cwd=source if Path(source).is_dir() else None,
        )
        return cls(process)

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    async def plan(self, plan: Plan) -> None:
        """Tell it the plan and wait until it is ready. Raises `BadDeployment`."""
        try:
            await self._ask(plan)
        except WorkerFailedError as error:
            raise BadDeployment(error.detail) from error

    async def work(self, window: Window) -> Report:
        """Have a window done. Raises `WorkerFailedError`."""
        answer = await self._ask(window)
        if not isinstance(answer, Report):
            raise WorkerFailedError(f"a worker answered {type(answer).__name__}")
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

    async def _ask(self, message: ToWorker) -> FromWorker:
        stdin, stdout = self._process.stdin, self._process.stdout
        if stdin is None or stdout is None:
            raise WorkerFailedError("a worker has no pipes")
        try:
            stdin.write(frame(message))
            await stdin.drain()
        except ConnectionError:
            pass  # it says why, or it is dead
        content = await read_frame(stdout)
        if content is None:
            code = await self._process.wait()
            raise WorkerFailedError(f"a worker process ended unexpectedly (exit code {code})")
        answer = decode_for_parent(content)
        if isinstance(answer, Trouble):
            raise WorkerFailedError(answer.detail)
        return answer


async def start_crew(size: int, plan: Plan, inherited: Sequence[int]) -> list[Hand]:
    """Start so many workers and wait until all are ready; if one fails, none is left."""
    hands = [await Hand.start(inherited) for _ in range(size)]
    results = await asyncio.gather(*(hand.plan(plan) for hand in hands), return_exceptions=True)
    failures = [result for result in results if isinstance(result, BaseException)]
    if failures:
        await asyncio.gather(*(hand.stop() for hand in hands))
        raise failures[0]
    return hands


__all__ = ["Hand", "Ready", "WorkerFailedError", "start_crew"]
