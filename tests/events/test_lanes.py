"""Lanes by themselves: groups, order, bounds, waiters that go away, work that fails."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest

from denizen.errors import DenizenError, Invalid, OutcomeUnknown, Overloaded, Unavailable
from denizen.events.lanes import Lane
from denizen.events.store import connect
from denizen.testing.postgres import Database


class Echo:
    """Gives each request back from the server; holds the groups while the gate is closed. Keys: the first word."""

    group_max = 8
    deadline_s = 5.0

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.gate.set()
        self.groups: list[list[str]] = []

    def keys(self, request: str) -> tuple[object, ...]:
        return (request.partition(" ")[0],)

    async def perform(self, connection: asyncpg.Connection, requests: Sequence[str]) -> list[str | DenizenError]:
        self.groups.append(list(requests))
        await self.gate.wait()
        if any(request.startswith("defect") for request in requests):
            raise KeyError("a defect")
        if any(request.startswith("short") for request in requests):
            return []
        rows = await connection.fetch("select case v when 'zero x' then (1 / length(substr(v, 7)))::text else v end"
                                      " from unnest($1::text[]) as v", requests)  # fmt: skip
        return [Invalid("no") if row[0].startswith("invalid") else row[0] for row in rows]

    def doubt(self, cause: BaseException) -> DenizenError:
        return OutcomeUnknown("who knows")


@asynccontextmanager
async def lane_of(database: Database, work: Any, queue_max: int = 100) -> AsyncIterator[Lane[str, str]]:
    lane = Lane[str, str](lambda: connect(database.connect_args), work, queue_max)
    lane.start()
    try:
        yield lane
    finally:
        work.gate.set()
        await lane.stop()


@pytest.fixture
async def work() -> Echo:
    return Echo()


async def held(lane: Lane[str, str], work: Echo) -> "asyncio.Future[str]":
    """Have the lane busy with one request until the gate opens."""
    work.gate.clear()
    first = lane.ask("first 0")
    while not work.groups:
        await asyncio.sleep(0.001)
    return first


async def test_what_gathers_while_a_group_is_away_goes_together(database: Database, work: Echo) -> None:
    async with lane_of(database, work) as lane:
        first = await held(lane, work)
        asked = [lane.ask(f"k{number} x") for number in range(20)]
        work.gate.set()
        assert await first == "first 0"
        assert await asyncio.gather(*asked) == [f"k{number} x" for number in range(20)]
    assert [len(group) for group in work.groups] == [1, 8, 8, 4]


async def test_requests_that_share_a_key_go_one_after_the_other_in_order(database: Database, work: Echo) -> None:
    async with lane_of(database, work) as lane:
        first = await held(lane, work)
        asked = [lane.ask(f"{key} {number}") for number in range(5) for key in ("a", "b")]
        work.gate.set()
        await asyncio.gather(first, *asked)
    assert work.groups[1:] == [[f"a {number}", f"b {number}"] for number in range(5)]


async def test_a_full_queue_is_overloaded_and_serves_on(database: Database, work: Echo) -> None:
    async with lane_of(database, work, queue_max=3) as lane:
        first = await held(lane, work)
        asked = [lane.ask(f"k{number} x") for number in range(3)]
        with pytest.raises(Overloaded):
            lane.ask("one too many")
        assert lane.depth == 3
        work.gate.set()
        await asyncio.gather(first, *asked)
        assert await lane.ask("room again") == "room again"


async def test_waiters_that_go_away_are_not_sent(database: Database, work: Echo) -> None:
    async with lane_of(database, work) as lane:
        first = await held(lane, work)
        asked = [asyncio.ensure_future(lane.ask(f"k{number} x")) for number in range(6)]
        await asyncio.sleep(0)
        for future in asked[::2]:
            future.cancel()
        first.cancel()  # it is away already: that disturbs nobody
        work.gate.set()
        assert await asyncio.gather(*asked[1::2]) == ["k1 x", "k3 x", "k5 x"]
    assert work.groups[1:] == [["k1 x", "k3 x", "k5 x"]]


async def test_what_waited_too_long_is_not_sent(database: Database, work: Echo) -> None:
    work.deadline_s = 0.5
    async with lane_of(database, work) as lane:
        first = await held(lane, work)
        work.deadline_s = 0.1
        late = lane.ask("late x")
        with pytest.raises(OutcomeUnknown):
            await first
        work.gate.set()
        with pytest.raises(Unavailable, match="waited too long"):
            await late
    assert ["late x"] not in work.groups


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        ("zero x", Unavailable),  # the server refuses it
        ("nul \0", Unavailable),  # the server cannot store it
        ("surrogate \ud800", Unavailable),  # the driver cannot send it
        ("defect x", OutcomeUnknown),
        ("short x", OutcomeUnknown),
        ("invalid x", Invalid),
    ],
)
async def test_one_bad_request_fails_alone_and_the_lane_lives_on(
    database: Database, work: Echo, bad: str, error: type[Exception]
) -> None:
    async with lane_of(database, work) as lane:
        first = await held(lane, work)
        asked = [lane.ask("a x"), lane.ask(bad), lane.ask("b x")]
        work.gate.set()
        answers = await asyncio.gather(first, *asked, return_exceptions=True)
        assert answers[:2] + answers[3:] == ["first 0", "a x", "b x"]
        assert type(answers[2]) is error
        assert await lane.ask("and on") == "and on"


async def test_a_lane_that_stops_finishes_what_it_has(database: Database, work: Echo) -> None:
    async with lane_of(database, work) as lane:
        first = await held(lane, work)
        asked = [lane.ask(f"k{number} x") for number in range(20)]
    assert await asyncio.gather(first, *asked) == ["first 0", *(f"k{number} x" for number in range(20))]
    with pytest.raises(Unavailable, match="stopping"):
        lane.ask("too late")


async def test_ten_thousand_requests_on_one_key_do_not_stop_the_others(database: Database, work: Echo) -> None:
    async with lane_of(database, work, queue_max=20_000) as lane:
        first = await held(lane, work)
        hot = [lane.ask(f"hot {number}") for number in range(10_000)]
        work.gate.set()
        await asyncio.gather(first, *hot[:50])
        for future in hot[50:]:
            future.cancel()
        assert await lane.ask("cold x") == "cold x"
    assert [group[0] for group in work.groups[1:51]] == [f"hot {number}" for number in range(50)]
