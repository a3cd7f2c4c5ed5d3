"""What the key-value service stores, is asked and answers: plain frozen records, in etcd's data model.

The store has one **revision**, a number that every change raises by one; all changes of a transaction share it. A key
remembers the revision that created it, the one that changed it last, and its **version**, which counts its changes from
1. A range is `[key, end)`; an empty `end` means just the key, and `end == b"\\0"` means every key from `key` on.

Operations travel through the log as MessagePack arrays tagged with a small number. New fields are only ever added at
the end with a default, and a tag is never reused.
"""

from enum import IntEnum

from msgspec import Struct

NO_END = b""
TO_THE_LAST_KEY = b"\x00"


def prefix_end(prefix: bytes) -> bytes:
    """Return the `end` that makes `[prefix, end)` the keys that start with `prefix`.

    >>> prefix_end(b"user/")
    b'user0'
    """
    trimmed = prefix.rstrip(b"\xff")
    if not trimmed:
        return TO_THE_LAST_KEY
    return trimmed[:-1] + bytes([trimmed[-1] + 1])


class KeyValue(Struct, frozen=True, array_like=True, gc=False):
    """One key as of one revision. Version 0 stands for "deleted at `mod_revision`"."""

    key: bytes
    create_revision: int
    mod_revision: int
    version: int
    value: bytes = b""
    lease: int = 0


class Event(Struct, frozen=True, array_like=True, gc=False):
    """One change of one key: what it became, and what it was before (None: it did not exist)."""

    kv: KeyValue
    previous: KeyValue | None

    @property
    def is_delete(self) -> bool:
        return self.kv.version == 0


class Lease(Struct, frozen=True, array_like=True, gc=False):
    """A promise of the leader to delete the attached keys when nobody renews it for `ttl_s` seconds.

    `renewals` counts how often it was renewed.
    """

    id: int
    ttl_s: int
    renewals: int = 0


class Target(IntEnum):
    """Which property of a key a comparison looks at."""

    VERSION = 0
    CREATE = 1
    MOD = 2
    VALUE = 3
    LEASE = 4


class Relation(IntEnum):
    EQUAL = 0
    GREATER = 1
    LESS = 2
    NOT_EQUAL = 3


class SortBy(IntEnum):
    KEY = 0
    VERSION = 1
    CREATE = 2
    MOD = 3
    VALUE = 4


# --- operations ------------------------------------------------------------------------------------------------------


class Put(Struct, frozen=True, array_like=True, tag=1, gc=False):
    key: bytes
    value: bytes
    lease: int = 0
    return_previous: bool = False


class Delete(Struct, frozen=True, array_like=True, tag=2, gc=False):
    key: bytes
    end: bytes = NO_END
    return_previous: bool = False


class Range(Struct, frozen=True, array_like=True, tag=3):
    """Read keys in order; `revision` 0 is now, `limit` 0 is no limit."""

    key: bytes
    end: bytes = NO_END
    limit: int = 0
    revision: int = 0
    keys_only: bool = False
    count_only: bool = False
    sort_by: SortBy = SortBy.KEY
    descending: bool = False


class Compare(Struct, frozen=True, array_like=True):
    """True when every key of the range stands in `relation` to `operand` (bytes for VALUE, a number otherwise)."""

    key: bytes
    target: Target
    relation: Relation
    operand: bytes | int
    end: bytes = NO_END


class Txn(Struct, frozen=True, array_like=True, tag=4):
    """If all comparisons hold do `success`, else `failure`: all of it at one revision, or nothing."""

    compare: tuple[Compare, ...] = ()
    success: tuple[Put | Delete | Range, ...] = ()
    failure: tuple[Put | Delete | Range, ...] = ()


class GrantLease(Struct, frozen=True, array_like=True, tag=5):
    """Make a lease; id 0 lets the store choose one."""

    ttl_s: int
    id: int = 0


class RevokeLease(Struct, frozen=True, array_like=True, tag=6):
    """End a lease and delete its keys. The leader also proposes it when a lease has run out."""

    id: int


class Compact(Struct, frozen=True, array_like=True, tag=7):
    """Forget what is older than `revision`."""

    revision: int


class OpenSession(Struct, frozen=True, array_like=True, tag=8):
    """Begin a session: within it, a request that is repeated is applied once."""


class KeepAlive(Struct, frozen=True, array_like=True, tag=11, gc=False):
    """Renew a lease: the leader begins to count its time anew when it applies this."""

    id: int


class CloseSession(Struct, frozen=True, array_like=True, tag=9):
    session: int


class Publish(Struct, frozen=True, array_like=True, tag=10):
    """Tell the cluster at which URL clients reach a member (an empty one: nowhere any more)."""

    member: int
    url: str


Operation = (
    Put | Delete | Range | Txn | GrantLease | RevokeLease | KeepAlive | Compact | OpenSession | CloseSession | Publish
)


class Request(Struct, frozen=True, array_like=True):
    """One operation; with a session, `sequence` rises by each new operation and stays when one is repeated."""

    operation: Operation
    session: int = 0
    sequence: int = 0


# --- results ---------------------------------------------------------------------------------------------------------


class PutResult(Struct, frozen=True, array_like=True, tag=1, gc=False):
    revision: int
    previous: KeyValue | None = None


class DeleteResult(Struct, frozen=True, array_like=True, tag=2):
    revision: int
    deleted: int
    previous: tuple[KeyValue, ...] = ()


class RangeResult(Struct, frozen=True, array_like=True, tag=3):
    """`count` counts all keys of the range, however many of them `kvs` holds."""

    revision: int
    kvs: tuple[KeyValue, ...]
    count: int
    more: bool = False


class TxnResult(Struct, frozen=True, array_like=True, tag=4):
    revision: int
    succeeded: bool
    results: tuple[PutResult | DeleteResult | RangeResult, ...] = ()


class LeaseGranted(Struct, frozen=True, array_like=True, tag=5):
    revision: int
    id: int
    ttl_s: int


class Done(Struct, frozen=True, array_like=True, tag=6):
    """The operation has nothing else to say."""

    revision: int


class SessionOpened(Struct, frozen=True, array_like=True, tag=7):
    revision: int
    session: int


class Refusal(Struct, frozen=True, array_like=True, tag=8):
    """The operation was decided and changed nothing; `code` is one of `errors.py`."""

    revision: int
    code: str
    detail: str


OperationResult = PutResult | DeleteResult | RangeResult
Result = OperationResult | TxnResult | LeaseGranted | Done | SessionOpened | Refusal
