"""The HTTP interface: operations, errors that say what to do, and bytes that are no proper HTTP."""

import asyncio
import contextlib
import json
from typing import Any

import pytest
from kv_clusters import Start
from kv_one_node import TOKEN, OneNode

from denizen.raft.kv.client import KeyValueClient
from denizen.raft.kv.errors import ConfigurationRefused, KeyValueError, TooLarge
from denizen.raft.kv.http.protocol import BadHttp, Head
from denizen.raft.kv.limits import KEY_BYTES_MAX, VALUE_BYTES_MAX


async def test_put_range_delete_keep_revisions_and_versions(node: OneNode) -> None:
    first = await node.ok("put", {"key": "a", "value": "1"})
    second = await node.ok("put", {"key": "a", "value": "2", "return_previous": True})
    assert second["previous"]["value"] == "1"
    found = await node.ok("range", {"key": "a"})
    revisions = {"create_revision": first["revision"], "mod_revision": second["revision"], "version": 2}
    assert found["kvs"] == [{"key": "a", "value": "2", **revisions}]
    old = await node.ok("range", {"key": "a", "revision": first["revision"]})
    assert old["kvs"][0]["value"] == "1"
    assert (await node.ok("delete", {"key": "a"}))["deleted"] == 1
    assert (await node.ok("range", {"key": "a"}))["kvs"] == []


async def test_range_by_prefix_is_sorted_limited_and_counted(node: OneNode) -> None:
    for name in ["u/3", "u/1", "v/1", "u/2"]:
        await node.ok("put", {"key": name, "value": name})
    page = await node.ok("range", {"key": "u/", "prefix": True, "limit": 2})
    assert [kv["key"] for kv in page["kvs"]] == ["u/1", "u/2"]
    assert (page["count"], page["more"]) == (3, True)
    newest = await node.ok(
        "range", {"key": "", "prefix": True, "sort_by": "mod", "descending": True, "keys_only": True}
    )
    assert [kv["key"] for kv in newest["kvs"]] == ["u/2", "v/1", "u/1", "u/3"]
    assert (await node.ok("range", {"key": "u/", "prefix": True, "count_only": True}))["count"] == 3


async def test_bytes_that_are_no_text_travel_as_base64(node: OneNode) -> None:
    await node.ok("put", {"key_base64": "/w==", "value_base64": "gA=="})
    kvs = (await node.ok("range", {"key_base64": "/w=="}))["kvs"]
    assert (kvs[0]["key_base64"], kvs[0]["value_base64"]) == ("/w==", "gA==")


async def test_largest_value_is_stored_and_a_larger_one_refused(node: OneNode) -> None:
    largest = "x" * VALUE_BYTES_MAX
    async with KeyValueClient([node.url], TOKEN) as client:
        await client.put("k" * KEY_BYTES_MAX, largest)
        kv = await client.get("k" * KEY_BYTES_MAX)
        assert kv is not None
        assert kv["value"] == largest
        with pytest.raises(TooLarge):
            await client.put("k", largest + "x")


async def test_transaction_takes_a_lock_once(node: OneNode) -> None:
    take = {
        "compare": [{"key": "lock", "target": "version", "operand": 0}],
        "success": [{"put": {"key": "lock", "value": "me"}}],
        "failure": [{"range": {"key": "lock"}}],
    }
    assert (await node.ok("txn", take))["succeeded"] is True
    again = await node.ok("txn", take)
    assert again["succeeded"] is False
    assert again["results"][0]["kvs"][0]["value"] == "me"


async def test_session_repeats_a_write_once(node: OneNode) -> None:
    session = (await node.ok("session/open"))["session"]
    body = {"key": "k", "value": "v", "session": session, "sequence": 1}
    assert await node.ok("put", body) == await node.ok("put", body)
    assert (await node.ok("range", {"key": "k"}))["kvs"][0]["version"] == 1


