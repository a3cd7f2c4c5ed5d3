"""A control plane of one voter inside the test's process: it decides and remembers, and carries nothing out."""

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID

from denizen.control.client import ControlClient
from denizen.control.commands import Founded
from denizen.control.node import ControlNode, NodePlan
from denizen.control.server import ControlServer
from denizen.control.wire import client_token
from denizen.operators.desk import now_ms
from denizen.processes.ports import find_port
from denizen.sharding.bucket_map import BucketMap

SECRET = b"a secret of the tests, long enough"


@asynccontextmanager
async def one_voter(deployment: UUID, bucket_map: BucketMap) -> AsyncIterator[ControlClient]:
    """A client of a control plane that was founded with this map."""
    raft_port = find_port()
    peers, address = {1: f"127.0.0.1:{raft_port}"}, f"127.0.0.1:{find_port(taken=frozenset({raft_port}))}"
    with tempfile.TemporaryDirectory(prefix="denizen-control-") as directory:
        async with ControlNode(NodePlan(1, deployment, Path(directory), peers, address, SECRET)) as node:
            server = ControlServer(node)
            await server.start()
            try:
                client = ControlClient(lambda: {1: address}, lambda: client_token(SECRET))
                shards = dict.fromkeys(bucket_map.shards)
                await client.propose(
                    Founded(deployment=deployment, map=bucket_map, shards=dict(shards), at_ms=now_ms())
                )
                yield client
            finally:
                await server.stop()
