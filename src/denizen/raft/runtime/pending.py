"""Requests that wait: commands to be proposed, places of the log to be applied, reads, changes.

A waiter is told its outcome once: a result, or a `RaftError` as a value. Its caller may be here (a future) or another
node (see `forwarding`). Everything is bounded, and `expire` ends what waits too long: what may still take effect
becomes `OutcomeUnknown`, what certainly does not becomes `NoLeader`.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from denizen.raft import limits
from denizen.raft.effects import Accepted, ReadReady, Refusal, Refused
from denizen.raft.errors import (
    ChangeRefused,
    NoLeader,
    OutcomeUnknown,
    Overloaded,
    RaftError,
    Stopped,
    TooLarge,
)
from denizen.raft.events import Change, Event, Propose, Read, Transfer


class Waiter(ABC):
    """Whoever waits for an outcome until `deadline` (seconds of the loop's clock)."""

    __slots__ = ("deadline", "term")

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        self.term = 0
        """Of the log's place it waits for."""

    @abstractmethod
    def tell(self, outcome: Any) -> None:
        """The outcome; anything after the first is ignored."""


class FutureWaiter(Waiter):
    """A caller in this process."""

    __slots__ = ("future",)

    def __init__(self, future: "asyncio.Future[Any]", deadline: float) -> None:
        super().__init__(deadline)
        self.future = future

    def tell(self, outcome: Any) -> None:
        """Set the future's result or error."""
        if self.future.done():
            return
        if isinstance(outcome, RaftError):
            self.future.set_exception(outcome)
        else:
            self.future.set_result(outcome)


class Pending:
    """All waiting requests of one node."""

    def __init__(self, proposals_max: int) -> None:
        self._proposals_max = proposals_max
        self._key = 0
        self._commands: list[tuple[bytes, Waiter]] = []
        self._reads: list[Waiter] = []
        self._batches: dict[int, list[Waiter]] = {}
        self._read_batches: dict[int, list[Waiter]] = {}
        self._placed: dict[int, Waiter] = {}
        self._changes: dict[int, tuple[Change | Transfer, Waiter, bool]] = {}
        self._ready: list[tuple[int, list[Waiter]]] = []
        self._reads_waiting = 0
        self.unknown = 0
        """How many outcomes were reported as unknown."""

    # What callers ask for

    def propose(self, data: bytes, waiter: Waiter) -> None:
        """Propose with the next step. Raises `Overloaded`."""
        if len(self._commands) + len(self._placed) >= self._proposals_max:
            raise Overloaded(f"{self._proposals_max} commands wait already; back off and try again")
        self._commands.append((data, waiter))

    def read(self, waiter: Waiter) -> None:
        """Read with the next step; all reads of a step share one round. Raises `Overloaded`."""
        if self._reads_waiting >= limits.reads_waiting_max:
            raise Overloaded(f"{limits.reads_waiting_max} reads wait already; back off and try again")
        self._reads_waiting += 1
        self._reads.append(waiter)

    def change(self, make: Callable[[int], Change | Transfer], waiter: Waiter) -> Event:
        """The event of a membership change or transfer, made with its key."""
        key = self._next_key()
        event = make(key)
        self._changes[key] = (event, waiter, False)
        return event

    @property
    def asked(self) -> bool:
        """Whether commands or reads wait for a step."""
        return bool(self._commands or self._reads)

    def events(self) -> Iterator[Event]:
        """The commands and reads that came since the last step, as few events."""
        if self._reads:
            key = self._next_key()
            self._read_batches[key], self._reads = self._reads, []
            yield Read(key)
        commands, self._commands = self._commands, []
        at = 0
        while at < len(commands):
            size, end = 0, at
            while end < len(commands) and end - at < limits.step_entries_max and size < limits.step_bytes_max:
                size += len(commands[end][0])
                end += 1
            key = self._next_key()
            self._batches[key] = [waiter for _, waiter in commands[at:end]]
            yield Propose(key, [data for data, _ in commands[at:end]])
            at = end

    # What the core answers

    def accepted(self, accepted: Accepted) -> None:
        """A batch has its places; the outcome comes when they are applied. A change is in the log."""
        waiters = self._batches.pop(accepted.key, None)
        if waiters is None:
            change = self._changes.get(accepted.key)
            if change is not None:
                self._changes[accepted.key] = (change[0], change[1], True)
            return
        term, placed = accepted.term, self._placed
        for index, waiter in enumerate(waiters, accepted.first_index):
            waiter.term = term
            former = placed.get(index)
            if former is not None:
                former.tell(_replaced())
            placed[index] = waiter

    def refused(self, refused: Refused) -> None:
        """The request with this key is not carried out."""
        reason = refused.reason
        change = self._changes.pop(refused.key, None)
        if change is not None:
            change[1].tell(self._change_error(reason, appended=change[2]))
            return
        waiters = self._batches.pop(refused.key, None)
        if waiters is None:
            waiters = self._read_batches.pop(refused.key, [])
            self._reads_waiting -= len(waiters)
        error = _refusal(reason)
        for waiter in waiters:
            waiter.tell(error)

    def completed(self, key: int) -> None:
        """A change is in force, a transfer done."""
        change = self._changes.pop(key, None)
        if change is not None:
            change[1].tell(None)

    def applied(self, index: int, term: int, outcome: Any) -> None:
        """The entry at `index` was applied."""
        waiter = self._placed.pop(index, None)
        if waiter is not None:
            waiter.tell(outcome if waiter.term == term else _replaced())

    def skipped(self, index: int) -> None:
        """A snapshot stands for everything up to `index`: what waits there will not learn its outcome."""
        for at in [at for at in self._placed if at <= index]:
            self._unknown(self._placed.pop(at))

    def read_ready(self, ready: ReadReady) -> None:
        """Reads may be answered once `index` is applied."""
        waiters = self._read_batches.pop(ready.key, None)
        if waiters:
            self._ready.append((ready.index, waiters))

    def answer_reads(self, applied: int) -> int:
        """Answer the reads that the state is new enough for; return how many."""
        if not self._ready:
            return 0
        count, rest = 0, []
        for index, waiters in self._ready:
            if index > applied:
                rest.append((index, waiters))
                continue
            count += len(waiters)
            for waiter in waiters:
                waiter.tell(applied)
        self._ready = rest
        self._reads_waiting -= count
        return count

    # Ends

    def expire(self, now: float) -> None:
        """End what has waited too long."""
        for at in [at for at, waiter in self._placed.items() if waiter.deadline <= now]:
            self._unknown(self._placed.pop(at))
        for key in [key for key, change in self._changes.items() if change[1].deadline <= now]:
            self._unknown(self._changes.pop(key)[1])
        late = NoLeader("no leader confirmed the read in time; try again")
        for key in [key for key, waiters in self._read_batches.items() if waiters[-1].deadline <= now]:
            waiters = self._read_batches.pop(key)
            self._reads_waiting -= len(waiters)
            _tell(waiters, late)

    def stop(self, cause: str) -> None:
        """The node stops: nothing more will be learnt here."""
        stopped = Stopped(f"the node stopped: {cause}. Start it again, or use another node.", cause=cause)
        _tell((waiter for _, waiter in self._commands), stopped)
        _tell(self._reads, stopped)
        for waiters in [*self._read_batches.values(), *(waiters for _, waiters in self._ready)]:
            _tell(waiters, stopped)
        for waiters in self._batches.values():
            for waiter in waiters:
                self._unknown(waiter)
        for waiter in [*self._placed.values(), *(change[1] for change in self._changes.values())]:
            self._unknown(waiter)
        self._proposals_max = 0
        for waiting in (self._batches, self._read_batches, self._placed, self._changes):
            waiting.clear()
        self._commands, self._reads, self._ready = [], [], []

    def _unknown(self, waiter: Waiter) -> None:
        self.unknown += 1
        waiter.tell(OutcomeUnknown("the command may or may not be applied; repeat it with its session to learn which"))

    def _next_key(self) -> int:
        self._key += 1
        return self._key

    @staticmethod
    def _change_error(reason: Refusal, *, appended: bool) -> RaftError:
        if appended or reason is Refusal.LEADERSHIP_LOST:
            return OutcomeUnknown("the leadership changed before the change was in force; look at the status")
        if reason in (Refusal.NOT_LEADER, Refusal.TERM_NOT_COMMITTED, Refusal.TRANSFERRING):
            return NoLeader(f"there is no leader to do this now ({reason.value}); try again")
        return ChangeRefused(_CHANGE_REFUSALS.get(reason, f"refused: {reason.value}"), reason=reason.value)


def _replaced() -> NoLeader:
    return NoLeader("another leader's entry took the command's place; it was not applied; try again")


_CHANGE_REFUSALS = {
    Refusal.CHANGE_PENDING: "another membership change is not finished yet; try again when it is",
    Refusal.INVALID_CHANGE: "the change names wrong members, changes nothing, or would leave no voter",
    Refusal.NOT_A_VOTER: "the leadership can only go to another voter",
    Refusal.TIMED_OUT: "the other node did not take over in time; it may be down or behind",
}


def _refusal(reason: Refusal) -> RaftError:
    """The error for a proposal or read that the core refused; none of these was carried out."""
    if reason is Refusal.BUSY:
        return Overloaded("the leader has too much to commit already; back off and try again")
    if reason is Refusal.TOO_LARGE:
        return TooLarge("the command is larger than an entry may be")
    return NoLeader(f"there is no leader to do this now ({reason.value}); try again")


def _tell(waiters: Iterable[Waiter], outcome: Any) -> None:
    for waiter in waiters:
        waiter.tell(outcome)