async def test_lease_runs_out_and_takes_its_keys(node: OneNode) -> None:
    lease = (await node.ok("lease/grant", {"ttl_s": 1}))["id"]
    await node.ok("put", {"key": "k", "value": "v", "lease": lease})
    listed = json.loads((await node.get("/v1/kv/leases"))[1])["leases"]
    assert (listed[0]["id"], listed[0]["keys"]) == (lease, [{"key": "k"}])
    async with asyncio.timeout(5):
        async with node.http.post(f"{node.url}/v1/kv/watch", json={"key": "k"}, headers=_auth()) as answer:
            await answer.content.readline()
            assert json.loads(await answer.content.readline())["events"][0]["type"] == "delete"
    status, problem = await node.post("/v1/kv/lease/keepalive", {"id": lease})
    assert (status, problem["code"]) == (404, "lost_lease")


async def test_watch_streams_what_was_and_what_comes(node: OneNode) -> None:
    first = (await node.ok("put", {"key": "k", "value": "1"}))["revision"]
    async with node.http.post(
        f"{node.url}/v1/kv/watch", json={"key": "k", "from_revision": first}, headers=_auth()
    ) as w:
        assert json.loads(await w.content.readline()) == {"revision": first - 1, "events": []}
        assert json.loads(await w.content.readline())["events"][0]["value"] == "1"
        await node.ok("put", {"key": "other", "value": "x"})
        await node.ok("put", {"key": "k", "value": "2"})
        line = json.loads(await w.content.readline())
        assert line["events"][0]["value"] == "2"
        assert line["revision"] == line["events"][0]["mod_revision"] == first + 2


PROBLEMS = [
    ("put", {"key": "", "value": "x"}, 400, "malformed"),
    ("put", {"key": "k"}, 400, "malformed"),
    ("put", {"key": "k", "value": "x", "leese": 1}, 400, "malformed"),
    ("put", {"key": "k", "value": "x", "value_base64": "eA=="}, 400, "malformed"),
    ("put", {"key": "k" * 5_000, "value": "x"}, 413, "too_large"),
    ("put", {"key": "k", "value": "x", "lease": 99}, 404, "lost_lease"),
    ("put", {"key": "k", "value": "x", "session": 99, "sequence": 1}, 410, "lost_session"),
    ("put", {"key": "k", "value": "x", "session": 99}, 400, "malformed"),
    ("range", {"key": "k", "revision": 1_000_000}, 400, "future_revision"),
    ("compact", {"revision": 1_000_000}, 400, "future_revision"),
    ("txn", {"success": [{"put": {"key": "a", "value": ""}}] * 2}, 400, "malformed"),
    ("txn", {"compare": [{"key": "a", "target": "value", "operand": 3}]}, 400, "malformed"),
    ("lease/grant", {"ttl_s": 0}, 400, "malformed"),
    ("nothing", {}, 404, "no_such_route"),
    ("members/remove", {"id": 7}, 409, "configuration_refused"),
    ("members/remove", {"id": 0}, 400, "malformed"),
    ("members/promote", {"id": 7}, 409, "configuration_refused"),
    ("members/add", {"id": 1, "address": "127.0.0.1:7001"}, 409, "configuration_refused"),
    ("members/add", {"id": 7, "address": "nowhere"}, 409, "configuration_refused"),
    ("members/add", {"id": -7, "address": "127.0.0.1:7001"}, 400, "malformed"),
    ("transfer", {"to": 2**70}, 400, "malformed"),
    ("put", {"key": "k", "value": "x", "lease": 2**70}, 400, "malformed"),
    ("put", {"key": "k", "value": "x", "session": 2**70, "sequence": 1}, 400, "malformed"),
    ("range", {"key": "k", "limit": 2**70}, 400, "malformed"),
    ("compact", {"revision": 2**70}, 400, "malformed"),
    ("lease/revoke", {"id": 2**70}, 400, "malformed"),
    ("session/close", {"session": 2**70}, 400, "malformed"),
    ("txn", {"compare": [{"key": "a", "target": "mod", "operand": 2**70}]}, 400, "malformed"),
]


