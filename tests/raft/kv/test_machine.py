"""The state machine of the key-value service against a model that keeps every revision whole."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from denizen.raft.kv.errors import Malformed
from denizen.raft.kv.machine import KeyValueMachine, encode_batch
from denizen.raft.kv.model import (
    TO_THE_LAST_KEY,
    Compact,
    Compare,
    Delete,
    DeleteResult,
    GrantLease,
    KeyValue,
    LeaseGranted,
    OpenSession,
    Operation,
    Put,
    PutResult,
    Range,
    RangeResult,
    Refusal,
    Relation,
    Request,
    Result,
    RevokeLease,
    SessionOpened,
    SortBy,
    Target,
    Txn,
    TxnResult,
    prefix_end,
)
from denizen.raft.kv.rules import check
from denizen.raft.kv.sorted_keys import SortedKeys, in_range

keys = st.sampled_from([b"a", b"ab", b"b", b"b\xff", b"c", b"\xff"])
ends = st.sampled_from([b"", b"", b"b", b"c", TO_THE_LAST_KEY])
values = st.binary(max_size=2)
leases = st.sampled_from([0, 0, 0, 7, 8])
puts = st.builds(Put, keys, values, leases, st.booleans())
deletes = st.builds(Delete, keys, ends, st.booleans())
ranges = st.builds(
    Range,
    keys,
    ends,
    st.integers(0, 3),
    st.integers(0, 12),
    st.booleans(),
    st.booleans(),
    st.sampled_from(SortBy),
    st.booleans(),
)
compares = st.one_of(
    st.builds(
        Compare,
        keys,
        st.sampled_from([Target.VERSION, Target.CREATE, Target.MOD, Target.LEASE]),
        st.sampled_from(Relation),
        st.integers(0, 8),
        ends,
    ),
    st.builds(Compare, keys, st.just(Target.VALUE), st.sampled_from(Relation), values, ends),
)


def _changes_once(branch: list[Any]) -> bool:
    try:
        check(Txn((), tuple(branch)))
    except Malformed:
        return False
    return True


branches = st.lists(st.one_of(puts, deletes, ranges), max_size=3).filter(_changes_once).map(tuple)
txns = st.builds(Txn, st.lists(compares, max_size=2).map(tuple), branches, branches)
grants = st.builds(GrantLease, st.just(5), st.sampled_from([7, 8]))
revokes = st.builds(RevokeLease, st.sampled_from([7, 8]))
compacts = st.builds(Compact, st.integers(1, 12))
operations = st.one_of(puts, puts, puts, deletes, ranges, txns, grants, revokes, compacts)


class Model:
    """The same store with no cleverness: `past[r]` is every key as it was at revision r."""

    def __init__(self) -> None:
        self.past: list[dict[bytes, KeyValue]] = [{}, {}]
        self.compacted = 0
        self.leases: set[int] = set()

    @property
    def revision(self) -> int:
        return len(self.past) - 1

    def do(self, operation: Operation) -> Any:
        """Return what the result must look like: a refusal's code, or the facts of the result."""
        now, coming = dict(self.past[-1]), self.revision + 1
        answer = self._do(operation, now, coming)
        if not isinstance(answer, str) and now != self.past[-1]:
            self.past.append(now)
        return answer

    def _do(self, operation: Any, now: dict[bytes, KeyValue], coming: int) -> Any:  # noqa: PLR0912 - a line per operation
        match operation:
            case Put(key, value, lease, want):
                if lease and lease not in self.leases:
                    return "lost_lease"
                old = now.get(key)
                now[key] = KeyValue(
                    key, old.create_revision if old else coming, coming, old.version + 1 if old else 1, value, lease
                )
                return ("put", old if want else None)
            case Delete(key, end, want):
                doomed = [now.pop(k) for k in sorted(now) if in_range(k, key, end)]
                return ("delete", len(doomed), tuple(doomed) if want else ())
            case Range():
                return self._range(operation, now)
            case Txn(compare, success, failure):
                good = all(self._holds(c, now) for c in compare)
                trial = [self._do(o, now, coming) for o in (success if good else failure)]
                refused = [answer for answer in trial if isinstance(answer, str)]
                return refused[0] if refused else ("txn", good, trial)
            case GrantLease(_, id):
                if id in self.leases:
                    return "lease_exists"
                self.leases.add(id)
                return ("lease", id)
            case RevokeLease(id):
                if id not in self.leases:
                    return "lost_lease"
                self.leases.remove(id)
                for k in [k for k, kv in now.items() if kv.lease == id]:
                    del now[k]
                return ("done",)
            case Compact(revision):
                if revision <= self.compacted:
                    return "compacted_revision"
                if revision > self.revision:
                    return "future_revision"
                self.compacted = revision
                return ("done",)
        raise AssertionError(operation)

    def _range(self, query: Range, now: dict[bytes, KeyValue]) -> Any:
        if query.revision > self.revision:
            return "future_revision"
        if query.revision and query.revision < self.compacted:
            return "compacted_revision"
        view = self.past[query.revision] if query.revision else now
        found = [view[k] for k in sorted(view) if in_range(k, query.key, query.end)]
        count = len(found)
        if query.count_only:
            return ("range", (), count)
        order = ["key", "version", "create_revision", "mod_revision", "value"][query.sort_by]
        found.sort(key=lambda kv: getattr(kv, order))
        if query.descending:
            found.reverse()
        found = found[: query.limit or None]
        return ("range", tuple((kv.key, kv.mod_revision, b"" if query.keys_only else kv.value) for kv in found), count)

    @staticmethod
    def _holds(compare: Compare, now: dict[bytes, KeyValue]) -> bool:
        found = [now[k] for k in now if in_range(k, compare.key, compare.end)]
        if not found and compare.target is Target.VALUE:
            return False
        name = ["version", "create_revision", "mod_revision", "value", "lease"][compare.target]
        test = {
            Relation.EQUAL: lambda a, b: a == b,
            Relation.GREATER: lambda a, b: a > b,
            Relation.LESS: lambda a, b: a < b,
            Relation.NOT_EQUAL: lambda a, b: a != b,
        }[compare.relation]
        return all(test(getattr(kv, name), compare.operand) for kv in found or [KeyValue(b"", 0, 0, 0)])


