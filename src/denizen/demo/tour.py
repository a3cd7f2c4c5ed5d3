"""The tour: a deployment of its own, from the first start to the last check, through the public interfaces only.

Each step says what it does and shows what came out. A step whose promise is broken raises `PromiseBroken`, and the tour
ends with exit code 1.
"""

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
from rich.console import Console
from rich.table import Table

from denizen.bench.people import people
from denizen.demo.growing import clean_servers, grow
from denizen.demo.reading import Broken, read_side
from denizen.testing.deployment import RunningDeployment, throwaway_deployment
from denizen.testing.ledger import Ledger

PEOPLE = 5_000
RACERS = 50
KILLS = 4


class PromiseBroken(Exception):
    """Something that Denizen promises did not hold."""


class Tour:
    """One run of the tour over a running deployment."""

    def __init__(self, running: RunningDeployment, console: Console, directory: Path) -> None:
        self._running = running
        self._console = console
        self._directory = directory
        self._headers = {"Authorization": f"Bearer {running.admin_key}"}

    async def run(self) -> None:
        """Every step, in order."""
        imported = self._import()
        async with aiohttp.ClientSession(self._running.url, headers=self._headers) as session:
            await self._one_life(session, imported)
            await self._race(session)
        await self._survive()
        await self._grow()
        await self._read()
        self._verify()
        self._export()

    def _import(self) -> dict[str, Any]:
        self._say(f"{PEOPLE:,} people are imported by the bulk path, while the service serves.")
        rows = list(people(PEOPLE))
        path = self._directory / "people.ndjson"
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
        summary = self._denizen("import", str(path))
        self._must(summary.get("imported") == PEOPLE, f"all {PEOPLE:,} people are imported, not {summary}")
        self._show_shards()
        return rows[PEOPLE // 2]

    async def _one_life(self, session: aiohttp.ClientSession, person: dict[str, Any]) -> None:
        self._say("One of them is found by email, changed, and followed through its history.")
        found = await self._get(session, f"/v1/login-names/email/{person['email']}")
        path = f"/v1/users/{found['id']}"
        email = "a.new.address@example.org"
        async with session.patch(path, json={"email": email}, headers={"If-Match": f'"{found["version"]}"'}) as reply:
            self._must(reply.status == 200, f"the change is accepted, not {reply.status}")
        history = (await self._get(session, f"{path}/events"))["items"]
        for event in history:
            self._console.print(f"   version {event['version']}  {event['type']:<16} by {event['actor']}")
        before = await self._get(session, f"{path}?as_of=1")
        self._must(before["email"] == person["email"], "the user as of version 1 has its first email")
        async with session.get(f"/v1/login-names/email/{email}") as reply:
            self._must(reply.status == 200 and (await reply.json())["id"] == found["id"], "the new email finds it")
        await self._until(
            lambda: self._status(session, f"/v1/login-names/email/{person['email']}"), 404, "the old email is free"
        )

    async def _race(self, session: aiohttp.ClientSession) -> None:
        self._say(f"{RACERS} sign-ups race for one email and one username, which live in different buckets.")
        names = {"email": "first.come@example.org", "username": "first.served"}

        async def sign_up() -> int:
            async with session.post("/v1/users", json=names) as reply:
                return reply.status

        answers = await asyncio.gather(*(sign_up() for _ in range(RACERS)))
        won = answers.count(201)
        self._console.print(f"   {won} won, {answers.count(409)} were told that it is taken")
        self._must(won == 1, f"exactly one wins, not {won}")

    async def _survive(self) -> None:
        self._say(
            f"24 clients work; meanwhile {KILLS} times a PostgreSQL server or the gateway is killed with SIGKILL."
        )
        ledger = Ledger(self._running.url, self._running.admin_key)
        done = False

        async def kill() -> None:
            nonlocal done
            chooser = random.Random(3)  # noqa: S311 - which process dies
            for _ in range(KILLS):
                await self._until_acknowledged(ledger, 300)
                state = self._running.deployment.state()
                victims = {name: server.pid for name, server in state.shards.items()}
                victims["gateway"] = state.gateway.pid if state.gateway else None
                name, pid = chooser.choice([(name, pid) for name, pid in victims.items() if pid])
                os.kill(pid, signal.SIGKILL)
                self._console.print(f"   killed {name} after {ledger.acknowledged:,} acknowledged writes")
            await self._until_acknowledged(ledger, 300)
            done = True

        await asyncio.gather(kill(), ledger.work(24, lambda: done))
        deadline = time.monotonic() + 30
        while (differences := await ledger.differences()) and time.monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.5)
        self._console.print(
            f"   {ledger.acknowledged:,} acknowledged writes compared, {ledger.repeated} requests repeated under their "
            f"idempotency keys, {len(differences)} differences"
        )
        self._must(not differences, "every acknowledged write is there: " + "; ".join(differences[:3]))
        self._must(not ledger.refused, f"no client was refused: {ledger.refused}")

    async def _grow(self) -> None:
        self._say(
            "The deployment grows: a shard joins and takes its share, while clients sign up, change, read, delete."
        )
        grown = await grow(self._running, self._console)
        verdict = grown.verdict
        self._console.print(
            f"   the ledger: {verdict.acknowledged:,} acknowledged writes and {verdict.reads:,} reads compared, "
            f"{len(verdict.problems)} of them wrong, lost or refused"
        )
        self._must(not grown.problems, "nobody notices that buckets move: " + "; ".join(grown.problems[:3]))
        strange = await clean_servers(self._running)
        self._must(not strange, "no server keeps what is not its own: " + "; ".join(strange[:3]))
        self._show_shards()

    async def _read(self) -> None:
        self._say("Read models follow: searched while clients work, rebuilt beside them by replay, one user erased.")
        try:
            await read_side(self._running, self._console)
        except Broken as broken:
            raise PromiseBroken(str(broken)) from broken

    def _verify(self) -> None:
        self._say("`denizen verify` folds all events and compares them with states and login names.")
        report = self._denizen("verify")
        self._console.print(f"   {report.get('events', 0):,} events, no differences")

    def _export(self) -> None:
        self._say("Everything is exported again.")
        path = self._directory / "users.ndjson.gz"
        summary = self._denizen("export", str(path))
        self._must(path.stat().st_size > 0, "the export is there")
        self._console.print(f"   {summary.get('users', 0):,} users in {path.stat().st_size:,} bytes")
        self._show_shards()

    # The means

    def _say(self, text: str) -> None:
        self._console.print(f"\n[bold]▸ {text}[/bold]")

    def _must(self, condition: bool, promise: str) -> None:
        if not condition:
            raise PromiseBroken(promise)

    def _denizen(self, *arguments: str) -> dict[str, Any]:
        """Run a command of the command line on the deployment; its JSON."""
        command = [sys.executable, "-m", "denizen", *arguments, "--data", str(self._running.data), "--json"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise PromiseBroken(f"`denizen {arguments[0]}` ends well: {done.stderr.strip() or done.stdout.strip()}")
        result: dict[str, Any] = json.loads(done.stdout)
        return result

    def _show_shards(self) -> None:
        status = self._denizen("status")
        table = Table("shard", "buckets", "size", box=None, pad_edge=True)
        for shard in status["shards"]:
            table.add_row(str(shard["id"]), str(shard["buckets"]), f"{shard['bytes'] / 2**20:.0f} MiB")
        self._console.print(table)

    async def _get(self, session: aiohttp.ClientSession, path: str) -> dict[str, Any]:
        async with session.get(path) as reply:
            self._must(reply.status == 200, f"{path.partition('?')[0]} answers 200, not {reply.status}")
            document: dict[str, Any] = await reply.json()
            return document

    async def _status(self, session: aiohttp.ClientSession, path: str) -> int:
        async with session.get(path) as reply:
            return reply.status

    async def _until(self, ask: Callable[[], Any], expected: object, promise: str, seconds: float = 10) -> None:
        deadline = time.monotonic() + seconds
        while (found := await ask()) != expected:
            self._must(time.monotonic() < deadline, f"{promise} (it is {found})")
            await asyncio.sleep(0.05)

    async def _until_acknowledged(self, ledger: Ledger, more: int, seconds: float = 60) -> None:
        goal, deadline = ledger.acknowledged + more, time.monotonic() + seconds
        while ledger.acknowledged < goal:
            self._must(time.monotonic() < deadline, "the service serves again after a kill")
            await asyncio.sleep(0.01)


def run(shards: int = 4) -> int:
    """Run the tour; the exit code."""
    console = Console(highlight=False)
    started = time.monotonic()
    console.print(f"[bold]▸ A deployment with {shards} shards starts, each its own PostgreSQL server.[/bold]")
    with (
        tempfile.TemporaryDirectory(prefix="denizen-demo-") as directory,
        throwaway_deployment(shards=shards) as running,
    ):
        console.print(f"   ready on {running.url} after {time.monotonic() - started:.1f} s")
        try:
            asyncio.run(Tour(running, console, Path(directory)).run())
        except PromiseBroken as broken:
            console.print(f"\n[bold red]✗ A promise is broken: {broken}[/bold red]")
            return 1
    console.print(f"\n[bold green]✓ Every promise held; {time.monotonic() - started:.0f} s.[/bold green]")
    return 0
