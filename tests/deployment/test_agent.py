"""The agent alone: what it does to servers, and what it tells the control plane."""

import asyncio
from pathlib import Path
from typing import Any, cast

from denizen.control.client import ControlClient
from denizen.control.commands import Command, Founded, RemoveShard
from denizen.control.state import ControlState, Shard, ShardStatus
from denizen.deployment.agent import Agent
from denizen.deployment.layout import Deployment, ShardRecord
from denizen.sharding.bucket_map import initial_map, write_map
from denizen.sharding.ids import ShardId


class Plane:
    """A control plane that has one state to tell, and remembers what it was told."""

    def __init__(self, state: ControlState) -> None:
        self.told: list[Command] = []
        self._state = state

    async def state(self, *, linearizable: bool = False) -> ControlState:
        return self._state

    async def watch(self, after_revision: int) -> tuple[int, ControlState]:
        return self._state.revision, self._state

    async def propose(self, command: Command) -> None:
        self.told.append(command)


def test_a_name_that_was_a_removed_shards_is_given_up_and_hurts_nobody(tmp_path: Path) -> None:
    deployment = Deployment.create(tmp_path / "data", shards=1)
    deployment.record_shard(ShardRecord(id="s2", directory="shards/s2", added=True, removed=True))
    s2, first = ShardId("s2"), initial_map(deployment.shard_ids)
    write_map(deployment.map_path, first)
    joining = {s2: Shard(s2, None, 1.0, ShardStatus.JOINING, 1, 1)}
    plane = Plane(ControlState(deployment=deployment.id, map=first, shards=joining))
    notes: list[str] = []
    agent = Agent(deployment, cast(ControlClient, plane), cast(Any, None), notes.append)
    asyncio.run(asyncio.wait_for(until_told(agent, plane), 30))
    assert [(type(command), getattr(command, "shard", None)) for command in plane.told] == [(RemoveShard, s2)]
    assert "s2" in notes[0]


def test_a_shard_that_was_joining_when_the_control_plane_was_lost_keeps_its_name(tmp_path: Path) -> None:
    deployment = Deployment.create(tmp_path / "data", shards=1)
    deployment.record_shard(ShardRecord(id="s2", dsn="postgresql://a/b", added=True, joining=True))
    write_map(deployment.map_path, initial_map([ShardId("s1")]))
    plane = Plane(ControlState())
    agent = Agent(deployment, cast(ControlClient, plane), cast(Any, None), lambda _: None)
    asyncio.run(asyncio.wait_for(until_told(agent, plane), 30))
    founded = plane.told[0]
    assert isinstance(founded, Founded)
    assert (founded.shards, founded.joining) == ({ShardId("s1"): None}, {ShardId("s2"): "postgresql://a/b"})


async def until_told(agent: Agent, plane: Plane) -> None:
    """Run the agent until it tells the control plane something."""
    running = asyncio.create_task(agent.run())
    while not (plane.told or running.done()):
        await asyncio.sleep(0)
    running.cancel()
    await asyncio.wait([running])
    if not running.cancelled():
        running.result()
