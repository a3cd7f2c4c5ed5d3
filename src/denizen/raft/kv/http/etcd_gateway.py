"""etcd's JSON gateway (`/v3/…`) answered by our store, so that clients of etcd's HTTP interface run unchanged.

Answered: range, put, deleterange, txn, compaction, leases, watch, member list, status, and authentication with the
cluster's client token as the password. Not answered: nested transactions, filters of a range by revision, watching
several ranges over one stream, roles and users.
"""

import hmac
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Protocol, TypeVar

import msgspec

from denizen.raft.kv import errors
from denizen.raft.kv.http import etcd_bodies as bodies
from denizen.raft.kv.http.protocol import Connection, HttpRequest, response
from denizen.raft.kv.http.routes import Route, ok, stream
from denizen.raft.kv.model import (
    Compact,
    GrantLease,
    KeepAlive,
    LeaseGranted,
    PutResult,
    RevokeLease,
    TxnResult,
)
from denizen.raft.kv.service import KeyValueService
from denizen.raft.kv.watching import WatchQuery

T = TypeVar("T")
_decode_put = msgspec.json.Decoder(bodies.EtcdPut, strict=False).decode


class Cluster(Protocol):
    """What the gateway tells about the cluster."""

    @property
    def cluster_number(self) -> int: ...

    @property
    def member_id(self) -> int: ...

    @property
    def term(self) -> int: ...

    @property
    def leader(self) -> int: ...

    def members(self) -> list[dict[str, Any]]: ...