@pytest.mark.parametrize(("route", "body", "status", "code"), PROBLEMS)
async def test_refusal_is_a_problem_with_a_code(node: OneNode, route: str, body: Any, status: int, code: str) -> None:
    given, problem = await node.post(f"/v1/kv/{route}", body)
    assert (given, problem["code"]) == (status, code), problem
    assert problem["detail"]
    assert problem["status"] == status


async def test_without_the_clusters_token_nothing_is_answered_but_health(node: OneNode) -> None:
    for token in (None, "", "wrong", TOKEN[:-1]):
        assert (await node.post("/v1/kv/put", {"key": "k", "value": "v"}, token=token))[0] == 401
        assert (await node.get("/v1/kv/status", token=token))[0] == 401
        assert (await node.get("/metrics", token=token))[0] == 401
        assert (await node.post("/v3/kv/range", {"key": "aw=="}, token=token))[0] == 401
    assert (await node.get("/v1/kv/health", token=None))[0] == 200


async def test_metrics_are_prometheus_text(node: OneNode) -> None:
    await node.ok("put", {"key": "k", "value": "v"})
    _, text = await node.get("/metrics")
    lines = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert lines["denizen_raft_is_leader"] == "1"
    assert int(lines["denizen_raft_requests_applied_total"]) >= 1


async def test_node_without_a_majority_says_so_and_changes_nothing(start: Start) -> None:
    it = await start(3)
    leader = await it.leader()
    for id in it.cluster.ids:
        if id != leader:
            it.cluster.kill(id)
    url = it.cluster.endpoint(leader)
    async with KeyValueClient([url], it.cluster.token, try_s=20) as alone:
        codes = []
        for _ in range(2):
            with pytest.raises(KeyValueError) as refused:
                await alone.ask(url, "put", {"key": "k", "value": "v"})
            codes.append(refused.value.code)
    assert codes[0] in {"no_leader", "outcome_unknown"}  # it may have sent the first before it stepped down
    assert codes[1] == "no_leader"


async def test_every_node_takes_writes_and_answers_fresh_reads(start: Start) -> None:
    it = await start(3)
    for count, endpoint in enumerate(it.cluster.endpoints * 5):
        await it.client.ask(endpoint, "put", {"key": "k", "value": str(count)})
        other = it.cluster.endpoints[(count + 1) % 3]
        assert (await it.client.ask(other, "range", {"key": "k"}))["kvs"][0]["value"] == str(count)


async def test_members_are_added_promoted_and_removed_while_it_serves(start: Start) -> None:
    it = await start(3)
    await it.client.put("k", "v")
    raft = it.cluster.add_node(4)
    it.cluster.start(4)
    async with KeyValueClient(it.cluster.endpoints, it.cluster.token, timeout_s=30, try_s=30) as patient:
        await patient.call("members/add", {"id": 4, "address": raft})
        assert 4 in (await patient.call("members/promote", {"id": 4}))["voters"]
        leader = await it.leader()
        async with asyncio.timeout(30):
            while True:
                with contextlib.suppress(ConfigurationRefused):  # one change at a time: again when the last is finished
                    assert leader not in (await patient.call("members/remove", {"id": leader}))["voters"]
                    break
                await asyncio.sleep(0.05)
    it.client.endpoints = [url for url in it.cluster.endpoints if url != it.cluster.endpoint(leader)]
    successor = await it.leader([id for id in it.cluster.ids if id != leader])
    transferred = await it.client.call("transfer", {"to": 4} if successor != 4 else {})
    assert transferred["leader"] not in {None, successor}
    assert (await it.client.ask(it.cluster.endpoint(4), "range", {"key": "k"}))["kvs"][0]["value"] == "v"


# --- HTTP itself -----------------------------------------------------------------------------------------------------


