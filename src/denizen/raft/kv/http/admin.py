"""Routes about the node and the cluster: status, members, leadership, snapshots, health, metrics."""

import hashlib
from collections.abc import Awaitable
from typing import Any

from denizen.raft import errors as raft
from denizen.raft.kv import errors
from denizen.raft.kv.batching import translated
from denizen.raft.kv.http import bodies
from denizen.raft.kv.http.protocol import Connection, HttpRequest, response
from denizen.raft.kv.http.routes import Route, body_of, ok
from denizen.raft.kv.model import Publish
from denizen.raft.kv.service import KeyValueService
from denizen.raft.node import Node

_NEWS_MAX = 20
"""How often a transfer looks for the new leader; each time waits for news, a fifth of a second at most."""


class AdminRoutes:
    """What an operator asks a node, and what etcd's gateway tells about the cluster."""

    def __init__(self, node: Node, service: KeyValueService, cluster: str) -> None:
        self._node = node
        self._service = service
        self._cluster = cluster
        self.cluster_number = int.from_bytes(hashlib.sha256(cluster.encode()).digest()[:8]) >> 1

    def routes(self) -> dict[tuple[str, str], Route]:
        return {
            ("GET", "/v1/kv/status"): self.status,
            ("GET", "/v1/kv/health"): self.health,
            ("GET", "/v1/kv/metrics"): self.metrics,
            ("GET", "/metrics"): self.metrics,
            ("POST", "/v1/kv/members/add"): self.add,
            ("POST", "/v1/kv/members/promote"): self.promote,
            ("POST", "/v1/kv/members/remove"): self.remove,
            ("POST", "/v1/kv/transfer"): self.transfer,
            ("POST", "/v1/kv/snapshot"): self.snapshot,
        }

    # --- looking -----------------------------------------------------------------------------------------------------

    async def status(self, _: HttpRequest, __: Connection) -> bytes:
        return ok(self.facts())

    def facts(self) -> dict[str, Any]:
        """Return everything worth knowing about this node."""
        status, store = self._node.status(), self._service.store
        return {
            "cluster": self._cluster,
            "id": status.id,
            "role": status.role,
            "term": status.term,
            "leader": status.leader,
            "commit": status.commit,
            "applied": status.applied,
            "first_index": status.first_index,
            "last_index": status.last_index,
            "snapshot_index": status.snapshot_index,
            "voters": list(status.voters),
            "learners": list(status.learners),
            "addresses": {str(id): address for id, address in sorted(status.addresses.items())},
            "urls": {str(id): url for id, url in sorted(store.urls.items())},
            "unreachable": {str(id): why for id, why in sorted(status.unreachable.items())},
            "store": {
                "revision": store.revision,
                "compacted_revision": store.keyspace.compacted,
                "keys": len(store.keyspace.current),
                "leases": len(store.leases),
                "sessions": store.sessions,
            },
            "metrics": status.metrics | self._service.counters(),
        }

    async def health(self, _: HttpRequest, __: Connection) -> bytes:
        leader = self._node.leader
        if leader is None:
            raise errors.NoLeader("this node knows no leader: look at the status of a majority of the nodes")
        return ok({"healthy": True, "leader": leader})

    async def metrics(self, _: HttpRequest, __: Connection) -> bytes:
        facts = self.facts()
        gauges = {name: facts[name] for name in ("term", "commit", "applied", "first_index", "last_index")}
        gauges |= {f"store_{name}": number for name, number in facts["store"].items()}
        gauges |= {"is_leader": int(self._node.is_leader), "has_leader": int(facts["leader"] is not None)}
        lines = [_metric("gauge", name, number) for name, number in gauges.items()]
        lines += [_metric("counter", f"{name}_total", number) for name, number in facts["metrics"].items()]
        return response(200, "".join(lines).encode(), b"text/plain; version=0.0.4; charset=utf-8")

    # --- acting ------------------------------------------------------------------------------------------------------

    async def add(self, request: HttpRequest, _: Connection) -> bytes:
        body = body_of(request, bodies.AddMemberBody)
        await _done(self._node.add_learner(body.id, body.address))
        return ok(self._members())

    async def promote(self, request: HttpRequest, _: Connection) -> bytes:
        await _done(self._node.promote(body_of(request, bodies.MemberBody).id))
        return ok(self._members())

    async def remove(self, request: HttpRequest, _: Connection) -> bytes:
        id = body_of(request, bodies.MemberBody).id
        await _done(self._node.remove(id))
        if id in self._service.store.urls and id != self._node.id:
            await self._service.submit(Publish(id, ""))
        return ok(self._members())

    async def transfer(self, request: HttpRequest, _: Connection) -> bytes:
        node, former = self._node, self._node.leader
        await _done(node.transfer_leadership(body_of(request, bodies.TransferBody).to))
        for _turn in range(_NEWS_MAX):  # the successor has to make itself known here
            if node.leader not in (None, former):
                break
            await node.wait_news()
        return ok({"leader": node.leader})

    async def snapshot(self, _: HttpRequest, __: Connection) -> bytes:
        return ok({"index": await _done(self._node.snapshot())})

    def _members(self) -> dict[str, Any]:
        status = self._node.status()
        return {"voters": list(status.voters), "learners": list(status.learners)}

    # --- what etcd's gateway tells -----------------------------------------------------------------------------------

    @property
    def member_id(self) -> int:
        return self._node.id

    @property
    def term(self) -> int:
        return self._service.term

    @property
    def leader(self) -> int:
        return self._node.leader or 0

    def members(self) -> list[dict[str, Any]]:
        status, urls = self._node.status(), self._service.store.urls
        members: list[dict[str, Any]] = []
        for id in (*status.voters, *status.learners):
            member: dict[str, Any] = {"ID": str(id), "name": str(id)}
            if id in status.addresses:
                member["peerURLs"] = [f"tcp://{status.addresses[id]}"]
            if id in urls:
                member["clientURLs"] = [urls[id]]
            members.append(member | {"isLearner": True} if id in status.learners else member)
        return members


async def _done(action: Awaitable[Any]) -> Any:
    try:
        return await action
    except raft.OutcomeUnknown as error:
        detail = f"the change may or may not come into force, look at the members in the status: {error.detail}"
        raise errors.OutcomeUnknown(detail) from error
    except raft.RaftError as error:
        raise translated(error) from error


def _metric(kind: str, name: str, number: float) -> str:
    return f"# TYPE denizen_raft_{name} {kind}\ndenizen_raft_{name} {number}\n"
