"""Passwords off the loop: a few threads, a bounded queue, and 429 when it is full.

A hash or a verification costs tens of milliseconds and tens of megabytes by design. The loop must never pay that, and
a crowd of logins must not pile up minutes of work: beyond `password_jobs_max` a request is shed at once.

A verification takes the same time whether or not the user exists: without a hash to compare it is done against a dummy
of ours. (A hash imported from another system has that system's cost until its first right password upgrades it.)
"""

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from denizen.errors import RateLimited
from denizen.limits import password_jobs_max
from denizen.users.passwords import Verdict, hash_password, verify_password

T = TypeVar("T")


class PasswordPool:
    """Hashes and verifies in threads of its own. `start` before use, `stop` at the end."""

    def __init__(self, threads: int | None = None, jobs_max: int = password_jobs_max) -> None:
        self._threads = threads or max(1, (os.cpu_count() or 1) - 1)
        self._jobs_max = jobs_max
        self._executor: ThreadPoolExecutor | None = None
        self._dummy = ""
        self.jobs = 0

    async def start(self) -> None:
        """Start the threads, and make the dummy hash."""
        self._executor = ThreadPoolExecutor(self._threads, thread_name_prefix="passwords")
        self._dummy = await self.hash("nobody has this password")

    def stop(self) -> None:
        """Wait for what is under way and end the threads."""
        if self._executor is not None:
            self._executor.shutdown(wait=True, cancel_futures=True)
            self._executor = None

    async def hash(self, password: str) -> str:
        """The argon2id hash of a password; `RateLimited` if too many are waiting."""
        return await self._run(lambda: hash_password(password))

    async def verify(self, password_hash: str | None, password: str) -> Verdict:
        """Whether the password has this hash; against no hash, no, after the same time. `RateLimited` as above."""
        verdict = await self._run(lambda: verify_password(password_hash or self._dummy, password))
        return verdict if password_hash else Verdict(ok=False, upgrade=False)

    async def _run(self, work: Callable[[], T]) -> T:
        if self._executor is None:
            raise RuntimeError("the password pool is not running")
        if self.jobs >= self._jobs_max:
            raise RateLimited("too many passwords are being hashed at the moment", retry_after_s=1)
        self.jobs += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, work)
        finally:
            self.jobs -= 1
