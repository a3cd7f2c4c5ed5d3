"""A control node: a voter of the Raft group that holds the deployment's metadata, and what it does while it leads.

    raft ── applies ──▶ state ── rings ──▶ whoever watches (see `server`)
    role ── leads ────▶ work starts: the executor takes over and carries moves out
         ── no longer ▶ work is cancelled, before anything else

That the work ends with the leadership is courtesy, not safety: everything the executor says carries its number, and
everything it does on a shard carries the attempt, so that a leader that does not know yet that it was replaced is
refused by the log and by the databases.
"""

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol, Self
from uuid import UUID

import structlog
from msgspec import Struct

from denizen import limits
from denizen.control.commands import Command, Reply, decode_reply, encode_command
from denizen.control.machine import ControlMachine
from denizen.control.state import ControlState
from denizen.control.wire import MoveProgress, NodeStatus, raft_secret
from denizen.raft import Node, RaftError, Settings

_log = structlog.get_logger()


class NodePlan(Struct, frozen=True):
    """Everything that is decided about a node before it runs. Addresses are `host:port`."""

    id: int
    deployment: UUID
    directory: Path
    peers: Mapping[int, str]  # where the voters listen for each other, this one too
    address: str  # where it listens for clients
    secret: bytes


class Work(Protocol):
    """What a leader does; run anew for each leadership, ended by cancelling it."""

    async def run(self) -> None:
        """Do it, until cancelled."""
        ...

    def progress(self) -> list[MoveProgress]:
        """How far it is with what it does now."""
        ...