def _facts(result: Result) -> Any:
    match result:
        case Refusal():
            return result.code
        case PutResult():
            return ("put", result.previous)
        case DeleteResult():
            return ("delete", result.deleted, result.previous)
        case RangeResult():
            return ("range", tuple((kv.key, kv.mod_revision, kv.value) for kv in result.kvs), result.count)
        case TxnResult():
            return ("txn", result.succeeded, [_facts(r) for r in result.results])
        case LeaseGranted():
            return ("lease", result.id)
        case _:
            return ("done",)


def saved_bytes(machine: KeyValueMachine) -> bytes:
    return b"".join(machine.snapshot())


def apply(machine: KeyValueMachine, *operations: Operation, session: int = 0, sequence: int = 0) -> list[Result]:
    return machine.apply(0, encode_batch([Request(operation, session, sequence) for operation in operations]))


def one(machine: KeyValueMachine, operation: Operation, session: int = 0, sequence: int = 0) -> Any:
    return apply(machine, operation, session=session, sequence=sequence)[0]


@settings(max_examples=400, deadline=None)
@given(st.lists(st.one_of(operations, st.just("restart")), max_size=25))
def test_store_does_what_the_model_does_over_restarts_from_snapshots(script: list[Any]) -> None:
    machine, model = KeyValueMachine(), Model()
    for step in script:
        if step == "restart":
            saved = saved_bytes(machine)
            machine = KeyValueMachine()
            machine.restore(saved)
            assert saved_bytes(machine) == saved
            continue
        result = one(machine, step)
        assert _facts(result) == model.do(step)
        assert result.revision == machine.revision == model.revision
        assert machine.keyspace.current == model.past[-1]
    _check_history(machine, model)


