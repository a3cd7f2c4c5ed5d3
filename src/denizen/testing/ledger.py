"""Clients with a memory: they use a deployment over HTTP and write down what was acknowledged, to compare afterwards.

Each account belongs to one client, which signs it up, changes its profile, email and username, and sometimes deletes
it. An answer that may or may not mean success is repeated with the same idempotency key until it is clear, as the API
asks of its clients; some are left open on purpose, as by a client that died. In the end `differences` compares the
ledger with the deployment: every acknowledged write must be there, and nothing half done.
"""

import asyncio
import random
import time
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import aiohttp
from msgspec import Struct, field

Fields = dict[str, str | None]

_TRANSIENT = (aiohttp.ClientError, asyncio.TimeoutError, ConnectionError)


class Account(Struct):
    """What a client knows of its user. `certain`: the last acknowledged fields, None before the sign-up or after the
    deletion; `open`: what it may be instead, for the client never learnt the outcome."""

    number: int
    id: str | None = None
    certain: Fields | None = None
    open: Fields | None = None
    has_open: bool = False
    names_ever: set[tuple[str, str]] = field(default_factory=set)


class Wait(Struct, frozen=True):
    """How long one request took, and when its answer came (`time.monotonic`)."""

    at: float
    seconds: float


class Ledger:
    """Runs the clients and keeps their accounts."""

    def __init__(self, url: str, key: str, *, seed: int = 1, abandon: float = 0.01) -> None:
        self.url = url
        self._headers = {"Authorization": f"Bearer {key}"}
        self._random = random.Random(seed)  # noqa: S311 - a workload, not a secret
        self._abandon = abandon
        self._run = uuid4().hex[:8]
        self.accounts: list[Account] = []
        self.acknowledged = 0
        self.repeated = 0
        self.refused: dict[str, int] = {}
        self.errors: dict[str, int] = {}
        self.waits: list[Wait] = []

    async def work(self, clients: int, until: Callable[[], bool]) -> None:
        """Keep `clients` clients busy until the condition holds."""
        timeout = aiohttp.ClientTimeout(total=30)
        async with aiohttp.ClientSession(self.url, headers=self._headers, timeout=timeout) as session:
            await asyncio.gather(*(self._client(session, until) for _ in range(clients)))

    def waits_ms(self, since: float, until: float) -> list[float]:
        """How long the requests took whose answers came between these two moments (`time.monotonic`)."""
        return [wait.seconds * 1e3 for wait in self.waits if since <= wait.at <= until]

    async def differences(self) -> list[str]:
        """Every way in which the deployment is not what was acknowledged; empty if all is well."""
        found: list[str] = []
        async with aiohttp.ClientSession(self.url, headers=self._headers) as session:
            limit = asyncio.Semaphore(32)

            async def check(account: Account) -> None:
                async with limit:
                    found.extend(await self._check(session, account))

            await asyncio.gather(*map(check, self.accounts))
        return found

    # One client

    async def _client(self, session: aiohttp.ClientSession, until: Callable[[], bool]) -> None:
        while not until():
            await self._turn(session, until)

    async def _turn(self, session: aiohttp.ClientSession, until: Callable[[], bool]) -> None:
        """One thing after which a client begins anew: the life of an account."""
        await self._live(session, self._new_account(), until)

    def _new_account(self) -> Account:
        account = Account(len(self.accounts))
        self.accounts.append(account)
        return account

    async def _live(self, session: aiohttp.ClientSession, account: Account, until: Callable[[], bool]) -> None:
        """Sign up, change a few times, perhaps leave; stop where an outcome stays open."""
        fields: Fields = self._names(account, 0) | {"display_name": f"Account {account.number}"}
        reply = await self._write(session, account, "POST", "/v1/users", body=fields, after=fields)
        if reply is None:
            return
        account.id = reply["id"]
        await self._after_write(session, account)
        for step in range(1, self._random.randint(1, 5)):
            if until():
                return
            if self._random.random() < 0.1:
                await self._write(session, account, "DELETE", f"/v1/users/{account.id}")
                return
            patch = self._patch(account, step)
            after = dict(account.certain or {}) | patch
            if await self._write(session, account, "PATCH", f"/v1/users/{account.id}", body=patch, after=after) is None:
                return
            await self._after_write(session, account)

    async def _after_write(self, session: aiohttp.ClientSession, account: Account) -> None:
        """What a client does next with an account that it has just written; nothing here."""

    def _patch(self, account: Account, step: int) -> Fields:
        choice = self._random.random()
        names = self._names(account, step)
        if choice < 0.5:
            return {"display_name": f"Account {account.number}, {step}"}
        if choice < 0.75:
            return {"email": names["email"]}
        return {"username": names["username"]}

    def _names(self, account: Account, step: int) -> Fields:
        email, username = f"{self._run}.{account.number}.{step}@example.com", f"{self._run}-{account.number}-{step}"
        account.names_ever |= {("email", email), ("username", username)}
        return {"email": email, "username": username}

    async def _write(
        self,
        session: aiohttp.ClientSession,
        account: Account,
        method: str,
        path: str,
        *,
        body: Fields | None = None,
        after: Fields | None = None,
    ) -> dict[str, Any] | None:
        """One command, repeated with its key until the outcome is clear. None: refused, or left open."""
        account.open, account.has_open = after, True
        abandoned = self._random.random() < self._abandon
        headers = {"Idempotency-Key": uuid4().hex}
        while True:
            status, reply = await self._ask(session, method, path, body, headers)
            if 200 <= status < 300:
                account.certain, account.open, account.has_open = after, None, False
                self.acknowledged += 1
                return reply or {}
            if 0 < status < 500 and status != 429:
                account.open, account.has_open = None, False
                self._count(self.refused, f"{status} {(reply or {}).get('code')}")
                return None
            if abandoned:
                return None
            self.repeated += 1
            await asyncio.sleep(0.05)

    async def _ask(
        self, session: aiohttp.ClientSession, method: str, path: str, body: Any = None, headers: Any = None
    ) -> tuple[int, Any]:
        """One request: status and document. Status 0 is no answer; that and what is the service's fault is counted."""
        began = time.monotonic()
        try:
            async with session.request(method, path, json=body, headers=headers) as response:
                status, reply = response.status, await response.json(content_type=None)
        except _TRANSIENT as error:
            self._count(self.errors, type(error).__name__)
            return 0, None
        ended = time.monotonic()
        self.waits.append(Wait(ended, ended - began))
        if status >= 500 or status == 429:
            self._count(self.errors, f"{status} {(reply or {}).get('code')}")
        return status, reply

    @staticmethod
    def _count(counts: dict[str, int], what: str) -> None:
        counts[what] = counts.get(what, 0) + 1

    # The comparison

    async def _check(self, session: aiohttp.ClientSession, account: Account) -> list[str]:
        """Compare one account: its user, its history, and every login name that it ever had."""
        user = await self._find_user(session, account)
        shown = None if user is None else {key: user.get(key) for key in ("email", "username", "display_name")}
        allowed = [account.certain, *([account.open] if account.has_open else [])]
        if shown not in allowed:
            return [f"account {account.number} ({account.id}) is {shown}, not one of {allowed}"]
        return await self._check_names(session, account, user) + await self._check_history(session, user)

    async def _find_user(self, session: aiohttp.ClientSession, account: Account) -> dict[str, Any] | None:
        if account.id is not None:
            return await _get(session, f"/v1/users/{account.id}")
        for kind, value in sorted(account.names_ever):  # the sign-up's answer never came: perhaps it is there
            user = await _get(session, f"/v1/login-names/{kind}/{value}")
            if user is not None:
                return user
        return None

    async def _check_names(
        self, session: aiohttp.ClientSession, account: Account, user: dict[str, Any] | None
    ) -> list[str]:
        found = []
        for kind, value in sorted(account.names_ever):
            holder = await _get(session, f"/v1/login-names/{kind}/{value}")
            holds = user is not None and user.get(kind) == value
            if holds and (holder is None or user is None or holder["id"] != user["id"]):
                found.append(f"account {account.number} has the {kind} {value}, which does not resolve to it")
            if not holds and holder is not None:
                found.append(f"the {kind} {value} of account {account.number} resolves to {holder['id']}")
        return found

    async def _check_history(self, session: aiohttp.ClientSession, user: dict[str, Any] | None) -> list[str]:
        if user is None:
            return []
        history = await _get(session, f"/v1/users/{user['id']}/events?limit=1000")
        versions = [event["version"] for event in (history or {}).get("items", [])]
        if versions != list(range(1, user["version"] + 1)):
            return [f"user {user['id']} at version {user['version']} has the history {versions}"]
        return []


async def _get(session: aiohttp.ClientSession, path: str) -> dict[str, Any] | None:
    """The document, None for one that is not there or was deleted."""
    async with session.get(path) as response:
        if response.status in (404, 410):
            return None
        response.raise_for_status()
        document: dict[str, Any] = await response.json()
        return document
