"""The JSON of the routes under `/v1/kv`: what a body may hold, and how answers are written.

Keys and values are bytes. In JSON they are text where they are UTF-8 (`key`, `value`) and base64 where they are not
(`key_base64`, `value_base64`); a request may use either form, an answer uses text when it can.
"""

import base64
from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType, field

from denizen.raft.kv.errors import Malformed
from denizen.raft.kv.model import (
    TO_THE_LAST_KEY,
    Compare,
    Delete,
    DeleteResult,
    Done,
    Event,
    KeyValue,
    LeaseGranted,
    Put,
    PutResult,
    Range,
    RangeResult,
    Relation,
    Result,
    SessionOpened,
    SortBy,
    Target,
    Txn,
    TxnResult,
    prefix_end,
)

Text = str | UnsetType
Bytes = bytes | UnsetType
Int64 = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
NodeId = Annotated[int, Meta(ge=1, le=2**63 - 1)]


class Body(Struct, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """Base of all bodies: a misspelt field is refused instead of ignored."""


class Sessioned(Body):
    session: Int64 = 0
    sequence: Int64 = 0


class PutBody(Sessioned):
    key: Text = UNSET
    key_base64: Bytes = UNSET
    value: Text = UNSET
    value_base64: Bytes = UNSET
    lease: Int64 = 0
    return_previous: bool = False

    def operation(self) -> Put:
        key = _bytes("key", self.key, self.key_base64)
        return Put(key, _bytes("value", self.value, self.value_base64), self.lease, self.return_previous)


class RangeOfKeys(Sessioned):
    key: Text = UNSET
    key_base64: Bytes = UNSET
    end: Text = UNSET
    end_base64: Bytes = UNSET
    prefix: bool = False

    def bounds(self) -> tuple[bytes, bytes]:
        """Return key and end; the prefix "" is every key."""
        key = _bytes("key", self.key, self.key_base64)
        if self.prefix:
            return (key, prefix_end(key)) if key else (b"\x00", TO_THE_LAST_KEY)
        if self.end is UNSET and self.end_base64 is UNSET:
            return key, b""
        return key, _bytes("end", self.end, self.end_base64)


class DeleteBody(RangeOfKeys):
    return_previous: bool = False

    def operation(self) -> Delete:
        key, end = self.bounds()
        return Delete(key, end, self.return_previous)


class RangeBody(RangeOfKeys):
    """`local` answers from this node as it is, without asking the leader: quick, and perhaps old."""

    limit: Int64 = 0
    revision: Int64 = 0
    keys_only: bool = False
    count_only: bool = False
    sort_by: Literal["key", "version", "create", "mod", "value"] = "key"
    descending: bool = False
    local: bool = False

    def operation(self) -> Range:
        key, end = self.bounds()
        sort = SortBy[self.sort_by.upper()]
        return Range(key, end, self.limit, self.revision, self.keys_only, self.count_only, sort, self.descending)


_RELATIONS = {"=": Relation.EQUAL, ">": Relation.GREATER, "<": Relation.LESS, "!=": Relation.NOT_EQUAL}


class CompareBody(RangeOfKeys, kw_only=True):
    """`{"key": "a", "target": "version", "relation": "=", "operand": 0}` holds when the key does not exist."""

    target: Literal["version", "create", "mod", "value", "lease"]
    relation: Literal["=", ">", "<", "!="] = "="
    operand: Int64 | str | UnsetType = UNSET
    operand_base64: Bytes = UNSET

    def comparison(self) -> Compare:
        key, end = self.bounds()
        operand: int | bytes
        if isinstance(self.operand, int):
            operand = self.operand
        else:
            operand = _bytes("operand", self.operand, self.operand_base64)
        return Compare(key, Target[self.target.upper()], _RELATIONS[self.relation], operand, end)


class Step(Body):
    """One operation of a branch: exactly one of the three."""

    put: PutBody | UnsetType = UNSET
    delete: DeleteBody | UnsetType = UNSET
    range: RangeBody | UnsetType = UNSET

    def operation(self) -> Put | Delete | Range:
        given = [body for body in (self.put, self.delete, self.range) if not isinstance(body, UnsetType)]
        if len(given) != 1:
            raise Malformed("each step of a transaction is one of put, delete and range")
        return given[0].operation()


class TxnBody(Sessioned):
    compare: list[CompareBody] = field(default_factory=list)
    success: list[Step] = field(default_factory=list)
    failure: list[Step] = field(default_factory=list)

    def operation(self) -> Txn:
        return Txn(
            tuple(body.comparison() for body in self.compare),
            tuple(step.operation() for step in self.success),
            tuple(step.operation() for step in self.failure),
        )


class WatchBody(RangeOfKeys):
    from_revision: Int64 = 0
    previous: bool = False
    puts: bool = True
    deletes: bool = True


class GrantBody(Sessioned, kw_only=True):
    ttl_s: Int64
    id: Int64 = 0


class LeaseBody(Sessioned, kw_only=True):
    id: Int64


class SessionBody(Body):
    session: Int64


class CompactBody(Body):
    revision: Int64


class NoBody(Body):
    pass


class MemberBody(Body):
    id: NodeId


class AddMemberBody(Body):
    id: NodeId
    address: str


class TransferBody(Body):
    to: NodeId | None = None


# --- answers ---------------------------------------------------------------------------------------------------------


def _bytes(name: str, text: int | Text, encoded: Bytes) -> bytes:
    if isinstance(text, str) and encoded is UNSET:
        return text.encode()
    if isinstance(encoded, bytes) and text is UNSET:
        return encoded
    raise Malformed(f"give either {name} (text) or {name}_base64")


def named(name: str, data: bytes) -> tuple[str, str]:
    """Return the field's name and value for bytes: text when it is UTF-8."""
    try:
        return name, data.decode()
    except UnicodeDecodeError:
        return f"{name}_base64", base64.b64encode(data).decode()


def kv_json(kv: KeyValue) -> dict[str, Any]:
    """Return a key as of a revision; a deleted one is only its key and that revision."""
    if kv.version == 0:
        return dict([named("key", kv.key), ("mod_revision", kv.mod_revision)])
    facts: dict[str, Any] = dict([named("key", kv.key), named("value", kv.value)])
    facts |= {"create_revision": kv.create_revision, "mod_revision": kv.mod_revision, "version": kv.version}
    return facts | {"lease": kv.lease} if kv.lease else facts


def event_json(event: Event, *, previous: bool) -> dict[str, Any]:
    facts = {"type": "delete" if event.is_delete else "put", **kv_json(event.kv)}
    if previous and event.previous is not None:
        facts["previous"] = kv_json(event.previous)
    return facts


def result_json(result: Result) -> dict[str, Any]:
    """Return the answer to an operation."""
    facts: dict[str, Any] = {"revision": result.revision}
    match result:
        case PutResult(previous=KeyValue() as previous):
            facts["previous"] = kv_json(previous)
        case DeleteResult():
            facts["deleted"] = result.deleted
            if result.previous:
                facts["previous"] = [kv_json(kv) for kv in result.previous]
        case RangeResult():
            facts |= {"kvs": [kv_json(kv) for kv in result.kvs], "count": result.count, "more": result.more}
        case TxnResult():
            facts |= {"succeeded": result.succeeded, "results": [result_json(one) for one in result.results]}
        case LeaseGranted():
            facts |= {"id": result.id, "ttl_s": result.ttl_s}
        case SessionOpened():
            facts["session"] = result.session
        case Done() | _:
            pass
    return facts
