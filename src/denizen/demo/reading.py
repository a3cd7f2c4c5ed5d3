"""The tour's part about reading: the directory follows a live load, is rebuilt beside it, and one user is erased.

Everything goes through the public interfaces: the client's search, changes, replays and explanations.
"""

import asyncio
import json
import os
import signal
import time
from typing import Final

from msgspec import Struct
from rich.console import Console

from denizen.api.read_side import ReplayDocument
from denizen.api.shapes import WrittenUser
from denizen.client import Client, Problem, UserNotFound
from denizen.testing.deployment import RunningDeployment
from denizen.testing.mixed_load import MixedLoad

CLIENTS: Final = 6
PROBES: Final = 60
LEVEL_S: Final = 60.0
TOLD_S: Final = 0.5
PERSON: Final = "Xanthippe"  # a word that only one user has
MODEL: Final = "directory"


class Broken(Exception):
    """A promise that did not hold."""


class Follower:
    """A consumer of the feed of changes, which keeps its cursor and what it got."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.positions: list[str] = []
        self.users: set[str] = set()

    async def follow(self) -> None:
        """Follow from the beginning until it is cancelled; go on with the cursor after any trouble."""
        cursor: str | None = None
        while True:
            try:
                async for page in self._client.changes(cursor, start="beginning", wait_s=1):
                    self.positions += [each.position for each in page.items]
                    self.users |= {str(each.user_id) for each in page.items}
                    cursor = page.next_cursor
            except Problem:
                await asyncio.sleep(0.2)


class Visible(Struct, frozen=True):
    """How long after its acknowledgement a sign-up was found, in milliseconds."""

    p50_ms: float
    p99_ms: float


async def read_side(running: RunningDeployment, console: Console) -> None:
    """All of it; raises `Broken`."""
    async with Client(running.url, running.admin_key) as client:
        load, done = MixedLoad(running.url, running.admin_key, pause_s=0.02), False
        working = asyncio.create_task(load.work(CLIENTS, lambda: done))
        follower = Follower(client)
        following = asyncio.create_task(follower.follow())
        try:
            made = await _follows_live(client, console)
            await _survives_the_loss_of_the_bus(running, client, console)
            await _rebuilt(client, console)
        finally:
            done = True
            await working
        verdict = await load.verdict()
        _must(verdict.clean, "the load is not disturbed: " + "; ".join(verdict.problems[:3]))
        await _verified_and_promoted(client, console)
        await _complete(follower, made, console)
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await _erased(client, console)


async def _follows_live(client: Client, console: Console) -> set[str]:
    """Sign-ups are found by their name a moment after they were acknowledged; their ids."""
    made: set[str] = set()
    waits: list[float] = []
    for number in range(PROBES):
        user = await client.create_user(username=f"probe.{number}", display_name=f"Probe Number{number}q")
        began = time.perf_counter()
        page = await client.search_page(name=f"number{number}q", position=user.position)
        waits.append((time.perf_counter() - began) * 1000)
        _must(not page.stale and [each.id for each in page.items] == [user.id], "a sign-up is found by its name")
        made.add(str(user.id))
    waits.sort()
    seen = Visible(waits[len(waits) // 2], waits[-1])
    console.print(
        f"   {PROBES} of them found by name {seen.p50_ms:.0f} ms after the answer (p50), {seen.p99_ms:.0f} ms at most"
    )
    return made


async def _survives_the_loss_of_the_bus(running: RunningDeployment, client: Client, console: Console) -> None:
    bus = running.deployment.state().bus
    _must(bus is not None and bus.pid is not None, "there is a bus")
    assert bus is not None  # noqa: S101 - said above
    assert bus.pid is not None  # noqa: S101
    os.kill(bus.pid, signal.SIGKILL)
    user = await client.create_user(username="without.bus", display_name="Nobus Meanwhile")
    page = await client.search_page(name="nobus", position=user.position)
    async with asyncio.timeout(LEVEL_S):
        while not page.items:
            page = await client.search_page(name="nobus", position=user.position)
    console.print("   the NATS server was killed: the directory goes on from PostgreSQL, until it is there again")


async def _rebuilt(client: Client, console: Console) -> None:
    plan = await client.replays.plan(MODEL)
    console.print(f"   {MODEL} version {plan.version} is made from {plan.events:,} events by {plan.workers} processes")
    replay = await client.replays.run(MODEL)
    while replay.state in ("loading", "indexing"):
        _tell(replay, console)
        await asyncio.sleep(TOLD_S)
        replay = await client.replays.replay(MODEL)
    _must(replay.state == "done", f"the replay comes to its end, not {replay.state}: {replay.error}")
    rate = f", {replay.events_per_s:,.0f} events/s" if replay.events_per_s else ""
    console.print(f"   done: {replay.events_done:,} events, {replay.rows:,} rows{rate}; the load went on all the time")


def _tell(replay: ReplayDocument, console: Console) -> None:
    to_go = f", {replay.eta_s:.0f} s to go" if replay.eta_s is not None else ""
    console.print(f"   {replay.state}: {replay.progress:.0%}{to_go}")


async def _verified_and_promoted(client: Client, console: Console) -> None:
    await _level(client)
    compared = await client.replays.verify(MODEL)
    _must(compared.equal, f"both versions are equal, row for row, not: {compared.differences[:3]}")
    promoted = await client.replays.promote(MODEL)
    _must((await client.search_page(name="probe number")).items != [], "the new version answers")
    console.print(f"   verified: equal to version {compared.live_version}, row for row; version {promoted} is live now")


async def _level(client: Client) -> None:
    """Wait until every read model has everything."""
    async with asyncio.timeout(LEVEL_S):
        while any(each.lag_events for each in (await client.replays.projections()).versions):  # noqa: ASYNC110
            await asyncio.sleep(0.1)


async def _complete(follower: Follower, made: set[str], console: Console) -> None:
    """The feed of changes has given everything, each change once."""
    async with asyncio.timeout(LEVEL_S):
        while not made <= follower.users:  # noqa: ASYNC110 - pages ring no bell
            await asyncio.sleep(0.1)
    count = len(follower.positions)
    _must(len(set(follower.positions)) == count, "the feed of changes gives each change once")
    console.print(f"   a consumer of /v1/changes got {count:,} changes over HTTP meanwhile, none of them twice")


async def _erased(client: Client, console: Console) -> None:
    user = await client.create_user(
        email=f"{PERSON.lower()}@example.org", display_name=f"{PERSON} of Athens", attributes={"note": PERSON}
    )
    user = await client.change_user(user.id, {"email": f"other.{PERSON.lower()}@example.org"})
    found = await client.search_page(name=PERSON, position=user.position)
    _must([each.id for each in found.items] == [user.id], "the user is found before the erasure")
    certificate = await client.erase_user(user.id)
    console.print(
        f"   erased: {certificate.events_destroyed} events, {certificate.login_names_released} login names destroyed"
    )
    found = await client.search_page(name=PERSON, position=certificate.position)
    _must(not found.stale and not found.items, "the search knows nothing of an erased user")
    await _nowhere(client, user)
    console.print("   search, history, login names and the feed from its beginning: nothing of the person is left")


async def _nowhere(client: Client, user: WrittenUser) -> None:
    for name in (f"{PERSON.lower()}@example.org", f"other.{PERSON.lower()}@example.org"):
        try:
            await client.find_user("email", name)
        except UserNotFound:
            continue
        raise Broken(f"{name} finds nobody any more")
    history = [event.data async for event in client.history(user.id)]
    _must(PERSON.lower() not in json.dumps(history).lower(), "the history holds no personal data")
    explained = await client.explain(user.id)
    _must(explained.agrees is True, "the read model has what the erased history gives")
    async for page in client.changes(start="beginning", wait_s=0):
        text = json.dumps([each.data for each in page.items]).lower()
        _must(PERSON.lower() not in text, "the feed of changes holds no personal data of the erased user")
        if not page.more:
            return


def _must(condition: bool, promise: str) -> None:
    if not condition:
        raise Broken(promise)
