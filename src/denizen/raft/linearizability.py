"""Is a history of concurrent operations linearizable? The algorithm of Wing and Gong with Lowe's improvements.

Each operation was called at one time and returned at another. The history is linearizable when every operation can be
given one moment between the two so that, carried out one after the other in that order, each gives the result that was
seen. An operation that timed out is *unknown*: it may have happened at any time since its call, or never, and its
result says nothing.

The search keeps the calls and returns in a list ordered by time. It takes out an operation whose call comes before the
first return in the list and whose result fits, and goes on; when a return is met its operation came too late, and the
last choice is taken back. What makes it bearable (Lowe): a set of operations taken out together with the state they
lead to is tried once only. Keys are independent of each other, so that each is searched by itself (Horn and Kroening).

A search that needs more than `states_max` states raises `Undecided`: not being able to tell is never a pass.
"""

from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from enum import Enum
from typing import NamedTuple

from msgspec import Struct

State = Hashable | None


class Kind(Enum):
    """What is done to one key. A state is the key's value, or None when it does not exist."""

    PUT = "put"
    """Set to `argument`; the result is None."""
    GET = "get"
    """The result is the value."""
    DELETE = "delete"
    """The result is whether the key existed."""
    SWAP = "swap"
    """If the value is `expected`, set to `argument`; the result is whether it was."""


class Operation(Struct, frozen=True):
    """One operation of one client; times are of one clock in any unit. `returned` is None when it is unknown."""

    client: str
    key: str
    kind: Kind
    called: int
    returned: int | None
    argument: State = None
    expected: State = None
    result: State = None

    def __str__(self) -> str:
        given = {
            Kind.PUT: f"put {self.argument!r}",
            Kind.GET: "get",
            Kind.DELETE: "delete",
            Kind.SWAP: f"swap {self.expected!r} for {self.argument!r}",
        }[self.kind]
        outcome = "unknown" if self.returned is None else repr(self.result)
        return f"[{self.called} … {self.returned or '∞'}] {self.client}: {self.key}: {given} -> {outcome}"


class Undecided(Exception):
    """The search was given up: nothing is known about the history."""


class Verdict(Struct, frozen=True):
    """Whether the history is linearizable; if not, `explanation` shows how far the search came for one key."""

    linearizable: bool
    operations: int
    unknown: int
    keys: int
    explanation: str = ""


def check(history: Iterable[Operation], *, states_max: int = 5_000_000) -> Verdict:
    """Return whether the history is linearizable, every key starting out not existing."""
    by_key: dict[str, list[Operation]] = defaultdict(list)
    for operation in history:
        if operation.returned is not None and operation.returned < operation.called:
            raise ValueError(f"returned before it was called: {operation}")
        by_key[operation.key].append(operation)
    count = sum(map(len, by_key.values()))
    unknown = sum(operation.returned is None for operations in by_key.values() for operation in operations)
    explanation = ""
    for key in sorted(by_key):
        explanation = _Search(by_key[key], states_max).explain_failure()
        if explanation:
            break
    return Verdict(not explanation, count, unknown, len(by_key), explanation)


def step(state: State, operation: Operation) -> tuple[bool, State]:
    """Carry an operation out: whether its result fits the state, and the state after it."""
    known = operation.returned is not None
    match operation.kind:
        case Kind.PUT:
            return True, operation.argument
        case Kind.GET:
            return not known or operation.result == state, state
        case Kind.DELETE:
            return not known or operation.result == (state is not None), None
        case Kind.SWAP:
            hit = state == operation.expected
            return not known or operation.result == hit, operation.argument if hit else state


class _Mark:
    """The call or the return of an operation, linked to its neighbours in time."""

    __slots__ = ("after", "before", "bit", "is_call", "operation", "partner")

    def __init__(self, operation: Operation | None, bit: int, is_call: bool) -> None:
        self.operation = operation
        self.bit = bit
        self.is_call = is_call
        self.partner: _Mark | None = None
        self.before: _Mark | None = None
        self.after: _Mark | None = None

    def unlink(self) -> None:
        if self.before is not None:
            self.before.after = self.after
        if self.after is not None:
            self.after.before = self.before

    def relink(self) -> None:
        if self.before is not None:
            self.before.after = self
        if self.after is not None:
            self.after.before = self


