"""The JSON of etcd's gateway: base64 keys, 64-bit numbers as strings, names in snake case, zero values left out.

Written from etcd's published API (`rpc.proto`, v3). Numbers are taken as strings or numbers. A field that we do not
know is refused, so that nobody relies on a condition that is not checked.
"""

import base64
from typing import Annotated, Any

from msgspec import Meta, Struct, field

from denizen.raft.kv.errors import Malformed
from denizen.raft.kv.model import (
    Compare,
    Delete,
    DeleteResult,
    Event,
    KeyValue,
    OperationResult,
    Put,
    PutResult,
    Range,
    RangeResult,
    Relation,
    SortBy,
    Target,
    Txn,
)

Int64 = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]


class EtcdBody(Struct, forbid_unknown_fields=True, kw_only=True):
    """Base of the gateway's bodies."""


class EtcdPut(EtcdBody):
    key: bytes = b""
    value: bytes = b""
    lease: Int64 = 0
    prev_kv: bool = False

    def operation(self) -> Put:
        return Put(self.key, self.value, self.lease, self.prev_kv)


class EtcdDelete(EtcdBody):
    key: bytes = b""
    range_end: bytes = b""
    prev_kv: bool = False

    def operation(self) -> Delete:
        return Delete(self.key, self.range_end, self.prev_kv)


class EtcdRange(EtcdBody):
    key: bytes = b""
    range_end: bytes = b""
    limit: Int64 = 0
    revision: Int64 = 0
    sort_order: str | int = "NONE"
    sort_target: str | int = "KEY"
    serializable: bool = False
    keys_only: bool = False
    count_only: bool = False

    def operation(self) -> Range:
        order = _word(self.sort_order, ("NONE", "ASCEND", "DESCEND"))
        sort_by = SortBy(_number(self.sort_target, ("KEY", "VERSION", "CREATE", "MOD", "VALUE")))
        return Range(
            self.key,
            self.range_end,
            max(0, self.limit),
            max(0, self.revision),
            self.keys_only,
            self.count_only,
            sort_by,
            order == "DESCEND",
        )


class EtcdCompare(EtcdBody):
    key: bytes = b""
    range_end: bytes = b""
    target: str | int = "VERSION"
    result: str | int = "EQUAL"
    version: Int64 = 0
    create_revision: Int64 = 0
    mod_revision: Int64 = 0
    lease: Int64 = 0
    value: bytes = b""

    def comparison(self) -> Compare:
        target = Target(_number(self.target, ("VERSION", "CREATE", "MOD", "VALUE", "LEASE")))
        relation = Relation(_number(self.result, ("EQUAL", "GREATER", "LESS", "NOT_EQUAL")))
        operand = (self.version, self.create_revision, self.mod_revision, self.value, self.lease)[target]
        return Compare(self.key, target, relation, operand, self.range_end)


class EtcdStep(EtcdBody):
    request_put: EtcdPut | None = None
    request_range: EtcdRange | None = None
    request_delete_range: EtcdDelete | None = None

    def operation(self) -> Put | Delete | Range:
        requests = (self.request_put, self.request_range, self.request_delete_range)
        given = [request for request in requests if request is not None]
        if len(given) != 1:
            raise Malformed("a step of a transaction is one put, range or delete_range (no nested transactions)")
        return given[0].operation()


class EtcdTxn(EtcdBody):
    compare: list[EtcdCompare] = field(default_factory=list)
    success: list[EtcdStep] = field(default_factory=list)
    failure: list[EtcdStep] = field(default_factory=list)

    def operation(self) -> Txn:
        return Txn(
            tuple(body.comparison() for body in self.compare),
            tuple(step.operation() for step in self.success),
            tuple(step.operation() for step in self.failure),
        )


class EtcdLease(EtcdBody, rename={"id": "ID", "ttl": "TTL"}):
    id: Int64 = 0
    ttl: Int64 = 0
    keys: bool = False


class EtcdCompact(EtcdBody):
    revision: Int64 = 0
    physical: bool = False


class EtcdWatchCreate(EtcdBody):
    key: bytes = b""
    range_end: bytes = b""
    start_revision: Int64 = 0
    progress_notify: bool = False
    filters: list[str | int] = field(default_factory=list)
    prev_kv: bool = False
    watch_id: Int64 = 0
    fragment: bool = False


class EtcdWatch(EtcdBody):
    create_request: EtcdWatchCreate


class EtcdUser(EtcdBody):
    name: str = ""
    password: str = ""


# --- answers ---------------------------------------------------------------------------------------------------------


def kv_json(kv: KeyValue) -> dict[str, Any]:
    facts: dict[str, Any] = {"key": _base64(kv.key)}
    for name in ("create_revision", "mod_revision", "version"):
        if number := getattr(kv, name):
            facts[name] = str(number)
    if kv.value:
        facts["value"] = _base64(kv.value)
    return facts | {"lease": str(kv.lease)} if kv.lease else facts


def event_json(event: Event, *, previous: bool) -> dict[str, Any]:
    facts: dict[str, Any] = {"type": "DELETE"} if event.is_delete else {}
    facts["kv"] = kv_json(event.kv)
    if previous and event.previous is not None:
        facts["prev_kv"] = kv_json(event.previous)
    return facts


def result_json(result: OperationResult) -> dict[str, Any]:
    """Return what follows the header in the answer to a put, delete or range."""
    if isinstance(result, PutResult):
        return {} if result.previous is None else {"prev_kv": kv_json(result.previous)}
    facts: dict[str, Any] = {}
    if isinstance(result, DeleteResult):
        if result.deleted:
            facts["deleted"] = str(result.deleted)
        if result.previous:
            facts["prev_kvs"] = [kv_json(kv) for kv in result.previous]
        return facts
    if result.kvs:
        facts["kvs"] = [kv_json(kv) for kv in result.kvs]
    if result.more:
        facts["more"] = True
    if result.count:
        facts["count"] = str(result.count)
    return facts


STEP_NAMES: dict[type[OperationResult], str] = {
    PutResult: "response_put",
    DeleteResult: "response_delete_range",
    RangeResult: "response_range",
}


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _word(given: str | int, words: tuple[str, ...]) -> str:
    return words[_number(given, words)]


def _number(given: str | int, words: tuple[str, ...]) -> int:
    if isinstance(given, str) and given.upper() in words:
        return words.index(given.upper())
    if isinstance(given, int) and 0 <= given < len(words):
        return given
    raise Malformed(f"{given!r} is none of {', '.join(words)}")
