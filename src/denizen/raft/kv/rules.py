"""Which operations are well formed, whatever the store holds.

Checked before an operation enters the log, so that no node ever has to refuse a malformed entry. What depends on the
store (leases, revisions) is decided in `machine.py`.
"""

from collections.abc import Sequence

from denizen.raft.kv.errors import Malformed, TooLarge
from denizen.raft.kv.limits import (
    KEY_BYTES_MAX,
    LEASE_TTL_S_MAX,
    MEMBER_URL_BYTES_MAX,
    TXN_OPERATIONS_MAX,
    VALUE_BYTES_MAX,
)
from denizen.raft.kv.model import (
    Compact,
    Compare,
    Delete,
    GrantLease,
    Operation,
    Publish,
    Put,
    Range,
    Request,
    Target,
    Txn,
)
from denizen.raft.kv.sorted_keys import in_range

_INT64_MAX = 2**63 - 1


def check(operation: Operation) -> None:
    """Raise `Malformed` or `TooLarge` when an operation cannot be carried out by any store."""
    if isinstance(operation, Put):
        _check_put(operation)
    elif isinstance(operation, Delete | Range):
        _check_range(operation)
    elif isinstance(operation, Txn):
        _check_txn(operation)
    elif isinstance(operation, GrantLease):
        if not 1 <= operation.ttl_s <= LEASE_TTL_S_MAX:
            raise Malformed(f"ttl_s must be between 1 and {LEASE_TTL_S_MAX}")
        if not 0 <= operation.id <= _INT64_MAX:
            raise Malformed("a lease's id must be between 0 (choose one for me) and 2^63 - 1")
    elif isinstance(operation, Compact):
        if operation.revision < 1:
            raise Malformed("revision must be at least 1")
    elif isinstance(operation, Publish) and len(operation.url.encode()) > MEMBER_URL_BYTES_MAX:
        raise TooLarge(f"a member's URL may have at most {MEMBER_URL_BYTES_MAX} bytes")


def check_request(request: Request) -> None:
    """Raise `Malformed` or `TooLarge` when a request cannot be carried out by any store."""
    if request.session and request.sequence < 1:
        raise Malformed("a request of a session needs a sequence number, from 1 on")
    check(request.operation)


def _check_key(key: bytes, end: bytes = b"") -> None:
    if not key:
        raise Malformed("key must not be empty (for every key: key '\\0' and end '\\0')")
    if len(key) > KEY_BYTES_MAX or len(end) > KEY_BYTES_MAX:
        raise TooLarge(f"a key may have at most {KEY_BYTES_MAX} bytes")


def _check_put(put: Put) -> None:
    _check_key(put.key)
    if len(put.value) > VALUE_BYTES_MAX:
        raise TooLarge(f"a value may have at most {VALUE_BYTES_MAX} bytes, this one has {len(put.value)}")
    if put.lease < 0:
        raise Malformed("a lease's id must not be negative")


def _check_range(operation: Delete | Range) -> None:
    _check_key(operation.key, operation.end)
    if isinstance(operation, Range) and (operation.limit < 0 or operation.revision < 0):
        raise Malformed("limit and revision must not be negative")


def _check_compare(compare: Compare) -> None:
    _check_key(compare.key, compare.end)
    if isinstance(compare.operand, bytes) != (compare.target is Target.VALUE):
        raise Malformed("compare a value with bytes, and a version, revision or lease with a number")


def _check_txn(txn: Txn) -> None:
    if max(len(txn.compare), len(txn.success), len(txn.failure)) > TXN_OPERATIONS_MAX:
        raise TooLarge(f"a transaction may have at most {TXN_OPERATIONS_MAX} comparisons and operations in a branch")
    for compare in txn.compare:
        _check_compare(compare)
    for branch in (txn.success, txn.failure):
        for operation in branch:
            check(operation)
        _check_changes_once(branch)
    if (
        sum(len(o.value) for branch in (txn.success, txn.failure) for o in branch if isinstance(o, Put))
        > VALUE_BYTES_MAX
    ):
        raise TooLarge(f"a transaction may carry at most {VALUE_BYTES_MAX} bytes of values")


def _check_changes_once(branch: Sequence[Put | Delete | Range]) -> None:
    """A key changes at most once in a revision, so that no order inside a branch needs remembering."""
    deletes = [operation for operation in branch if isinstance(operation, Delete)]
    seen: set[bytes] = set()
    for operation in branch:
        if not isinstance(operation, Put):
            continue
        if operation.key in seen or any(in_range(operation.key, d.key, d.end) for d in deletes):
            raise Malformed("a transaction's branch may change a key once only")
        seen.add(operation.key)
