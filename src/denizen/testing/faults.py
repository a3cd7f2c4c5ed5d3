"""Faults that are injected while a bucket is at a certain stage of its move: processes really killed, really stopped.

The control plane's state is watched; the moment a move is at the stage, the victim is struck. Stages last milliseconds,
so the strike may come too late: it counts only if the move is at that stage afterwards, too. For a leader that is told
by the state in which the next one takes over, for a server by the state right after the strike.
"""

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import TypeVar
from uuid import UUID

from msgspec import Struct

from denizen.control.client import ControlClient
from denizen.control.state import ControlState, MoveRecord, Stage
from denizen.control.wire import client_token
from denizen.deployment.layout import Deployment
from denizen.errors import DenizenError
from denizen.sharding.ids import ShardId

STRUCK_WITHIN_S = 20.0
Answer = TypeVar("Answer")


class Fault(StrEnum):
    """What happens."""

    LEADER_KILLED = "control leader killed"
    LEADER_STOPPED = "control leader stopped for 3 s"
    SOURCE_KILLED = "source server killed"
    TARGET_KILLED = "target server killed"
    GATEWAY_STOPPED = "gateway stopped for 6 s"


class Strike(Struct, frozen=True):
    """A fault that hit: which process, the move that it hit, as it was, and when (`time.monotonic`)."""

    fault: Fault
    pid: int
    move: MoveRecord
    at: float


async def strike(deployment: Deployment, control: ControlClient, fault: Fault, stage: Stage) -> Strike | None:
    """Wait until a move is at the stage, and strike. None if it was not to be: the moves ended, or it came too late."""
    leader = await leader_of(deployment, control)
    seen = await _move_at(control, stage)
    if seen is None:
        return None
    move, before = seen
    pid = _victim(deployment, fault, move, leader.pid)
    os.kill(pid, signal.SIGSTOP if fault in _STOPPED_S else signal.SIGKILL)
    at = time.monotonic()
    try:
        if fault in _OF_LEADER:
            hit = await _taken_over_at(_without(deployment, leader.node), before, move.id, stage)
        else:
            hit = await _still_at(control, move.id, stage)
        if fault in _STOPPED_S:
            await asyncio.sleep(_STOPPED_S[fault])
    finally:
        if fault in _STOPPED_S:
            os.kill(pid, signal.SIGCONT)
    return Strike(fault, pid, move, at) if hit else None


_STOPPED_S = {Fault.LEADER_STOPPED: 3.0, Fault.GATEWAY_STOPPED: 6.0}
_OF_LEADER = (Fault.LEADER_KILLED, Fault.LEADER_STOPPED)


async def _move_at(control: ControlClient, stage: Stage) -> tuple[MoveRecord, ControlState] | None:
    """The first move seen at this stage, in its state; None when the rebalance is over without one."""
    state = await control.state()
    async with asyncio.timeout(STRUCK_WITHIN_S):
        while True:
            move = next((move for move in state.moves.values() if move.stage is stage), None)
            if move is not None:
                return move, state
            if not under_way(state):
                return None
            try:
                _, state = await control.watch(state.revision)
            except DenizenError:
                await asyncio.sleep(0.01)


async def _still_at(control: ControlClient, move: UUID, stage: Stage) -> bool:
    state = await eventually(control.state)
    return move in state.moves and state.moves[move].stage is stage


async def _taken_over_at(others: ControlClient, before: ControlState, move: UUID, stage: Stage) -> bool:
    """Whether the next leader finds the move at this stage: taking over changes no stage."""
    last = before.executor.number if before.executor else 0
    state = await eventually(others.state)
    async with asyncio.timeout(STRUCK_WITHIN_S):
        while state.executor is None or state.executor.number <= last:
            try:
                _, state = await others.watch(state.revision)
            except DenizenError:
                await asyncio.sleep(0.01)
    return move in state.moves and state.moves[move].stage is stage


def under_way(state: ControlState) -> bool:
    """Whether something is still to be moved, undone or cleaned."""
    running = state.rebalance is not None and state.rebalance.status in ("running", "paused")
    return running or bool(state.moves)


def _victim(deployment: Deployment, fault: Fault, move: MoveRecord, leader: int) -> int:
    match fault:
        case Fault.LEADER_KILLED | Fault.LEADER_STOPPED:
            return leader
        case Fault.SOURCE_KILLED:
            return server_pid(deployment, move.source)
        case Fault.TARGET_KILLED:
            return server_pid(deployment, move.target)
        case Fault.GATEWAY_STOPPED:
            gateway = deployment.state().gateway
            if gateway is None or gateway.pid is None:
                raise RuntimeError("no gateway runs")
            return gateway.pid


def server_pid(deployment: Deployment, shard: ShardId) -> int:
    """The process of a shard's server."""
    pid = deployment.state().shards[shard].pid
    if pid is None:
        raise RuntimeError(f"the server of {shard} does not run")
    return pid


class Leader(Struct, frozen=True):
    """The control node that leads, and its process."""

    node: int
    pid: int


async def leader_of(deployment: Deployment, control: ControlClient, seconds: float = 20.0) -> Leader:
    """The control node that leads, as soon as one does."""
    async with asyncio.timeout(seconds):
        while True:
            for node in await control.status():
                pid = deployment.state().control[str(node.id)].pid
                if node.role == "leader" and node.executing and pid is not None:
                    return Leader(node.id, pid)
            await asyncio.sleep(0.02)


def _without(deployment: Deployment, node: int) -> ControlClient:
    """A client of the other control nodes."""
    return ControlClient(
        lambda: {other: place for other, place in deployment.control_addresses().items() if other != node},
        lambda: client_token(deployment.control_secret()),
    )


async def eventually(ask: Callable[[], Awaitable[Answer]], seconds: float = 30.0) -> Answer:
    """Ask until there is an answer."""
    async with asyncio.timeout(seconds):
        while True:
            try:
                return await ask()
            except DenizenError:
                await asyncio.sleep(0.02)