class ControlNode:
    """One voter. Owns the Raft node, the machine, and the task that works while this node leads."""

    def __init__(self, plan: NodePlan, make_work: Callable[["ControlNode"], Work] | None = None) -> None:
        """`make_work` makes the work of one leadership; without it, this node only votes and serves."""
        self.plan = plan
        self._bell = _Bell()
        self._machine = ControlMachine(self._state_changed)
        self._spreading: asyncio.Task[None] | None = None
        self._raft = Node(plan.id, plan.directory, plan.peers, self._machine, _settings(plan))
        self._make_work = make_work
        self._work: Work | None = None
        self._leading: asyncio.Task[None] | None = None
        self._catching_up: asyncio.Task[None] | None = None
        self._caught_up = False  # with what was decided before it started
        self.stopping = False

    async def start(self) -> None:
        """Take part. Raises the errors of `denizen.raft.Node.start`."""
        await self._raft.start()
        self._catching_up = asyncio.get_running_loop().create_task(self._catch_up())
        if self._make_work is not None:
            self._leading = asyncio.get_running_loop().create_task(self._lead(self._make_work))

    def release(self) -> None:
        """Answer everybody who waits for a change: this node is about to stop."""
        self.stopping = True
        self._bell.ring()

    async def stop(self) -> None:
        """End the work, hand the leadership on, stop taking part."""
        self.release()
        if self._leading is not None:
            self._leading.cancel()
            await asyncio.gather(self._leading, return_exceptions=True)
        for task in (self._catching_up, self._spreading):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        if self._raft.is_leader and len(self.plan.peers) > 1:
            with contextlib.suppress(RaftError, TimeoutError):
                await asyncio.wait_for(self._raft.transfer_leadership(), 1.0)
        await self._raft.stop()

    async def wait_stopped(self) -> RaftError | None:
        """Return when the node takes part no longer: the error that it stopped itself for, if any."""
        return await self._raft.wait_stopped()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    # What it knows

    @property
    def state(self) -> ControlState:
        """The state as applied here; immutable."""
        return self._machine.state

    @property
    def is_leader(self) -> bool:
        """Whether this node believes that it leads."""
        return self._raft.is_leader

    async def changed(self, revision: int, timeout_s: float) -> ControlState:
        """The state as soon as it is newer than that revision, or as it is at `release` or when the time is over."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                if self.state.revision <= revision:  # once: who asks again while it stops has to wait all the same
                    await self._bell.wait()
        return self.state

    async def confirm(self) -> ControlState:
        """The state with everything that was acknowledged before this call (linearizable)."""
        await self._raft.read(timeout_s=limits.control_propose_s)
        self._caught_up = True
        return self.state

    async def known(self) -> ControlState:
        """The state as applied here, with at least everything that was acknowledged before this node started.

        A node that starts knows nothing at first, or what its last snapshot says: it waits for a leader once.
        """
        return self.state if self._caught_up else await self.confirm()

    async def propose(self, command: Command) -> Reply:
        """Have a command decided, wherever the leader is. Raises the errors of `denizen.raft.Node.propose`."""
        return decode_reply(await self._raft.propose(encode_command(command), timeout_s=limits.control_propose_s))

    def status(self) -> NodeStatus:
        """This node, as it sees itself."""
        raft, state = self._raft.status(), self.state
        return NodeStatus(
            id=self.plan.id,
            address=self.plan.address,
            role=raft.role,
            term=raft.term,
            leader=raft.leader,
            commit=raft.commit,
            applied=raft.applied,
            revision=state.revision,
            map_version=state.map.version if state.map else 0,
            voters=raft.voters,
            unreachable=raft.unreachable,
            executing=self._work is not None,
        )

    def progress(self) -> list[MoveProgress]:
        """How far the moves are that this node carries out; nothing if it does not lead."""
        return self._work.progress() if self._work is not None else []

    async def _catch_up(self) -> None:
        while not self._caught_up:
            try:
                await self.confirm()
            except RaftError:
                await asyncio.sleep(limits.control_lead_retry_s)

    # While it leads

    def _state_changed(self) -> None:
        """Tell whoever waits here; and, as the leader, the followers too, for others wait there.

        A follower would learn that a command is committed with the next heartbeat, a tenth of a second later, for which
        held writes would wait. A linearizable read makes a round of heartbeats at once.
        """
        self._bell.ring()
        spreading = self._spreading is not None and not self._spreading.done()
        if self._raft.is_leader and len(self.plan.peers) > 1 and not spreading and not self.stopping:
            self._spreading = asyncio.get_running_loop().create_task(self._spread())

    async def _spread(self) -> None:
        spread = -1
        while spread < self.state.revision and self._raft.is_leader:
            spread = self.state.revision
            with contextlib.suppress(RaftError):
                await self._raft.read(timeout_s=limits.control_propose_s)

    async def _lead(self, make_work: Callable[["ControlNode"], Work]) -> None:
        working: asyncio.Task[None] | None = None
        try:
            while True:
                if working is None and self._raft.is_leader:
                    self._work = make_work(self)
                    working = asyncio.get_running_loop().create_task(self._run(self._work))
                elif working is not None and not self._raft.is_leader:
                    await self._end(working)
                    working = None
                elif working is not None and working.done():
                    await asyncio.sleep(limits.control_lead_retry_s)
                    await self._end(working)
                    working = None
                await self._raft.wait_news()
        finally:
            if working is not None:
                await self._end(working)

    async def _run(self, work: Work) -> None:
        try:
            await self._raft.read(timeout_s=limits.control_propose_s)  # it leads, and has applied what was decided
            _log.info("control_leads", node=self.plan.id, term=self._raft.status().term)
            await work.run()
        except RaftError as error:  # no leader any more, most likely; if still, it is made anew
            _log.info("control_work_ended", node=self.plan.id, error=error.code)
        except Exception:  # noqa: BLE001 - whatever it was, it must be told, and done again
            _log.exception("control_work_failed", node=self.plan.id)

    async def _end(self, working: "asyncio.Task[None]") -> None:
        self._work = None
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
        _log.info("control_works_no_longer", node=self.plan.id)


class _Bell:
    """Wakes everybody who waits, each time that it is rung."""

    def __init__(self) -> None:
        self._rung = asyncio.Event()

    def ring(self) -> None:
        self._rung.set()
        self._rung = asyncio.Event()

    async def wait(self) -> None:
        """Until it rings next."""
        await self._rung.wait()


def _settings(plan: NodePlan) -> Settings:
    return Settings(
        secret=raft_secret(plan.secret),
        cluster=f"denizen-{plan.deployment}",
        tick_ms=limits.control_tick_ms,
        heartbeat_ms=limits.control_heartbeat_ms,
        election_ms=limits.control_election_ms,
        snapshot_entries=2_000,
    )
