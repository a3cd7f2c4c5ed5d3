"""Clusters of real processes for the tests of the key-value service."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from kv_clusters import Start, Watched, eventually
from kv_one_node import OneNode, one_node_config

from denizen.raft.kv.client import KeyValueClient
from denizen.raft.kv.local_cluster import LocalCluster
from denizen.raft.kv.server import KeyValueServer


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "cluster"


@pytest.fixture
def made() -> Iterator[list[LocalCluster]]:
    """Clusters to stop at the end; a failing test shows what their nodes printed."""
    clusters: list[LocalCluster] = []
    yield clusters
    for cluster in clusters:
        cluster.stop()
        for id in cluster.ids:
            print(f"node {id}:", cluster.log(id)[-2_000:])


@pytest.fixture
async def start(directory: Path, made: list[LocalCluster]) -> AsyncIterator[Start]:
    """Start a cluster of so many nodes and wait for its leader."""
    clients: list[KeyValueClient] = []

    async def begin(
        nodes: int = 3, *, before_start: Callable[[], Awaitable[Any]] | None = None, **settings: Any
    ) -> Watched:
        cluster = LocalCluster(directory, nodes, **settings)
        made.append(cluster)
        if before_start is not None:
            await before_start()
        cluster.start()
        client = KeyValueClient(cluster.endpoints, cluster.token, timeout_s=10.0, try_s=1.0)
        clients.append(client)
        await client.__aenter__()
        watched = Watched(cluster, client)
        await watched.leader()
        return watched

    yield begin
    for client in clients:
        await client.__aexit__()


@pytest.fixture
async def three(start: Start) -> Watched:
    return await start(3)


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[OneNode]:
    """One node in this event loop, leading itself."""
    async with KeyValueServer(one_node_config(tmp_path / "node")) as server, aiohttp.ClientSession() as http:
        it = OneNode(server, http)

        async def leads() -> bool:
            return (await it.get("/v1/kv/health"))[0] == 200

        await eventually(leads, "the node leads")
        yield it