class EtcdGateway:
    """The routes of etcd's gateway."""

    def __init__(self, service: KeyValueService, cluster: Cluster, token: str) -> None:
        self._service = service
        self._cluster = cluster
        self._token = token

    def routes(self) -> dict[tuple[str, str], Route]:
        posts: dict[str, Route] = {
            "kv/put": self.put,
            "kv/range": self.range,
            "kv/deleterange": self.delete,
            "kv/txn": self.txn,
            "kv/compaction": self.compact,
            "lease/grant": self.grant,
            "lease/keepalive": self.keep_alive,
            "lease/revoke": self.revoke,
            "kv/lease/revoke": self.revoke,
            "lease/timetolive": self.time_to_live,
            "kv/lease/timetolive": self.time_to_live,
            "lease/leases": self.leases,
            "kv/lease/leases": self.leases,
            "watch": self.watch,
            "cluster/member/list": self.member_list,
            "maintenance/status": self.status,
            "auth/authenticate": self.authenticate,
        }
        return {("POST", f"/v3/{name}"): route for name, route in posts.items()} | {("GET", "/version"): self.version}

    # --- keys --------------------------------------------------------------------------------------------------------

    async def put(self, request: HttpRequest, _: Connection) -> bytes:
        try:
            put = _decode_put(request.body).operation()
        except msgspec.DecodeError as error:
            raise errors.Malformed(str(error)) from None
        result = await self._service.submit(put)
        if isinstance(result, PutResult) and result.previous is None:
            return response(200, b'{"header":%s}' % self._raw_header(result.revision))
        return ok(self._with_header(result.revision, bodies.result_json(_expect(result, PutResult))))

    async def range(self, request: HttpRequest, _: Connection) -> bytes:
        body = _body(request, bodies.EtcdRange)
        result = await self._service.range(body.operation(), linearizable=not body.serializable)
        return ok(self._with_header(result.revision, bodies.result_json(result)))

    async def delete(self, request: HttpRequest, _: Connection) -> bytes:
        result: Any = await self._service.submit(_body(request, bodies.EtcdDelete).operation())
        return ok(self._with_header(result.revision, bodies.result_json(result)))

    async def txn(self, request: HttpRequest, _: Connection) -> bytes:
        result = _expect(await self._service.submit(_body(request, bodies.EtcdTxn).operation()), TxnResult)
        facts: dict[str, Any] = {"succeeded": True} if result.succeeded else {}
        if result.results:
            facts["responses"] = [
                {bodies.STEP_NAMES[type(one)]: self._with_header(result.revision, bodies.result_json(one))}
                for one in result.results
            ]
        return ok(self._with_header(result.revision, facts))

    async def compact(self, request: HttpRequest, _: Connection) -> bytes:
        result = await self._service.submit(Compact(_body(request, bodies.EtcdCompact).revision))
        return ok(self._with_header(result.revision, {}))

    # --- leases ------------------------------------------------------------------------------------------------------

    async def grant(self, request: HttpRequest, _: Connection) -> bytes:
        body = _body(request, bodies.EtcdLease)
        granted = _expect(await self._service.submit(GrantLease(max(1, body.ttl), body.id)), LeaseGranted)
        return ok(self._with_header(granted.revision, {"ID": str(granted.id), "TTL": str(granted.ttl_s)}))

    async def keep_alive(self, request: HttpRequest, _: Connection) -> bytes:
        lease = _body(request, bodies.EtcdLease).id
        facts = {"ID": str(lease)}
        try:
            granted = _expect(await self._service.submit(KeepAlive(lease)), LeaseGranted)
            facts["TTL"] = str(granted.ttl_s)
        except errors.LostLease:  # a stream of etcd's says it by leaving out the time to live
            pass
        return ok({"result": self._with_header(self._service.store.revision, facts)})

    async def revoke(self, request: HttpRequest, _: Connection) -> bytes:
        result = await self._service.submit(RevokeLease(_body(request, bodies.EtcdLease).id))
        return ok(self._with_header(result.revision, {}))

    async def time_to_live(self, request: HttpRequest, _: Connection) -> bytes:
        body = _body(request, bodies.EtcdLease)
        await self._service.confirm()
        store = self._service.store
        lease = store.leases.get(body.id)
        if lease is None:
            return ok(self._with_header(store.revision, {"ID": str(body.id), "TTL": "-1"}))
        remaining = self._service.lease_remaining_s(body.id)
        ttl = lease.ttl_s if remaining is None else int(remaining)
        facts: dict[str, Any] = {"ID": str(body.id), "TTL": str(ttl), "grantedTTL": str(lease.ttl_s)}
        if body.keys:
            facts["keys"] = [msgspec.to_builtins(key) for key in store.lease_keys(body.id)]
        return ok(self._with_header(store.revision, facts))

    async def leases(self, _: HttpRequest, __: Connection) -> bytes:
        await self._service.confirm()
        store = self._service.store
        return ok(self._with_header(store.revision, {"leases": [{"ID": str(id)} for id in sorted(store.leases)]}))

    # --- watch -------------------------------------------------------------------------------------------------------

    async def watch(self, request: HttpRequest, connection: Connection) -> None:
        await stream(connection, self._watch_lines(_body(request, bodies.EtcdWatch).create_request))

    async def _watch_lines(self, create: bodies.EtcdWatchCreate) -> AsyncGenerator[dict[str, Any], None]:
        filters = {str(one).upper() for one in create.filters}
        puts, deletes = not filters & {"NOPUT", "0"}, not filters & {"NODELETE", "1"}
        query = WatchQuery(create.key, create.range_end, max(0, create.start_revision), puts, deletes)
        created = False
        try:
            async with aclosing(self._service.watch(query)) as watch:
                async for changes in watch:
                    if not created:
                        created = True
                        yield {"result": self._with_header(self._service.store.revision, {"created": True})}
                    elif changes.events or create.progress_notify:
                        events = [bodies.event_json(event, previous=create.prev_kv) for event in changes.events]
                        yield {"result": self._with_header(changes.revision, {"events": events} if events else {})}
        except errors.CompactedRevision:
            store = self._service.store
            facts = {"canceled": True, "compact_revision": str(store.keyspace.compacted + 1)}
            yield {"result": self._with_header(store.revision, facts)}

    # --- cluster -----------------------------------------------------------------------------------------------------

    async def member_list(self, _: HttpRequest, __: Connection) -> bytes:
        return ok(self._with_header(self._service.store.revision, {"members": self._cluster.members()}))

    async def status(self, _: HttpRequest, __: Connection) -> bytes:
        facts = {"version": "3.5.0", "leader": str(self._cluster.leader), "raftTerm": str(self._cluster.term)}
        return ok(self._with_header(self._service.store.revision, facts))

    async def version(self, _: HttpRequest, __: Connection) -> bytes:
        return ok({"etcdserver": "3.5.0", "etcdcluster": "3.5.0"})

    async def authenticate(self, request: HttpRequest, _: Connection) -> bytes:
        password = _body(request, bodies.EtcdUser).password
        if not hmac.compare_digest(password.encode(), self._token.encode()):
            raise errors.Unauthenticated("the password is the cluster's client token")
        return ok(self._with_header(self._service.store.revision, {"token": self._token}))

    # --- answers -----------------------------------------------------------------------------------------------------

    def _raw_header(self, revision: int) -> bytes:
        cluster = self._cluster
        numbers = (cluster.cluster_number, cluster.member_id, revision, cluster.term)
        return b'{"cluster_id":"%d","member_id":"%d","revision":"%d","raft_term":"%d"}' % numbers

    def _with_header(self, revision: int, facts: dict[str, Any]) -> dict[str, Any]:
        return {"header": msgspec.Raw(self._raw_header(revision)), **facts}


def _body(request: HttpRequest, type_: type[T]) -> T:
    try:
        return msgspec.json.decode(request.body or b"{}", type=type_, strict=False)
    except msgspec.DecodeError as error:
        raise errors.Malformed(f"the body is not what this route takes: {error}") from None


def _expect(result: Any, type_: type[T]) -> T:
    if not isinstance(result, type_):
        raise TypeError(f"{type(result).__name__} instead of {type_.__name__}")
    return result