class _Taken(NamedTuple):
    """An operation that was taken out, and the state it met."""

    mark: _Mark
    state: State
    known: bool


_KNOWN = object()


def _useful_step(state: State, mark: _Mark, taken: list[_Taken]) -> tuple[bool, State]:
    """Carry out the marked operation, unless it or the unknown one before it would be of no use here."""
    operation = mark.operation
    if operation is None:
        return False, None
    fits, after = step(state, operation)
    if not fits or (mark.partner is None and after == state):
        return False, None
    if taken and not taken[-1].known:
        earlier = taken[-1].state
        would_fit, would_be = step(earlier, operation)
        if would_fit and (would_be == after or (would_be == earlier and after == state)):
            return False, None
    return True, after


class _Search:
    """The search over one key's operations."""

    def __init__(self, operations: Sequence[Operation], states_max: int) -> None:
        telling = (o for o in operations if o.returned is not None or o.kind is not Kind.GET)
        self._operations = sorted(telling, key=lambda operation: operation.called)
        self._states_max = states_max
        self._known = sum(operation.returned is not None for operation in operations)
        self._head = _linked(self._operations)
        self._longest: list[Operation] = []
        self._stuck: Operation | None = None

    def explain_failure(self) -> str:
        """Return "" when the operations are linearizable, and otherwise what the search met."""
        if self._search():
            return ""
        lines = ["no order of the operations explains all results; the longest that was found:"]
        lines += [f"  {number:>3}. {operation}" for number, operation in enumerate(self._longest[-20:], 1)]
        lines.append(f"after which this one fits nowhere: {self._stuck}")
        return "\n".join(lines)

    def _search(self) -> bool:
        taken: list[_Taken] = []
        seen: set[tuple[int, State, State | object]] = set()
        state: State = None
        done, known_left = 0, self._known
        mark = self._head.after
        while known_left:
            if mark is None or not mark.is_call:
                self._remember(taken, mark)
                if not taken:
                    return False
                mark, state, _ = taken.pop()
                done ^= mark.bit
                known_left += mark.partner is not None
                _put_back(mark)
                mark = mark.after
                continue
            fits, after = _useful_step(state, mark, taken)
            before = _KNOWN if mark.partner is not None else state
            if fits and (done | mark.bit, after, before) not in seen:
                if len(seen) >= self._states_max:
                    raise Undecided(f"gave up after {len(seen)} states of key {self._operations[0].key!r}")
                seen.add((done | mark.bit, after, before))
                taken.append(_Taken(mark, state, mark.partner is not None))
                state = after
                done |= mark.bit
                known_left -= mark.partner is not None
                _take_out(mark)
                mark = self._head.after
            else:
                mark = mark.after
        return True

    def _remember(self, taken: list[_Taken], late: _Mark | None) -> None:
        if self._stuck is None or len(taken) > len(self._longest):
            self._longest = [one.mark.operation for one in taken if one.mark.operation is not None]
            self._stuck = late.operation if late is not None else None


def _linked(operations: Sequence[Operation]) -> _Mark:
    """Return the head of the list of all calls and returns; at the same time, calls come first."""
    marks: list[tuple[int, int, _Mark]] = []
    for number, operation in enumerate(operations):
        call = _Mark(operation, 1 << number, True)
        marks.append((operation.called, 0, call))
        if operation.returned is not None:
            call.partner = _Mark(operation, 1 << number, False)
            marks.append((operation.returned, 1, call.partner))
    head = last = _Mark(None, 0, True)
    for _, _, mark in sorted(marks, key=lambda item: item[:2]):
        last.after, mark.before = mark, last
        last = mark
    return head


def _take_out(call: _Mark) -> None:
    call.unlink()
    if call.partner is not None:
        call.partner.unlink()


def _put_back(call: _Mark) -> None:
    if call.partner is not None:
        call.partner.relink()
    call.relink()
