"""A node: the core, its log, its connections and the user's state machine, run as one.

    node = Node(1, "/var/lib/counter/1", {1: "127.0.0.1:7001", 2: "127.0.0.1:7002", 3: "127.0.0.1:7003"}, Counter(),
                Settings(secret=b"sixteen bytes or more"))
    await node.start()
    result = await node.propose(b"add 1")     # on any node; the result of the state machine's `apply`
    await node.read()                         # afterwards the state machine here is as new as any answered command
    await node.stop()

Everything runs on the event loop that called `start`, but for the two threads of the disk. `start` founds the cluster
when the directory is new: the nodes named in `peers` are its voters, and all of them must be started with the same. A
node that is to join a running cluster is started with `join=True`, then added with `add_learner` and `promote` on any
member.
"""

import asyncio
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Any, Self

from denizen.raft.errors import BadSettings, NoLeader, RaftError, Stopped
from denizen.raft.machine import StateMachine
from denizen.raft.runtime.applier import Applier
from denizen.raft.runtime.driver import Driver
from denizen.raft.runtime.envelope import OPEN_SESSION, SessionRequest
from denizen.raft.runtime.home import Home
from denizen.raft.runtime.metrics import Status
from denizen.raft.runtime.requests import Requests
from denizen.raft.runtime.sessions import Session
from denizen.raft.runtime.startup import Started, start_core
from denizen.raft.settings import Settings
from denizen.raft.transport import Local, Transport
from denizen.raft.transport.link import split_address
from denizen.raft.types import Configuration, Role
from denizen.raft.wal import Disk, UnsafeDisk


