"""The write path and the read path over HTTP, against `pgbench` and against an empty route, in one run.

Each round measures everything once, in turn, on one deployment with real servers, so that a slow moment of the machine
weighs on all alike; the figures are medians of the rounds. Relays and projectors run and follow our writes, as they do
in production; before the rival's turn they have caught up, so that they do not slow it. The load generator is the same
for every route and shares the machine with the gateway and the servers.
"""

import asyncio
import json
import os
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import uvloop
from rich.console import Console

from denizen.bench import rival
from denizen.bench.http_load import LoadResult, RequestOf, drive, post
from denizen.bench.quiet import wait_until_quiet
from denizen.bench.report import Figure, Report, publish, ratio
from denizen.sharding.bucket_map import read_map
from denizen.testing.deployment import throwaway_deployment

CONNECTIONS = 64
BATCH = 1000
BATCH_CONNECTIONS = 4


class _Target:
    """A deployment's address and key, and what is asked of it."""

    def __init__(self, url: str, key: str) -> None:
        parts = urlsplit(url)
        self.host, self.port, self.key, self.url = parts.hostname or "127.0.0.1", parts.port or 80, key, url
        self.round = os.urandom(4).hex()

    def get(self, path: str) -> bytes:
        head = f"GET {path} HTTP/1.1\r\nHost: {self.host}\r\nAuthorization: Bearer {self.key}\r\n\r\n"
        return head.encode()

    def create(self, number: int, *, username: bool = False) -> bytes:
        name = f"{self.round}.{number}"
        extra = f'"username":"{name}",' if username else ""
        body = f'{{"email":"{name}@example.com",{extra}"display_name":"Some One","country":"DE"}}'
        return post(self.host, "/v1/users", body.encode(), self.key)

    def batch(self, number: int) -> bytes:
        users = [
            {"email": f"{self.round}.{number}.{place}@example.com", "display_name": "Some One", "country": "DE"}
            for place in range(BATCH)
        ]
        return post(self.host, "/v1/users:batch", json.dumps({"users": users}).encode(), self.key)

    def ids(self, count: int) -> list[str]:
        """Ids of users that are there."""
        request = Request(f"{self.url}/v1/users?limit={count}", headers={"Authorization": f"Bearer {self.key}"})  # noqa: S310
        with urlopen(request) as response:  # noqa: S310 - our own gateway
            return [user["id"] for user in json.load(response)["items"]]

    def load(self, request_of: RequestOf, seconds: float, connections: int = CONNECTIONS) -> LoadResult:
        """Keep the connections busy; every answer must be a success."""
        self.round = os.urandom(4).hex()
        result = uvloop.run(drive(self.host, self.port, request_of, lanes=connections, seconds=seconds))
        if result.failed or not result.succeeded:
            raise RuntimeError(f"{result.failed} of {result.failed + result.succeeded} requests failed")
        return result


def run(*, rounds: int = 3, seconds: int = 5, shards: int = 4) -> Report:
    """Measure and publish; the path of the figures. Takes about `rounds` times seven times `seconds`."""
    console = Console(stderr=True)
    with throwaway_deployment(shards=shards, configuration='[postgres]\nmemory = "2GB"\n') as running:
        deployment = running.deployment
        servers = [shard.connect_args for shard in deployment.shards.values()]
        asyncio.run(rival.make_tables(servers))
        bucket_map = read_map(deployment.map_path)
        owned = [bucket_map.buckets_of(shard) for shard in deployment.shards]
        scripts = rival.write_scripts(running.directory, owned)
        target = _Target(running.url, running.admin_key)
        target.load(target.create, 1)  # warm up
        results: dict[str, list[float]] = {}
        for number in range(1, rounds + 1):
            console.print(f"round {number} of {rounds}")
            _round(target, servers, scripts, seconds, results)
    return publish("serving", _figures(results), {"connections": CONNECTIONS, "shards": shards, "seconds": seconds})


def _round(
    target: _Target,
    servers: list[dict[str, object]],
    scripts: list[Path],
    seconds: int,
    results: dict[str, list[float]],
) -> None:
    def note(what: str, number: float) -> None:
        results.setdefault(what, []).append(number)

    for clients in (16, CONNECTIONS):
        wait_until_quiet()
        note(f"pgbench {clients}", rival.users_per_second(servers, scripts, clients=clients, seconds=seconds))
    wait_until_quiet()
    created = target.load(target.create, seconds)
    note("create", created.per_second)
    note("create p50", created.percentile_ms(50))
    note("create p99", created.percentile_ms(99))
    note("create two", target.load(lambda number: target.create(number, username=True), seconds).per_second)
    note("batch", BATCH * target.load(target.batch, seconds, BATCH_CONNECTIONS).per_second)
    wait_until_quiet()
    ids = target.ids(1000)
    note("empty", target.load(lambda _: target.get("/health/live"), seconds).per_second)
    read = target.load(lambda number: target.get(f"/v1/users/{ids[number * 7919 % len(ids)]}"), seconds)
    note("read", read.per_second)
    note("read p99", read.percentile_ms(99))


def _figures(results: dict[str, list[float]]) -> list[Figure]:
    rivals = [max(pair) for pair in zip(results["pgbench 16"], results[f"pgbench {CONNECTIONS}"], strict=True)]

    def plain(what: str, key: str, unit: str) -> Figure:
        return Figure(what, tuple(results[key]), unit)

    return [
        Figure("pgbench, one transaction per user (better of 16 and 64 clients)", tuple(rivals), "users/s"),
        plain("create over HTTP, email", "create", "users/s"),
        ratio("create ÷ pgbench", results["create"], rivals, 0.7),
        plain("create, 50th percentile", "create p50", "ms"),
        plain("create, 99th percentile", "create p99", "ms"),
        plain("create over HTTP, email and username", "create two", "users/s"),
        ratio("create with two names ÷ pgbench with one", results["create two"], rivals),
        plain("users:batch of 1,000", "batch", "users/s"),
        ratio("users:batch ÷ pgbench", results["batch"], rivals, 2.5),
        plain("empty route", "empty", "requests/s"),
        plain("read by id", "read", "requests/s"),
        ratio("read by id ÷ empty route", results["read"], results["empty"], 0.4),
        plain("read by id, 99th percentile", "read p99", "ms"),
    ]
