"""A voter of the control plane as a process: node, internal API and, while it leads, the executor of moves."""

import asyncio
import signal
import sys
from collections.abc import Mapping
from typing import Any

import structlog

from denizen import limits
from denizen.control.node import ControlNode, NodePlan
from denizen.control.server import ControlServer
from denizen.control.wire import MoveProgress
from denizen.deployment.layout import Deployment
from denizen.errors import BadDeployment, Unavailable
from denizen.postgres.server import HOST
from denizen.raft import RaftError
from denizen.sharding.ids import ShardId
from denizen.users.login_names import LoginNameKind

_log = structlog.get_logger()


async def serve_control(deployment: Deployment, number: int) -> int:
    """Serve until a signal asks to stop; the exit code: 1 if the node could not go on."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signal_number, stop.set)
    node = ControlNode(plan_of(deployment, number), lambda node: LeadersWork(deployment, node))
    try:
        await node.start()
    except (RaftError, OSError) as error:
        print(f"denizen control: node {number}: {error}", file=sys.stderr)
        return 1
    server = ControlServer(node)
    await server.start()
    _log.info("control_started", node=number, address=node.plan.address)
    ending = asyncio.create_task(node.wait_stopped())
    asked = asyncio.create_task(stop.wait())
    await asyncio.wait({ending, asked}, return_when=asyncio.FIRST_COMPLETED)
    asked.cancel()
    cause = ending.result() if ending.done() else None
    await server.stop()
    await node.stop()
    await ending
    if cause is not None:
        _log.error("control_stopped", node=number, error=str(cause))
    return 1 if cause is not None else 0


class LeadersWork:
    """What the leader does: it carries moves out, with hands on every shard, paced as operators say."""

    def __init__(self, deployment: Deployment, node: ControlNode) -> None:
        from denizen.control.executor import Executor  # only a leader needs them
        from denizen.moving.mover import Mover

        deployment.use_keyring()
        self._deployment = deployment
        self._node = node
        kinds = frozenset(LoginNameKind.from_word(word) for word in deployment.login_names)
        self._mover = Mover(self._connect_args, deployment.hash_seed, kinds)
        self._executor = Executor(node, self._mover, node.plan.id)

    async def run(self) -> None:
        """Carry moves out until cancelled, or until another leader has taken over."""
        async with self._mover:
            pacing = asyncio.get_running_loop().create_task(self._follow_settings())
            try:
                await self._executor.run()
            finally:
                pacing.cancel()
                await asyncio.gather(pacing, return_exceptions=True)

    def progress(self) -> list[MoveProgress]:
        """How far the moves under way are."""
        return self._executor.progress()

    async def _follow_settings(self) -> None:
        """Operators may change the pace while moves are under way."""
        while True:
            state = self._node.state
            settings = state.settings
            self._mover.pace.set(
                events_per_s=settings.copy_events_per_s,
                rows_per_s=settings.clean_rows_per_s,
                latency_ms=settings.latency_ms,
            )
            await self._node.changed(state.revision, limits.control_wait_s)

    def _connect_args(self, shard: ShardId) -> Mapping[str, Any]:
        places = self._deployment.places()
        if shard not in places:
            raise Unavailable(f"shard {shard} is not known on this machine yet")
        return places[shard]


def plan_of(deployment: Deployment, number: int) -> NodePlan:
    """Where this node listens and whom it talks to, as the supervisor wrote it down."""
    nodes = {int(node): process for node, process in deployment.state().control.items()}
    if number not in nodes:
        raise BadDeployment(f"there is no control node {number}; `denizen up` starts them")
    return NodePlan(
        id=number,
        deployment=deployment.id,
        directory=deployment.directory / "control" / str(number) / "raft",
        peers={node: f"{HOST}:{process.raft_port}" for node, process in nodes.items()},
        address=f"{HOST}:{nodes[number].port}",
        secret=deployment.control_secret(),
    )