class Node:
    """One member of a Raft cluster."""

    def __init__(
        self,
        id: int,
        directory: str | Path,
        peers: Mapping[int, str],
        state_machine: StateMachine,
        settings: Settings,
        *,
        join: bool = False,
        disk: Disk | None = None,
    ) -> None:
        """`peers` are ids and addresses (`host:port`) of all members, this one's included: that is where it listens."""
        self.id = id
        self._settings = settings
        self._peers = dict(peers)
        self._founders = [] if join else sorted(peers)
        self._disk = disk or (UnsafeDisk() if settings.unsafe_no_fsync else Disk())
        self._home = Home(Path(directory), self._disk)
        self._applier = Applier(state_machine)
        self._met: dict[int, str] = {}
        self._running: _Running | None = None
        self._ending: asyncio.Task[None] | None = None
        self._stopped: asyncio.Future[RaftError | None] | None = None

    # Life

    async def start(self) -> None:
        """Read the directory, listen, take part. Raises `BadSettings`, `WrongDirectory`, `LogDamaged`, `OSError`."""
        self._settings.check()
        if self.id < 1 or self.id not in self._peers:
            raise BadSettings(f"node ids are numbers from 1, and `peers` must name this node ({self.id}) too")
        for id, address in self._peers.items():
            try:
                split_address(address)
            except ValueError as error:
                raise BadSettings(f"`peers` of node {id}: {error}") from None
        self._home.open(self._settings.cluster, self.id)
        try:
            self._running = await self._begin()
        except BaseException:
            self._home.close()
            raise
        self._stopped = asyncio.get_running_loop().create_future()

    async def _begin(self) -> "_Running":
        started = await asyncio.to_thread(self._open)
        try:
            if started.data is not None:
                self._applier.restore(started.data)
            transport = Transport(self._local(), self._settings.tls, self._frame, self._link, self._met_peer)
            try:
                await transport.start(self._peers[self.id])
            except BaseException:
                await transport.stop()
                raise
        except BaseException:
            started.log.close()
            raise
        driver = Driver(self._settings, started, self._applier, transport, self._fail)
        driver.on_members = self._connect
        running = self._running = _Running(started, transport, driver, Requests(driver, transport, self._settings))
        self._connect()
        return running

    def _open(self) -> Started:
        rng = Random(os.urandom(16))  # noqa: S311 - spreads elections, guards nothing
        return start_core(self.id, self._home, self._disk, self._settings, self._founders, rng)

    def _local(self) -> Local:
        return Local(
            cluster=self._settings.cluster,
            node=self.id,
            incarnation=self._home.incarnation,
            secret=self._settings.secret,
            address=self._peers[self.id],
            accepts=self._home.accepts,
        )

    async def stop(self) -> None:
        """Stop taking part and close everything; what waits gets `Stopped` or `OutcomeUnknown`."""
        if self._running is not None:
            self._end(self._running, None)
        await self.wait_stopped()

    async def wait_stopped(self) -> RaftError | None:
        """Return when the node has stopped: None if it was told to, else the error that it stopped itself for."""
        return None if self._stopped is None else await asyncio.shield(self._stopped)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    # Commands and reads

    async def propose(
        self, command: bytes, *, session: Session | SessionRequest | None = None, timeout_s: float | None = None
    ) -> Any:
        """Have `command` applied on every node; return what the state machine returned for it.

        Waits for a leader if there is none. After `NoLeader`, `Overloaded`, `TooLarge` or `NotMember` the command is
        certainly not applied; after `OutcomeUnknown` it may be, now or later. With a session the node itself repeats it
        until the outcome is known or the time is over; the error's `facts["request"]` is what to repeat it with then.
        """
        requests = self._requests()
        return await requests.propose(command, session, requests.deadline(timeout_s))

    async def open_session(self, timeout_s: float | None = None) -> Session:
        """A session, with which repeated commands are applied once. The whole cluster knows it."""
        requests = self._requests()
        return Session(await requests.submit(OPEN_SESSION, requests.deadline(timeout_s), repeat=True))

    async def read(self, timeout_s: float | None = None) -> int:
        """Wait until the state machine here is as new as every command answered before this call (linearizable).

        Returns the index it has applied. Works on every member; the leader is asked, and confirms that it leads.
        """
        requests = self._requests()
        return await requests.read(requests.deadline(timeout_s))

    # The cluster

    async def add_learner(self, id: int, address: str, timeout_s: float | None = None) -> None:
        """Make `id`, listening at `address`, a member that receives the log without voting."""
        requests = self._requests()
        await requests.add_learner(id, address, requests.deadline(timeout_s))

    async def promote(self, id: int, timeout_s: float | None = None) -> None:
        """Make a learner a voter as soon as it has caught up; returns when it votes."""
        requests = self._requests()
        await requests.promote(id, requests.deadline(timeout_s))

    async def remove(self, id: int, timeout_s: float | None = None) -> None:
        """Remove a member, voter or learner. Its id is not to be used again."""
        requests = self._requests()
        await requests.remove(id, requests.deadline(timeout_s))

    async def transfer_leadership(self, id: int | None = None, timeout_s: float | None = None) -> None:
        """Hand the leadership to voter `id`, or to the one that is closest to the leader's log."""
        requests = self._requests()
        await requests.transfer(id, requests.deadline(timeout_s))

    async def snapshot(self) -> int:
        """Make a snapshot of this node's state now and forget the log it stands for; its index."""
        return await self._parts().driver.snapshot()

    async def wait_news(self) -> None:
        """Wait until the leadership, the members or a link may have changed; a fifth of a second, at most."""
        await self._parts().driver.chance.wait()

    async def wait_leader(self, timeout_s: float | None = None) -> int:
        """Wait until a leader is known; its id. Raises `NoLeader`."""
        requests = self._requests()
        deadline = requests.deadline(timeout_s)
        while (leader := self.leader) is None:
            if not await requests.chance(deadline):
                raise NoLeader("no leader was elected in time: is a majority of the voters running and connected?")
        return leader

    # How it looks

    @property
    def is_running(self) -> bool:
        """Whether it was started and has not stopped."""
        return self._running is not None

    @property
    def leader(self) -> int | None:
        """The leader this node knows of."""
        return (self._running.driver.core.leader or None) if self._running is not None else None

    @property
    def is_leader(self) -> bool:
        """Whether this node believes that it leads; only `read` makes sure."""
        return self._running is not None and self._running.driver.core.role is Role.LEADER

    @property
    def applied(self) -> int:
        """The index of the last entry that the state machine has applied."""
        return self._running.driver.applied if self._running is not None else 0

    @property
    def configuration(self) -> Configuration:
        """The members as of the newest configuration in this node's log."""
        return self._parts().driver.core.configuration

    def status(self) -> Status:
        """Everything worth knowing about this node now."""
        parts = self._parts()
        driver, core, leader, addresses = parts.driver, parts.driver.core, self.leader, self._addresses()
        metrics = driver.totals()
        return Status(
            id=self.id,
            role=driver.role,
            term=core.term,
            leader=leader,
            leader_address=addresses.get(leader) if leader is not None else None,
            commit=core.commit,
            applied=driver.applied,
            first_index=core.first_index,
            last_index=core.last_index,
            snapshot_index=driver.snapshot_index,
            configuration=core.configuration,
            addresses=addresses,
            unreachable=parts.transport.refusals(),
            dropped_tail_bytes=parts.started.dropped_tail_bytes,
            metrics=asdict(metrics),
        )

    # Inside

    def _parts(self) -> "_Running":
        if self._running is None:
            raise Stopped("the node does not run: start it first, or use another node")
        return self._running

    def _requests(self) -> Requests:
        return self._parts().requests

    def _addresses(self) -> dict[int, str]:
        """Where everybody listens: what this node was told at its start goes before what the log and the peers say."""
        return self._met | self._applier.addresses | self._peers

    def _connect(self) -> None:
        """Link to the members and to whoever is connected to this node, for it must be answered: a leader that is being
        removed, or one that a lagging log does not name yet. A node that is no member links to everybody it knows.
        """
        if self._running is None:
            return
        wanted: set[int] = {*self._running.driver.core.configuration.members}
        addresses = {id: address for id, address in self._addresses().items() if id != self.id}
        if self.id in wanted:
            wanted |= self._running.transport.present.keys()
            addresses = {id: address for id, address in addresses.items() if id in wanted}
        self._running.transport.set_peers(addresses)

    def _frame(self, peer: int, frame: bytes) -> None:
        if self._running is not None:
            self._running.driver.frame(peer, frame)

    def _link(self, peer: int, up: bool) -> None:
        if self._running is not None:
            self._running.driver.link(peer, up)

    def _met_peer(self, peer: int, address: str | None) -> None:
        if address:
            self._met[peer] = address
        self._connect()

    def _fail(self, error: BaseException) -> None:
        """The node cannot go on: stop it, for this reason."""
        if not isinstance(error, RaftError):
            cause = error
            error = Stopped(f"the node stopped itself: {type(cause).__name__}: {cause}", cause=str(cause))
            error.__cause__ = cause
        if self._running is not None:
            self._end(self._running, error)

    def _end(self, running: "_Running", error: RaftError | None) -> None:
        """Begin to stop, once."""
        self._running = None
        running.driver.halt("it was told to" if error is None else str(error))
        self._ending = asyncio.get_running_loop().create_task(self._close(running, error))

    async def _close(self, running: "_Running", error: RaftError | None) -> None:
        await running.transport.stop()
        await running.driver.join()
        await asyncio.to_thread(running.started.log.close)
        self._home.close()
        if self._stopped is not None and not self._stopped.done():
            self._stopped.set_result(error)


@dataclass(frozen=True, slots=True)
class _Running:
    """The parts of a node while it runs."""

    started: Started
    transport: Transport
    driver: Driver
    requests: Requests
