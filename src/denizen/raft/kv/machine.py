"""The state machine of the key-value service: requests in, results out, nothing else.

It has no clock, no randomness and no I/O, and what it does depends on its state and the command alone, so that every
node that applies the same log holds the same store. Time is the leader's business: it decides that a lease has run
out, and says so with a `RevokeLease` command. An entry of the log is a batch of requests; each is carried out in turn
at a revision of its own.

A request that cannot be carried out is answered with a `Refusal` and changes nothing.
"""

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import msgspec
from msgspec import Struct

from denizen.raft.kv.blocks import read_blocks, write_blocks
from denizen.raft.kv.keyspace import Keyspace
from denizen.raft.kv.limits import (
    HISTORY_BYTES_MAX,
    HISTORY_EVENTS_MAX,
    LEASES_MAX,
    RANGE_BYTES_MAX,
    RANGE_KEYS_MAX,
    SESSIONS_MAX,
)
from denizen.raft.kv.model import (
    CloseSession,
    Compact,
    Compare,
    Delete,
    DeleteResult,
    Done,
    GrantLease,
    KeepAlive,
    KeyValue,
    Lease,
    LeaseGranted,
    OpenSession,
    OperationResult,
    Publish,
    Put,
    PutResult,
    Range,
    RangeResult,
    Refusal,
    Request,
    Result,
    RevokeLease,
    SessionOpened,
    SortBy,
    Txn,
    TxnResult,
)
from denizen.raft.kv.relations import holds
from denizen.raft.kv.sessions import Session, Sessions

SNAPSHOT_FORMAT = 1

_decode_requests = msgspec.msgpack.Decoder(list[Request]).decode
_encode = msgspec.msgpack.Encoder().encode


class _Head(Struct, array_like=True):
    """What a snapshot begins with; blocks of keys and of history follow."""

    format: int
    compacted: int
    last_id: int
    leases: tuple[Lease, ...]
    sessions: tuple[Session, ...]
    urls: dict[int, str]


def encode_batch(requests: list[Request]) -> bytes:
    """Return the command that carries out these requests, in order."""
    return _encode(requests)


