"""Everything that clients do with a deployment, at once, and the proof afterwards that nothing of it went wrong.

To the lives of accounts of `Ledger` come reads by id and by login name right behind each write, batches, deletions, and
imports beside, each a real `denizen import`. Reads must give what was acknowledged last: what they find instead is kept
in `wrong`. With `verdict` everything is compared in the end.
"""

import asyncio
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiohttp
from msgspec import Struct

from denizen.testing.ledger import Account, Fields, Ledger

BATCH_USERS = 20
IMPORT_PEOPLE = 400


class Verdict(Struct, frozen=True):
    """What became of the load. `problems` says in words everything that is not as promised."""

    acknowledged: int
    reads: int
    batches: int
    imported: int
    problems: list[str]

    @property
    def clean(self) -> bool:
        """Whether every promise held."""
        return not self.problems


class MixedLoad(Ledger):
    """Clients that never leave an outcome open, and must never be refused nor meet an error."""

    def __init__(self, url: str, key: str, *, seed: int = 1, batches: float = 0.05, pause_s: float = 0.0) -> None:
        """`pause_s`: how long each client thinks after a write, so that the load is steady and not all there can be."""
        super().__init__(url, key, seed=seed, abandon=0.0)
        self._batch_chance = batches
        self._pause_s = pause_s
        self.reads = 0
        self.batches = 0
        self.imported: list[str] = []
        self.wrong: list[str] = []

    async def _turn(self, session: aiohttp.ClientSession, until: Callable[[], bool]) -> None:
        if self._random.random() < self._batch_chance:
            await self._batch(session)
        else:
            await super()._turn(session, until)

    async def _after_write(self, session: aiohttp.ClientSession, account: Account) -> None:
        """Read by id, and by one of the login names: both must show what was acknowledged."""
        certain = account.certain or {}
        kind = self._random.choice([kind for kind in ("email", "username") if certain.get(kind)])
        for path in (f"/v1/users/{account.id}", f"/v1/login-names/{kind}/{certain[kind]}"):
            status, reply = await self._ask(session, "GET", path)
            self.reads += 1
            if status == 0 or status >= 500:
                continue  # counted as an error
            shown = {field: (reply or {}).get(field) for field in certain}
            if status != 200 or shown != certain:
                self.wrong.append(f"{path} answered {status} {shown} after {certain} was acknowledged")

        if self._pause_s:
            await asyncio.sleep(self._pause_s * (0.5 + self._random.random()))

    async def _batch(self, session: aiohttp.ClientSession) -> None:
        """Sign up many at once, under one key, and read them together."""
        accounts = [self._new_account() for _ in range(BATCH_USERS)]
        users: list[Fields] = []
        for account in accounts:
            users.append(self._names(account, 0) | {"display_name": f"Account {account.number}"})
            account.open, account.has_open = users[-1], True
        headers, missing = {"Idempotency-Key": uuid4().hex}, True
        while missing:
            status, reply = await self._ask(session, "POST", "/v1/users:batch", {"users": users}, headers)
            results = reply["results"] if status == 200 else []
            for result in results:
                if result["status"] >= 500:
                    self._count(self.errors, f"batch {result['status']} {result['problem']['code']}")
            missing = not results or any(result["status"] >= 500 for result in results)
            if missing:
                self.repeated += 1
                await asyncio.sleep(0.05)
        for account, user, result in zip(accounts, users, results, strict=True):
            self._settle(account, user, result)
        self.batches += 1
        await self._read_batch(session, [account for account in accounts if account.id is not None])

    def _settle(self, account: Account, user: Fields, result: dict[str, Any]) -> None:
        account.open, account.has_open = None, False
        if result["status"] == 201:
            account.id, account.certain = result["user"]["id"], user
            self.acknowledged += 1
        else:
            self._count(self.refused, f"batch {result['status']} {result['problem']['code']}")

    async def _read_batch(self, session: aiohttp.ClientSession, accounts: list[Account]) -> None:
        body = {"ids": [account.id for account in accounts]}
        status, reply = await self._ask(session, "POST", "/v1/users:batch-get", body)
        self.reads += 1
        if status != 200:
            return
        for account, result in zip(accounts, reply["results"], strict=True):
            if result["status"] >= 500:
                self._count(self.errors, f"batch-get {result['status']}")
            elif result["status"] != 200 or result["user"]["email"] != (account.certain or {})["email"]:
                self.wrong.append(f"batch-get answered {result} for account {account.number}")

    # Beside: imports

    async def import_beside(self, data: Path, directory: Path, until: Callable[[], bool], pause_s: float = 0.5) -> None:
        """Import files of people, one after the other, by the command."""
        while not until():
            emails = [f"{uuid4().hex}@import.example" for _ in range(IMPORT_PEOPLE)]
            file = directory / f"{emails[0]}.ndjson"
            lines = (json.dumps({"email": email, "username": email.partition("@")[0]}) for email in emails)
            file.write_text("\n".join(lines))
            done = await run_denizen("import", str(file), "--data", str(data), "--json")
            if done.code != 0 or json.loads(done.out)["imported"] != len(emails):
                self.wrong.append(f"an import ended with {done.code}: {done.out} {done.error}")
            else:
                self.imported += emails
            await asyncio.sleep(pause_s)

    # The proof

    async def verdict(self, seconds: float = 30.0) -> Verdict:
        """Compare everything; changes of login names may take some seconds until the old name is free."""
        deadline = asyncio.get_running_loop().time() + seconds
        while (found := await self.differences()) and asyncio.get_running_loop().time() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.5)
        problems = [*found, *self.wrong, *await self._missing_imports()]
        problems += [f"{count} times a client met {what}" for what, count in self.errors.items()]
        problems += [f"{count} times a client was refused: {what}" for what, count in self.refused.items()]
        return Verdict(self.acknowledged, self.reads, self.batches, len(self.imported), problems)

    async def _missing_imports(self) -> list[str]:
        missing: list[str] = []
        limit = asyncio.Semaphore(32)
        async with aiohttp.ClientSession(self.url, headers=self._headers) as session:

            async def look(email: str) -> None:
                async with limit:
                    status, reply = await self._ask(session, "GET", f"/v1/login-names/email/{email}")
                if status != 200 or reply["email"] != email:
                    missing.append(f"{email} was imported and is not found ({status})")

            await asyncio.gather(*map(look, self.imported))
        return missing


class Done(Struct, frozen=True):
    """How a command ended."""

    code: int
    out: str
    error: str


async def run_denizen(*arguments: str) -> Done:
    """Run a command of the command line to its end."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-P", "-m", "denizen", *arguments,
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        out, error = await process.communicate()
    except asyncio.CancelledError:
        process.kill()
        await process.wait()
        raise
    return Done(process.returncode or 0, out.decode(), error.decode())