async def test_pipelined_requests_are_answered_in_order(node: OneNode) -> None:
    bodies = [b'{"key":"p","value":"%d"}' % number for number in range(100)]
    requests = b"".join(
        b"POST /v1/kv/put HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n%s"
        % (TOKEN.encode(), len(body), body)
        for body in bodies
    )
    answers = await node.raw(requests, answers=100)
    revisions = [json.loads(part.split(b"\r\n\r\n")[1])["revision"] for part in answers.split(b"HTTP/1.1 200 OK")[1:]]
    assert revisions == list(range(revisions[0], revisions[0] + 100))


async def test_request_that_comes_byte_by_byte_is_put_together(node: OneNode) -> None:
    request = b"GET /v1/kv/health HTTP/1.1\r\nHost: x\r\n\r\n"
    reader, writer = await asyncio.open_connection(*node.address)
    for at in range(len(request)):
        writer.write(request[at : at + 1])
        await writer.drain()
        await asyncio.sleep(0)
    assert (await reader.readline()).startswith(b"HTTP/1.1 200")
    writer.close()
    await writer.wait_closed()


BAD_BYTES = [
    (b"nonsense\r\n\r\n", 400),
    (b"GET /v1/kv/health HTTP/3\r\n\r\n", 505),
    (b"POST /v1/kv/put HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 411),
    (b"POST /v1/kv/put HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", 400),
    (b"POST /v1/kv/put HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
    (b"POST /v1/kv/put HTTP/1.1\r\nContent-Length: +1\r\n\r\na", 400),
    (b"POST /v1/kv/put HTTP/1.1\r\nContent-Length : 1\r\n\r\na", 400),
    (b"POST /v1/kv/put HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n", 413),
    (b"POST /v1/kv/put HTTP/1.1\r\nContent-Length: 100000\r\n\r\n", 401),
    (b"GET / HTTP/1.1\r\nA: b\r\n folded\r\n\r\n", 400),
    (b"GET /" + b"x" * 20_000, 431),
    (b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 4_000 + b"\r\n", 431),
]


@pytest.mark.parametrize(("data", "status"), BAD_BYTES)
async def test_bytes_that_are_no_proper_request_are_refused_and_the_connection_closed(
    node: OneNode, data: bytes, status: int
) -> None:
    answer = await node.raw(data)
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert b"Connection: close" in answer
    problem = json.loads(answer.split(b"\r\n\r\n", 1)[1])
    assert problem["status"] == status
    assert problem["code"] == {401: "unauthenticated", 413: "too_large", 431: "too_large"}.get(status, "malformed")


async def test_more_large_requests_than_fit_are_read_as_they_are_served(node: OneNode) -> None:
    body = b'{"key":"large","value":"%s"}' % (b"x" * 500_000)
    head = b"POST /v1/kv/put HTTP/1.1\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n"
    answers = await node.raw((head % (TOKEN.encode(), len(body)) + body) * 20, answers=20)
    assert answers.count(b"HTTP/1.1 200") == 20


async def test_client_that_asks_whether_to_continue_is_told_to(node: OneNode) -> None:
    body = b'{"key":"k","value":"v"}'
    head = b"POST /v1/kv/put HTTP/1.1\r\nExpect: 100-continue\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n"
    reader, writer = await asyncio.open_connection(*node.address)
    writer.write(head % (TOKEN.encode(), len(body)))
    assert (await reader.readline()).startswith(b"HTTP/1.1 100")
    await reader.readline()
    writer.write(body)
    assert (await reader.readline()).startswith(b"HTTP/1.1 200")
    writer.close()
    await writer.wait_closed()


def test_header_names_do_not_depend_on_case() -> None:
    head = Head(b"POST /a?b=c HTTP/1.1\r\nCONTENT-length: 3\r\nConnection: Close")
    assert (head.content_length, head.keep_alive, head.path, head.query) == (3, False, "/a", "b=c")
    with pytest.raises(BadHttp):
        Head(b"GET / HTTP/1.1\r\nna me: x")


def _auth() -> dict[str, str]:
    return {"Authorization": f"Bearer {TOKEN}"}
