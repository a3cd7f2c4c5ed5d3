"""Asking a running deployment over HTTP, and its control plane through the operators' desk."""

import asyncio
import json
import time
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from denizen.control.state import ControlState, RebalanceStatus
from denizen.deployment.control_access import client_of
from denizen.operators.desk import Desk
from denizen.operators.opening import desk_of
from denizen.sharding.ids import Bucket, ShardId, bucket_of
from denizen.testing.deployment import RunningDeployment

Answer = TypeVar("Answer")


class Api:
    """The HTTP API of a deployment, with its admin key."""

    def __init__(self, running: RunningDeployment, url: str | None = None) -> None:
        self._running = running
        self._url = url

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """One request; `urllib.error.HTTPError` if it is refused."""
        return json.loads(self.text(path, method, body) or "null")

    def text(self, path: str, method: str = "GET", body: Any = None) -> str:
        """The answer to a request as it came."""
        request = urllib.request.Request(  # noqa: S310  our own server
            f"{self._url or self._running.url}{path}",
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {self._running.admin_key}", "Content-Type": "application/json"},
            method=method,
        )
        with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310
            return str(response.read().decode())

    def register(self, email: str) -> Any:
        """A new user."""
        return self.ask("POST", "/v1/users", {"email": email})

    def rename(self, user: str, name: str) -> Any:
        """A write to a user."""
        request = {"display_name": name}
        return self.ask("PATCH", f"/v1/users/{user}", request)

    def user(self, user: str) -> Any:
        """A user by id."""
        return self.ask("GET", f"/v1/users/{user}")

    def works(self) -> bool:
        """Whether it answers with the key."""
        try:
            self.ask("GET", "/v1/users?limit=1")
        except (OSError, urllib.error.HTTPError):
            return False
        return True


def bucket_of_user(document: Any) -> Bucket:
    """The bucket of a user's document."""
    from uuid import UUID

    return bucket_of(UUID(document["id"]))


def with_desk(running: RunningDeployment, work: Callable[[Desk], Awaitable[Answer]]) -> Answer:
    """Do something at the operators' desk."""

    async def do() -> Answer:
        return await work(desk_of(running.deployment))

    return asyncio.run(do())


def state_of(running: RunningDeployment) -> ControlState:
    """The state of the control plane."""
    return asyncio.run(client_of(running.deployment).state(linearizable=True))


def move(running: RunningDeployment, buckets: list[int], to: str, seconds: float = 90) -> None:
    """Move buckets, and wait until they have moved."""

    async def begin(desk: Desk) -> None:
        plan = await desk.plan_of_moves(sorted(set(buckets)), to)
        if plan.moves:
            await desk.run(plan)

    with_desk(running, begin)
    wait_moved(running, buckets, to, seconds)


def wait_moved(running: RunningDeployment, buckets: list[int], to: str, seconds: float = 90) -> None:
    """Wait until the map has these buckets on that shard, and nothing is left to be done before the clean-up."""

    def moved(state: ControlState) -> bool:
        assert state.map is not None
        there = all(state.map.shard_of(Bucket(bucket)) == ShardId(to) for bucket in buckets)
        return there and (state.rebalance is None or state.rebalance.status is not RebalanceStatus.RUNNING)

    wait_state(running, moved, seconds)


def wait_state(running: RunningDeployment, condition: Callable[[ControlState], bool], seconds: float = 60) -> None:
    """Wait until the control plane's state is so."""
    deadline = time.monotonic() + seconds
    while not condition(state := state_of(running)):
        assert time.monotonic() < deadline, f"not in time: {state.shards}, {state.rebalance}, {state.moves}"
        time.sleep(0.1)