class KeyValueMachine:
    """A store of keys with revisions, leases, transactions and a bounded past."""

    def __init__(
        self,
        *,
        history_events_max: int = HISTORY_EVENTS_MAX,
        history_bytes_max: int = HISTORY_BYTES_MAX,
        sessions_max: int = SESSIONS_MAX,
    ) -> None:
        self.keyspace = Keyspace(history_events_max, history_bytes_max)
        self.leases: dict[int, Lease] = {}
        self.urls: dict[int, str] = {}
        self._lease_keys: dict[int, dict[bytes, None]] = {}
        self._sessions = Sessions(sessions_max)
        self._last_id = 0
        self._do: dict[type[Any], Callable[[Any], Result]] = {
            Put: self._put,
            Delete: self._delete,
            Range: self.range,
            Txn: self._txn,
            GrantLease: self._grant_lease,
            RevokeLease: self._revoke_lease,
            KeepAlive: self._keep_alive,
            Compact: self._compact,
            OpenSession: self._open_session,
            CloseSession: self._close_session,
            Publish: self._publish,
        }

    @property
    def revision(self) -> int:
        return self.keyspace.revision

    @property
    def sessions(self) -> int:
        """How many sessions are open."""
        return len(self._sessions)

    # --- the contract of a state machine ------------------------------------------------------------------------------

    def apply(self, index: int, command: bytes) -> list[Result]:
        """Carry out a batch; return one result per request. `index` plays no part: the store counts by itself."""
        return [self._carry_out(request) for request in _decode_requests(command)]

    def snapshot(self) -> Iterator[bytes]:
        """Return the whole state in pieces; equal states give equal bytes.

        The state is captured at once, by reference, since every record in it is immutable; the pieces may be consumed
        by another thread while this one goes on applying.
        """
        keyspace = self.keyspace
        head = _Head(
            SNAPSHOT_FORMAT,
            keyspace.compacted,
            self._last_id,
            tuple(self.leases[id] for id in sorted(self.leases)),
            self._sessions.dump(),
            dict(sorted(self.urls.items())),
        )
        return write_blocks(head, keyspace.capture(), keyspace.history())

    def restore(self, data: bytes) -> None:
        """Replace the whole state with a snapshot's."""
        head, keys, history = read_blocks(data, _Head)
        if head.format != SNAPSHOT_FORMAT:
            raise ValueError(f"snapshot format {head.format} is not {SNAPSHOT_FORMAT}: use the version that wrote it")
        self.keyspace.load(head.compacted, keys, history)
        self.leases = {lease.id: lease for lease in head.leases}
        self._lease_keys = {lease.id: {} for lease in head.leases}
        for kv in keys:
            if kv.lease:
                self._lease_keys[kv.lease][kv.key] = None
        self._sessions.load(head.sessions)
        self._last_id = head.last_id
        self.urls = head.urls

    # --- reading -----------------------------------------------------------------------------------------------------

    def range(self, query: Range) -> RangeResult | Refusal:
        """Read a range at the present or at a revision of the kept past."""
        refusal = self._check_range(query)
        return refusal if refusal is not None else self._range(query)

    def lease_keys(self, lease: int) -> list[bytes]:
        """Return the keys that go with a lease, in order."""
        return sorted(self._lease_keys.get(lease, ()))

    # --- changing ----------------------------------------------------------------------------------------------------

    def _carry_out(self, request: Request) -> Result:
        if request.session:
            answer = self._sessions.answered(request.session, request.sequence, self.revision)
            if answer is not None:
                return answer
        operation = request.operation
        result = self._do[type(operation)](operation)
        if request.session:
            self._sessions.remember(request.session, request.sequence, result)
        return result

    def _put(self, put: Put) -> Result:
        if put.lease and put.lease not in self.leases:
            return self._lost_lease(put.lease)
        result = self._do_put(put)
        self.keyspace.commit()
        return result

    def _delete(self, delete: Delete) -> Result:
        refusal = self._check_answer(delete.key, delete.end) if delete.return_previous else None
        if refusal is not None:
            return refusal
        result = self._do_delete(delete)
        self.keyspace.commit()
        return result

    def _txn(self, txn: Txn) -> Result:
        succeeded = all(self._holds(compare) for compare in txn.compare)
        branch = txn.success if succeeded else txn.failure
        for operation in branch:  # refused before anything changes: all or nothing
            if isinstance(operation, Put) and operation.lease and operation.lease not in self.leases:
                return self._lost_lease(operation.lease)
            refusal: Refusal | None = None
            if isinstance(operation, Range):
                refusal = self._check_range(operation)
            elif isinstance(operation, Delete) and operation.return_previous:
                refusal = self._check_answer(operation.key, operation.end)
            if refusal is not None:
                return refusal
        results = tuple(self._do_one(operation) for operation in branch)
        self.keyspace.commit()
        return TxnResult(self.revision, succeeded, results)

    def _do_one(self, operation: Put | Delete | Range) -> OperationResult:
        if isinstance(operation, Put):
            return self._do_put(operation)
        return self._do_delete(operation) if isinstance(operation, Delete) else self._range(operation)

    def _do_put(self, put: Put) -> PutResult:
        previous = self.keyspace.put(put.key, put.value, put.lease)
        if previous is not None and previous.lease:
            self._lease_keys[previous.lease].pop(put.key, None)
        if put.lease:
            self._lease_keys[put.lease][put.key] = None
        return PutResult(self.revision + 1, previous if put.return_previous else None)

    def _do_delete(self, delete: Delete) -> DeleteResult:
        doomed = list(self.keyspace.between(delete.key, delete.end))
        for kv in doomed:
            self._delete_key(kv)
        coming = self.revision + 1 if doomed else self.revision
        return DeleteResult(coming, len(doomed), tuple(doomed) if delete.return_previous else ())

    def _delete_key(self, kv: KeyValue) -> None:
        self.keyspace.delete(kv.key)
        if kv.lease:
            self._lease_keys[kv.lease].pop(kv.key, None)

    def _range(self, query: Range) -> RangeResult:
        keyspace = self.keyspace
        if query.revision and (query.revision < keyspace.revision or keyspace.is_changing):
            found = keyspace.as_of(query.revision, query.key, query.end)
        elif query.count_only:
            return RangeResult(self.revision, (), keyspace.count(query.key, query.end))
        else:
            found = list(keyspace.between(query.key, query.end))
        count = len(found)
        if query.count_only:
            return RangeResult(self.revision, (), count)
        return RangeResult(self.revision, _chosen(found, query), count, bool(query.limit) and count > query.limit)

    def _grant_lease(self, grant: GrantLease) -> Result:
        if grant.id in self.leases:
            return Refusal(
                self.revision, "lease_exists", f"lease {grant.id} exists: keep it alive, or choose another id"
            )
        if len(self.leases) >= LEASES_MAX:
            return Refusal(self.revision, "too_many_leases", f"there are {LEASES_MAX} leases: revoke some first")
        id = grant.id or self._next_id()
        self.leases[id] = Lease(id, grant.ttl_s)
        self._lease_keys[id] = {}
        return LeaseGranted(self.revision, id, grant.ttl_s)

    def _revoke_lease(self, revoke: RevokeLease) -> Result:
        if revoke.id not in self.leases:
            return self._lost_lease(revoke.id)
        for key in self.lease_keys(revoke.id):
            self.keyspace.delete(key)
        del self.leases[revoke.id]
        del self._lease_keys[revoke.id]
        self.keyspace.commit()
        return Done(self.revision)

    def _keep_alive(self, renewal: KeepAlive) -> Result:
        lease = self.leases.get(renewal.id)
        if lease is None:
            return self._lost_lease(renewal.id)
        self.leases[lease.id] = Lease(lease.id, lease.ttl_s, lease.renewals + 1)
        return LeaseGranted(self.revision, lease.id, lease.ttl_s)

    def _compact(self, compact: Compact) -> Result:
        if compact.revision <= self.keyspace.compacted:
            return self._compacted(compact.revision)
        if compact.revision > self.revision:
            return self._future(compact.revision)
        self.keyspace.compact(compact.revision)
        return Done(self.revision)

    def _open_session(self, _: OpenSession) -> Result:
        session = self._next_id()
        self._sessions.open(session)
        return SessionOpened(self.revision, session)

    def _close_session(self, close: CloseSession) -> Result:
        self._sessions.close(close.session)
        return Done(self.revision)

    def _publish(self, publish: Publish) -> Result:
        if publish.url:
            self.urls[publish.member] = publish.url
        else:
            self.urls.pop(publish.member, None)
        return Done(self.revision)

    # --- deciding ----------------------------------------------------------------------------------------------------

    def _next_id(self) -> int:
        self._last_id += 1
        while self._last_id in self.leases:
            self._last_id += 1
        return self._last_id

    def _holds(self, compare: Compare) -> bool:
        return holds(compare, list(self.keyspace.between(compare.key, compare.end)))

    def _check_revision(self, revision: int) -> Refusal | None:
        if revision > self.revision:
            return self._future(revision)
        if revision and revision < self.keyspace.compacted:
            return self._compacted(revision)
        return None

    def _check_range(self, query: Range) -> Refusal | None:
        refusal = self._check_revision(query.revision)
        if refusal is not None or query.count_only:
            return refusal
        return self._check_answer(query.key, query.end, query.limit, keys_only=query.keys_only)

    def _check_answer(self, key: bytes, end: bytes, limit: int = 0, *, keys_only: bool = False) -> Refusal | None:
        """Refuse what would answer with more than a message should hold; nodes and clients stay responsive."""
        count = self.keyspace.count(key, end)
        if min(limit or count, count) > RANGE_KEYS_MAX:
            detail = (
                f"{count} keys in one answer are too many: ask for at most {RANGE_KEYS_MAX} with a limit, page by page"
            )
            return Refusal(self.revision, "too_large", detail)
        found = islice(self.keyspace.between(key, end), limit or None)
        if sum(len(kv.key) + (0 if keys_only else len(kv.value)) for kv in found) > RANGE_BYTES_MAX:
            detail = f"the answer would have more than {RANGE_BYTES_MAX} bytes: ask with a limit, page by page"
            return Refusal(self.revision, "too_large", detail)
        return None

    def _lost_lease(self, lease: int) -> Refusal:
        return Refusal(self.revision, "lost_lease", f"lease {lease} ran out or was revoked: grant a new one")

    def _future(self, revision: int) -> Refusal:
        return Refusal(
            self.revision, "future_revision", f"revision {revision} is after the present one, {self.revision}"
        )

    def _compacted(self, revision: int) -> Refusal:
        oldest = self.keyspace.compacted
        return Refusal(
            self.revision,
            "compacted_revision",
            f"revision {revision} is forgotten, the oldest kept one is {oldest}: read the present and go on from there",
        )


def _chosen(found: list[KeyValue], query: Range) -> tuple[KeyValue, ...]:
    """Sort, limit and trim what a range found (in key order)."""
    if query.sort_by is not SortBy.KEY:
        found.sort(key=_SORT_FIELD[query.sort_by])
    if query.descending:
        found.reverse()
    if query.limit:
        del found[query.limit :]
    if query.keys_only:
        return tuple(msgspec.structs.replace(kv, value=b"") for kv in found)
    return tuple(found)


_SORT_FIELD: dict[SortBy, Callable[[KeyValue], Any]] = {
    SortBy.VERSION: lambda kv: kv.version,
    SortBy.CREATE: lambda kv: kv.create_revision,
    SortBy.MOD: lambda kv: kv.mod_revision,
    SortBy.VALUE: lambda kv: kv.value,
}
