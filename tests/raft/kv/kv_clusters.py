"""A running cluster of real processes as a test sees it."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from denizen.raft.kv.client import KeyValueClient
from denizen.raft.kv.local_cluster import LocalCluster
from denizen.raft.kv.up import node_rows

DEADLINE_S = 30.0


async def eventually(condition: Callable[[], Awaitable[Any]], what: str) -> Any:
    """Wait until a condition gives something true; return it."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + DEADLINE_S
    while True:
        found = await condition()
        if found:
            return found
        if loop.time() > deadline:
            raise AssertionError(f"waited {DEADLINE_S:.0f} s in vain: {what}")
        await asyncio.sleep(0.02)


class Watched:
    """A running cluster and a client of it."""

    def __init__(self, cluster: LocalCluster, client: KeyValueClient) -> None:
        self.cluster = cluster
        self.client = client

    async def rows(self) -> dict[int, dict[str, Any]]:
        """Return what each node tells about itself; those that do not answer are left out."""
        return {row["id"]: row for row in await node_rows(self.client) if "error" not in row}

    async def leader(self, among: list[int] | None = None) -> int:
        """Wait for a leader that a majority follows (and that is one of `among`)."""

        async def find() -> int | None:
            rows = await self.rows()
            leaders = [id for id, row in rows.items() if row["role"] == "leader" and (among is None or id in among)]
            for id in leaders:
                if sum(row["leader"] == id for row in rows.values()) * 2 > len(self.cluster.ids):
                    return id
            return None

        return int(await eventually(find, f"a leader among {among or self.cluster.ids}"))

    async def caught_up(self) -> None:
        """Wait until every node has applied the same and stays there, and compare their stores.

        A command that its client gave up may still arrive; stores are compared only if nothing was applied meanwhile.
        """
        everything = {"key": "", "prefix": True, "local": True}

        async def applied() -> list[int]:
            return [row["applied"] for row in (await self.rows()).values()]

        async def level() -> bool:
            nonlocal stores
            before = await applied()
            if len(before) < len(self.cluster.ids) or len(set(before)) > 1:
                return False
            stores = [(await self.client.ask(url, "range", everything))["kvs"] for url in self.cluster.endpoints]
            return await applied() == before

        stores: list[list[Any]] = []
        await eventually(level, "every node has applied the same")
        assert all(store == stores[0] for store in stores)


Start = Callable[..., Awaitable[Watched]]