def _check_history(machine: KeyValueMachine, model: Model) -> None:
    """The events of each kept revision lead from the state before it to the state after it."""
    for revision in range(model.compacted + 1, model.revision + 1):
        state = dict(model.past[revision - 1])
        for event in machine.keyspace.events_of(revision):
            assert event.previous == state.get(event.kv.key)
            assert event.kv.mod_revision == revision
            if event.is_delete:
                del state[event.kv.key]
            else:
                state[event.kv.key] = event.kv
        assert state == model.past[revision]


@settings(max_examples=50, deadline=None)
@given(st.lists(operations, max_size=30))
def test_two_nodes_that_apply_the_same_log_hold_the_same_bytes(script: list[Operation]) -> None:
    together, singly = KeyValueMachine(history_events_max=5), KeyValueMachine(history_events_max=5)
    results = apply(together, *script)
    assert [one(singly, operation) for operation in script] == results
    assert saved_bytes(together) == saved_bytes(singly)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.binary(min_size=1, max_size=3), max_size=200), st.binary(min_size=1, max_size=3), st.binary(max_size=3)
)
def test_sorted_keys_agree_with_sorting(names: list[bytes], key: bytes, end: bytes) -> None:
    ordered, present = SortedKeys(), set[bytes]()
    for name in names:
        if name in present:
            ordered.remove(name)
            present.remove(name)
        else:
            ordered.add(name)
            present.add(name)
    end = end or TO_THE_LAST_KEY
    expected = [name for name in sorted(present) if in_range(name, key, end)]
    assert list(ordered.between(key, end)) == expected
    assert ordered.count(key, end) == len(expected)


def test_sorted_keys_split_and_empty_their_chunks() -> None:
    ordered = SortedKeys()
    names = [b"%05d" % (at * 7919 % 5000) for at in range(5000)]
    for name in names:
        ordered.add(name)
    assert list(ordered.between(b"0", TO_THE_LAST_KEY)) == sorted(names)
    assert ordered.count(b"01000", b"03000") == 2000
    for name in names:
        ordered.remove(name)
    assert ordered.count(b"0", TO_THE_LAST_KEY) == 0


def test_a_repeated_request_of_a_session_is_applied_once() -> None:
    machine = KeyValueMachine()
    opened = one(machine, OpenSession())
    assert isinstance(opened, SessionOpened)
    first = one(machine, Put(b"k", b"1"), opened.session, 1)
    again = one(machine, Put(b"k", b"1"), opened.session, 1)
    assert first == again == PutResult(2)
    assert machine.keyspace.current[b"k"].version == 1
    late = one(machine, Put(b"k", b"2"), opened.session, 2)
    assert late.revision == 3
    assert one(machine, Put(b"k", b"1"), opened.session, 1).code == "stale_sequence"


def test_a_repeated_request_is_applied_once_over_a_restored_snapshot() -> None:
    machine, restored = KeyValueMachine(), KeyValueMachine()
    session = one(machine, OpenSession()).session
    first = one(machine, Put(b"k", b"1", 0, True), session, 1)
    restored.restore(saved_bytes(machine))
    assert one(restored, Put(b"k", b"1", 0, True), session, 1) == first
    assert restored.revision == 2


def test_a_session_pushed_out_by_others_is_refused_and_never_applied_again() -> None:
    machine = KeyValueMachine(sessions_max=2)
    first, second, third = (one(machine, OpenSession()).session for _ in range(3))
    assert one(machine, Put(b"k", b"1"), first, 1).code == "lost_session"
    assert one(machine, Put(b"k", b"2"), second, 1).revision == 2
    one(machine, OpenSession())  # pushes out the third, which was used less recently than the second
    assert one(machine, Put(b"k", b"3"), third, 1).code == "lost_session"


