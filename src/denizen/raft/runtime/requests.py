"""What a node's callers ask for: commands, reads, changes of the membership. Here or at the leader, until a deadline.

A try that certainly had no effect is repeated when there is a new chance (a leader, a link to it). One whose outcome is
unknown is repeated only if that does no harm: with a session, for a read.
"""

import asyncio
from collections.abc import Awaitable
from typing import Any

from denizen.raft.effects import Refusal
from denizen.raft.errors import ChangeRefused, NoLeader, NotMember, OutcomeUnknown, Overloaded, TooLarge
from denizen.raft.runtime.driver import Driver
from denizen.raft.runtime.envelope import ChangeKind, SessionRequest, wrap, wrap_address, wrap_change
from denizen.raft.runtime.pending import FutureWaiter
from denizen.raft.runtime.sessions import Session
from denizen.raft.settings import Settings
from denizen.raft.transport import Transport
from denizen.raft.transport.link import split_address
from denizen.raft.types import Configuration, Role


class Requests:
    """The callers' side of one running node."""

    def __init__(self, driver: Driver, transport: Transport, settings: Settings) -> None:
        self._driver, self._transport, self._settings = driver, transport, settings
        self._loop = asyncio.get_running_loop()

    def deadline(self, timeout_s: float | None) -> float:
        """When a request that begins now is over, on the loop's clock."""
        return self._loop.time() + (self._settings.propose_s if timeout_s is None else timeout_s)

    async def propose(self, command: bytes, session: Session | SessionRequest | None, deadline: float) -> Any:
        """See `Node.propose`."""
        if len(command) > self._settings.command_bytes_max:
            raise TooLarge(f"the command has {len(command)} bytes, at most {self._settings.command_bytes_max} may be")
        if session is None:
            return await self.submit(wrap(command), deadline)
        request = session.request() if isinstance(session, Session) else session
        try:
            outcome = await self.submit(wrap(command, request), deadline, repeat=True)
        except (OutcomeUnknown, NoLeader, Overloaded) as error:
            raise OutcomeUnknown(f"a try may have been applied: {error.detail}", request=request) from error
        if isinstance(session, Session):
            session.settle(request)
        return outcome

    async def submit(self, data: bytes, deadline: float, *, repeat: bool = False) -> Any:
        """Propose `data` until its outcome is known; without `repeat`, a try that may have an effect is the last."""
        while True:
            try:
                return await self._try(data, deadline)
            except NoLeader:
                if not await self.chance(deadline):
                    raise
            except OutcomeUnknown:
                if not repeat or not await self.chance(deadline):
                    raise

    async def read(self, deadline: float) -> int:
        """See `Node.read`."""
        driver = self._driver
        while True:
            future: asyncio.Future[int] = self._loop.create_future()
            driver.check_running()
            driver.pending.read(FutureWaiter(future, deadline))
            driver.wake()
            try:
                return await future
            except NoLeader:
                if not driver.is_member:
                    raise _not_member() from None
                if not await self.chance(deadline):
                    raise

    async def add_learner(self, node: int, address: str, deadline: float) -> None:
        """Tell every node where it listens, then make it a learner."""
        try:
            split_address(address)
        except ValueError as error:
            raise _refused(f"the address of node {node}: {error}") from None
        if node in (await self._configuration(node, deadline)).members:
            raise _refused(f"node {node} is a member already")
        await self.submit(wrap_address(node, address), deadline, repeat=True)
        await self.submit(wrap_change(ChangeKind.ADD_LEARNER, node), deadline)

    async def promote(self, node: int, deadline: float) -> None:
        """Make it a voter, and wait until it is one in this node's log."""
        configuration = await self._configuration(node, deadline)
        if node not in configuration.learners:
            raise _refused(f"node {node} is no learner: add it first, unless it votes already")
        if node not in configuration.joining:
            await self.submit(wrap_change(ChangeKind.ADD_VOTER, node), deadline)
        core = self._driver.core
        while node not in core.configuration.voters or core.configuration.joint:
            if not await self.chance(deadline):
                raise OutcomeUnknown(f"node {node} has not caught up yet; it becomes a voter when it has")

    async def remove(self, node: int, deadline: float) -> None:
        """Remove it from the members."""
        if node not in (await self._configuration(node, deadline)).members:
            raise _refused(f"node {node} is no member")
        await self.submit(wrap_change(ChangeKind.REMOVE, node), deadline)

    async def transfer(self, node: int | None, deadline: float) -> None:
        """Hand the leadership over; None lets the leader choose."""
        if node is not None:
            _check_id(node)
        await self.submit(wrap_change(ChangeKind.TRANSFER, node or 0), deadline)

    async def chance(self, deadline: float) -> bool:
        """Wait until another try may go better; False when the deadline has passed."""
        if self._loop.time() >= deadline:
            return False
        await self._driver.chance.wait()
        self._driver.check_running()
        return True

    async def _configuration(self, node: int, deadline: float) -> Configuration:
        """The members, as new as any change that was answered; `node` is the one that a change is asked for."""
        _check_id(node)
        await self.read(deadline)
        return self._driver.core.configuration

    def _try(self, data: bytes, deadline: float) -> Awaitable[Any]:
        """Propose once. Raises what certainly had no effect; the future tells the rest."""
        driver = self._driver
        driver.check_running()
        if not driver.is_member:
            raise _not_member()
        core = driver.core
        future: asyncio.Future[Any] = self._loop.create_future()
        waiter = FutureWaiter(future, deadline)
        driver.metrics.proposals += 1
        if core.role is Role.LEADER:
            driver.propose(data, waiter)
        elif core.leader and self._transport.up(core.leader):
            driver.metrics.proposals_forwarded += 1
            driver.forwarding.ask(core.leader, data, waiter)
        else:
            raise NoLeader("no leader is known, or it cannot be reached from here; try again after an election")
        driver.wake()
        return future


def _check_id(node: int) -> None:
    if not 1 <= node < 1 << 63:
        raise _refused(f"{node} is no id of a node: they are numbers from 1")


def _refused(detail: str) -> ChangeRefused:
    return ChangeRefused(detail, reason=Refusal.INVALID_CHANGE.value)


def _not_member() -> NotMember:
    return NotMember("this node is not a member of the cluster; add it first with `add_learner` on a member")
