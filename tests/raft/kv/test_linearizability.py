"""The linearizability checker: known good and bad histories, and every small history against brute force."""

import random
from collections.abc import Sequence
from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from denizen.raft.linearizability import Kind, Operation, State, Undecided, check, step


def put(called: int, returned: int | None, value: str, key: str = "k") -> Operation:
    return Operation("w", key, Kind.PUT, called, returned, argument=value)


def get(called: int, returned: int | None, value: str | None, key: str = "k") -> Operation:
    return Operation("r", key, Kind.GET, called, returned, result=value)


def swap(called: int, returned: int | None, old: str | None, new: str, hit: bool | None) -> Operation:
    return Operation("s", "k", Kind.SWAP, called, returned, argument=new, expected=old, result=hit)


def delete(called: int, returned: int | None, existed: bool | None) -> Operation:
    return Operation("d", "k", Kind.DELETE, called, returned, result=existed)


GOOD = {
    "nothing happened": [],
    "a read during a write sees either": [put(0, 10, "a"), get(1, 9, None), get(11, 12, "a")],
    "a later read during the write sees the new value": [put(0, 10, "a"), get(1, 3, None), get(4, 9, "a")],
    "two writes at once end in any order": [put(0, 10, "a"), put(0, 10, "b"), get(11, 12, "a")],
    "a lost write may never have happened": [put(0, 1, "a"), put(2, None, "b"), get(10, 11, "a")],
    "a lost write may happen long after its caller gave up": [
        put(0, 1, "a"),
        put(2, None, "b"),
        get(10, 11, "a"),
        get(20, 21, "b"),
    ],
    "one of two swaps wins": [
        put(0, 1, "a"),
        swap(2, 9, "a", "b", True),
        swap(2, 9, "a", "c", False),
        get(10, 11, "b"),
    ],
    "a lost swap explains the value": [put(0, 1, "a"), swap(2, None, "a", "b", None), get(10, 11, "b")],
    "an interval may touch the next": [put(0, 5, "a"), get(5, 6, None)],
    "delete and create again": [swap(0, 1, None, "a", True), delete(2, 3, True), delete(4, 5, False), get(6, 7, None)],
    "keys do not order each other": [
        put(0, 1, "a", "x"),
        get(2, 3, None, "y"),
        put(4, 5, "b", "y"),
        get(6, 7, "a", "x"),
    ],
}
BAD = {
    "a read after the write does not see it": [put(0, 1, "a"), get(2, 3, None)],
    "a read goes back": [put(0, 10, "a"), get(1, 3, "a"), get(4, 9, None)],
    "two readers see two orders": [
        put(0, 10, "a"),
        put(0, 10, "b"),
        get(11, 12, "a"),
        get(13, 14, "b"),
    ],
    "a value from nowhere": [put(0, 1, "a"), get(2, 3, "z")],
    "a lost write cannot happen before it was called": [put(0, 1, "a"), get(2, 3, "b"), put(4, None, "b")],
    "a lost write happens once": [
        put(0, 1, "a"),
        put(2, None, "b"),
        get(3, 4, "b"),
        put(5, 6, "c"),
        get(7, 8, "b"),
    ],
    "two swaps cannot both win": [put(0, 1, "a"), swap(2, 9, "a", "b", True), swap(2, 9, "a", "c", True)],
    "a swap applied twice is caught": [
        put(0, 1, "a"),
        swap(2, 3, "a", "b", True),
        put(4, 5, "a"),
        get(6, 7, "b"),
    ],
    "an acknowledged write is lost": [put(0, 1, "a"), put(2, 3, "b"), get(4, 5, "a")],
    "a deleted key is deleted again": [put(0, 1, "a"), delete(2, 3, True), delete(4, 5, True)],
}


@pytest.mark.parametrize("name", GOOD)
def test_good_history_is_accepted(name: str) -> None:
    assert check(GOOD[name]).linearizable


@pytest.mark.parametrize("name", BAD)
def test_bad_history_is_refused_with_an_explanation(name: str) -> None:
    verdict = check(BAD[name])
    assert not verdict.linearizable
    assert "fits nowhere" in verdict.explanation


def explained_by_some_order(history: Sequence[Operation]) -> bool:
    """Try every order of every choice of unknown operations that happened."""
    known = [operation for operation in history if operation.returned is not None]
    unknown = [operation for operation in history if operation.returned is None]
    for chosen in range(1 << len(unknown)):
        happened = known + [operation for at, operation in enumerate(unknown) if chosen >> at & 1]
        if any(_respects_time(order) and _runs(order) for order in permutations(happened)):
            return True
    return False


def _respects_time(order: Sequence[Operation]) -> bool:
    return not any(
        later.returned is not None and later.returned < earlier.called
        for at, earlier in enumerate(order)
        for later in order[at + 1 :]
    )


def _runs(order: Sequence[Operation]) -> bool:
    state: State = None
    for operation in order:
        fits, state = step(state, operation)
        if not fits:
            return False
    return True


values = st.sampled_from(["a", "b"])
maybe = st.sampled_from([None, "a", "b"])


@st.composite
def operations(draw: st.DrawFn) -> Operation:
    called = draw(st.integers(0, 12))
    returned = draw(st.one_of(st.none(), st.integers(called, 14), st.integers(called, called + 3)))
    return draw(
        st.one_of(
            st.builds(put, st.just(called), st.just(returned), values),
            st.builds(get, st.just(called), st.just(returned), maybe),
            st.builds(swap, st.just(called), st.just(returned), maybe, values, st.booleans()),
            st.builds(delete, st.just(called), st.just(returned), st.booleans()),
        )
    )


@settings(max_examples=400, deadline=None)
@given(st.lists(operations(), max_size=5))
def test_every_small_history_is_judged_as_brute_force_judges_it(history: list[Operation]) -> None:
    assert check(history).linearizable == explained_by_some_order(history)


def made_history(seed: int, count: int, clients: int) -> list[Operation]:
    """A real run of one register: each operation takes effect at a moment between call and return."""
    random_ = random.Random(seed)
    history, state, free_at = [], None, [0] * clients
    moments = sorted(random_.sample(range(count * 10), count))
    for number, moment in enumerate(moments):
        client = min(range(clients), key=free_at.__getitem__)
        called = max(free_at[client], moment - random_.randrange(60))
        if called > moment:
            continue
        returned = moment + random_.randrange(60)
        free_at[client] = returned + 1
        if random_.random() < 0.5:
            history.append(get(called, returned, state))
        else:
            state = f"v{number}"
            history.append(put(called, None if random_.random() < 0.02 else returned, state))
    return history


@pytest.mark.parametrize("seed", range(3))
def test_a_long_concurrent_history_is_decided_quickly_and_one_stale_read_in_it_is_found(seed: int) -> None:
    history = made_history(seed, 800, 8)
    assert check(history).linearizable
    end = max(operation.returned or 0 for operation in history)
    stale = next(o.argument for o in history if o.kind is Kind.PUT and o.returned is not None)
    assert not check([*history, put(end + 1, end + 2, "last"), get(end + 3, end + 4, str(stale))]).linearizable


def test_a_search_that_is_given_up_is_no_pass() -> None:
    with pytest.raises(Undecided):
        check(made_history(1, 500, 8), states_max=10)