def test_a_large_answer_is_not_kept_and_not_applied_twice_either() -> None:
    machine = KeyValueMachine()
    session = one(machine, OpenSession()).session
    one(machine, Put(b"k", b"x" * 10_000))
    assert one(machine, Put(b"k", b"y", 0, True), session, 1).previous.value == b"x" * 10_000
    assert one(machine, Put(b"k", b"y", 0, True), session, 1).code == "answer_not_kept"
    assert machine.keyspace.current[b"k"].version == 2


def test_history_stays_bounded_by_events_and_by_bytes() -> None:
    by_events = KeyValueMachine(history_events_max=100)
    for at in range(1_000):
        one(by_events, Put(b"k%d" % (at % 7), b"v"))
    assert 100 <= sum(map(len, by_events.keyspace.history())) <= 110
    assert by_events.keyspace.compacted == by_events.revision - len(by_events.keyspace.history())
    assert one(by_events, Range(b"k1", revision=2)).code == "compacted_revision"
    by_bytes = KeyValueMachine(history_bytes_max=10_000)
    for _ in range(100):
        one(by_bytes, Put(b"k", b"v" * 1_000))
    assert len(by_bytes.keyspace.history()) <= 9


def test_lease_takes_its_keys_with_it_at_one_revision() -> None:
    machine = KeyValueMachine()
    lease = one(machine, GrantLease(10)).id
    apply(machine, Put(b"a", b"", lease), Put(b"b", b"", lease), Put(b"c", b"", lease), Put(b"b", b""))
    assert machine.lease_keys(lease) == [b"a", b"c"]
    revoked = one(machine, RevokeLease(lease))
    assert [event.kv.key for event in machine.keyspace.events_of(revoked.revision)] == [b"a", b"c"]
    assert list(machine.keyspace.current) == [b"b"]
    assert one(machine, Put(b"a", b"", lease)).code == "lost_lease"


@pytest.mark.parametrize(("prefix", "end"), [(b"a", b"b"), (b"a\xff", b"b"), (b"\xff\xff", TO_THE_LAST_KEY)])
def test_prefix_end_is_the_first_key_after_the_prefix(prefix: bytes, end: bytes) -> None:
    assert prefix_end(prefix) == end


def test_a_snapshot_does_not_see_what_is_applied_after_it_was_taken() -> None:
    machine, restored = KeyValueMachine(), KeyValueMachine()
    for at in range(3_000):
        one(machine, Put(b"k%d" % at, b"before"))
    before = saved_bytes(machine)
    pieces = machine.snapshot()
    taken = [next(pieces)]
    apply(machine, Put(b"k5", b"after"), Delete(b"k6"), Put(b"a", b"after"))
    taken += pieces
    assert b"".join(taken) == before
    restored.restore(before)
    assert saved_bytes(restored) == before


def test_an_answer_that_would_be_too_large_is_refused_and_read_page_by_page() -> None:
    machine = KeyValueMachine()
    apply(machine, *(Put(b"k%05d" % at, b"") for at in range(10_001)))
    everything = Range(b"k", b"l")
    assert one(machine, everything).code == "too_large"
    assert one(machine, Delete(b"k", b"l", return_previous=True)).code == "too_large"
    assert one(machine, Txn((), (Put(b"x", b""), everything))).code == "too_large"
    assert b"x" not in machine.keyspace.current
    assert one(machine, Range(b"k", b"l", count_only=True)).count == 10_001
    page = one(machine, Range(b"k", b"l", limit=10_000))
    assert len(page.kvs) == 10_000
    assert [kv.key for kv in one(machine, Range(page.kvs[-1].key + b"\0", b"l")).kvs] == [b"k10000"]
    apply(machine, *(Put(b"big%02d" % at, b"x" * 1_000_000) for at in range(17)))
    assert one(machine, Range(b"big", b"bih")).code == "too_large"
    assert len(one(machine, Range(b"big", b"bih", keys_only=True)).kvs) == 17
