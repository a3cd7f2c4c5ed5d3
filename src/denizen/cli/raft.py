"""`denizen raft …`: run the replicated key-value service, and use it.

The commands that talk to a cluster find it by `--endpoint` and `--token` (or DENIZEN_RAFT_ENDPOINTS and
DENIZEN_RAFT_TOKEN), else by the `cluster.toml` that `denizen raft up` wrote into its directory. Exit codes: 0 done,
1 it ran and the answer is no (no such key, a transaction's failure branch, a refused change), 2 called wrongly.
"""

import asyncio
import json as json_module
import os
import sys
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter

from denizen.raft.errors import BadSettings
from denizen.raft.kv.client import KeyValueClient
from denizen.raft.kv.errors import KeyValueError, Malformed

app = App(name="raft", help="A replicated key-value service on Denizen's own Raft.", help_format="plaintext")
member = App(name="member", help="Add and remove members of the cluster.", help_format="plaintext")
app.command(member)

Json = Annotated[bool, Parameter(name="--json", negative=(), help="Print JSON, one document a line.")]
Endpoints = Annotated[
    list[str] | None,
    Parameter(
        name="--endpoint", negative=(), env_var="DENIZEN_RAFT_ENDPOINTS", help="URL of a node; give it once per node."
    ),
]
Token = Annotated[str | None, Parameter(env_var="DENIZEN_RAFT_TOKEN", help="The cluster's client token.")]
Directory = Annotated[
    Path | None, Parameter(name="--data", env_var="DENIZEN_RAFT_DATA", help="Directory of a local cluster.")
]


def default_directory() -> Path:
    """Return where `up` keeps its cluster when nobody says otherwise."""
    if os.geteuid() == 0:
        return Path("/var/lib/denizen-raft")
    share = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local/share")
    return Path(share) / "denizen-raft"


def _client(endpoint: list[str] | None, token: str | None, data: Path | None) -> KeyValueClient:
    if endpoint:
        if not token:
            raise BadSettings("--endpoint needs --token (`denizen raft token` prints it)")
        return KeyValueClient([url.rstrip("/") for url in endpoint], token)
    from denizen.raft.kv.local_cluster import read_cluster_file

    cluster = read_cluster_file(data or default_directory())
    return KeyValueClient(list(cluster.endpoints.values()), token or cluster.token)


def _run(client: Callable[[], KeyValueClient], work: Callable[[KeyValueClient], Awaitable[int]]) -> int:
    """Run with a client; an expected error is one line."""

    async def main() -> int:
        async with client() as connected:
            return await work(connected)

    try:
        return asyncio.run(main())
    except (KeyValueError, BadSettings) as error:
        print(f"denizen raft: {error}", file=sys.stderr)
        return 2 if isinstance(error, BadSettings | Malformed) else 1
    except KeyboardInterrupt:
        return 130


def _show(facts: Any, text: str, *, json: bool) -> None:
    print(json_module.dumps(facts) if json else text, flush=True)


def _value(kv: dict[str, Any]) -> str:
    return str(kv.get("value", f"(base64) {kv.get('value_base64', '')}"))


def _key(kv: dict[str, Any]) -> str:
    return str(kv.get("key", f"(base64) {kv.get('key_base64', '')}"))


# --- running ---------------------------------------------------------------------------------------------------------


@app.command
def serve(
    config: Path | None = None,
    *,
    id: int | None = None,
    data: Path | None = None,
    peer: Annotated[list[str] | None, Parameter(negative=())] = None,
    http: str | None = None,
    secret_file: Path | None = None,
    join: Annotated[bool, Parameter(negative=())] = False,
) -> int:
    """Serve one node, from a configuration file or from flags, until it is told to stop.

    For example:

      denizen raft serve --config node.toml
      denizen raft serve --id 1 --data ./1 --secret-file ./secret
          --peer 1=10.0.0.1:7001 --peer 2=10.0.0.2:7001 --peer 3=10.0.0.3:7001

    Parameters
    ----------
    config
        a TOML file with the keys id, data, peers, http, secret_file …; flags win over it
    id
        this node's number, from 1
    data
        its directory
    peer
        `id=host:port` of a member, this one included; give it once per member
    http
        where clients are served
    secret_file
        the secret that all nodes share (16 bytes or more)
    join
        wait to be added to a running cluster instead of founding one
    """
    from denizen.raft.kv.config import from_mapping, load
    from denizen.raft.kv.running import run

    given: dict[str, Any] = {
        "id": id,
        "data": str(data) if data else None,
        "peers": dict(text.split("=", 1) for text in peer if "=" in text) if peer else None,
        "http": http,
        "secret_file": str(secret_file) if secret_file else None,
        "join": True if join else None,
    }
    given = {name: value for name, value in given.items() if value is not None}
    try:
        node = load(config, **given) if config else from_mapping(given)
    except BadSettings as error:
        print(f"denizen raft: {error}", file=sys.stderr)
        return 2
    return run(node, lambda text: print(text, flush=True))


@app.command
def up(*, nodes: int = 3, data: Directory = None, port: int = 7100, json: Json = False) -> int:
    """Start a cluster on this machine, for trying; Ctrl-C stops it, and starting it again goes on with its data.

    For example:

      denizen raft up --nodes 3
      denizen raft up --nodes 5 --data ./cluster --port 8100

    Parameters
    ----------
    nodes
        how many nodes a new cluster has (1, 3, 5 or 7 make sense)
    port
        the first of the ports a new cluster uses, two per node; 0 takes free ones
    """
    from denizen.raft.kv.up import run_cluster

    if not 1 <= nodes <= 9:
        print("denizen raft: --nodes must be between 1 and 9", file=sys.stderr)
        return 2
    return run_cluster(data or default_directory(), nodes, port, as_json=json)


@app.command
def token(*, data: Directory = None, secret_file: Path | None = None) -> int:
    """Print the client token of a cluster, from its secret.

    For example:

      denizen raft token --secret-file ./secret
    """
    from denizen.raft.kv.http.routes import client_token
    from denizen.raft.kv.local_cluster import read_cluster_file

    try:
        secret = secret_file or Path(read_cluster_file(data or default_directory()).secret_file)
        print(client_token(secret.read_bytes().strip()))
    except (BadSettings, OSError) as error:
        print(f"denizen raft: {error}", file=sys.stderr)
        return 2
    return 0


@app.command
def demo(*, seconds: float = 6.0) -> int:
    """Show it: three nodes, the leader killed under load, the history checked. Exits 1 if an invariant fails."""
    from denizen.raft.kv.demo import run_demo

    return run_demo(seconds)


# --- using -----------------------------------------------------------------------------------------------------------


@app.command
def status(*, endpoint: Endpoints = None, token: Token = None, data: Directory = None, json: Json = False) -> int:
    """Show every node: its role, term, log and store. Exits 1 when a node does not answer or no leader is known.

    For example:

      denizen raft status
      denizen raft status --json
    """

    async def work(client: KeyValueClient) -> int:
        from denizen.raft.kv.up import node_rows, print_nodes

        rows = await node_rows(client)
        if json:
            print(json_module.dumps(rows))
        else:
            print_nodes(rows)
        return 0 if all("error" not in row for row in rows) and any(row.get("leader") for row in rows) else 1

    return _run(lambda: _client(endpoint, token, data), work)


@app.command
def get(
    key: str,
    *,
    prefix: Annotated[bool, Parameter(negative=())] = False,
    revision: int = 0,
    limit: int = 0,
    keys_only: Annotated[bool, Parameter(negative=())] = False,
    local: Annotated[bool, Parameter(negative=())] = False,
    endpoint: Endpoints = None,
    token: Token = None,
    data: Directory = None,
    json: Json = False,
) -> int:
    """Read a key, or all keys with a prefix. Exits 1 when there is none.

    For example:

      denizen raft get greeting
      denizen raft get users/ --prefix --limit 10 --json

    Parameters
    ----------
    revision
        as it was at this revision
    local
        as the node that answers has it, perhaps old; otherwise linearizable
    """

    async def work(client: KeyValueClient) -> int:
        query = {"prefix": prefix, "revision": revision, "limit": limit, "keys_only": keys_only, "local": local}
        answer = await client.range(key, **query)
        lines = [_key(kv) if keys_only else f"{_key(kv)}\t{_value(kv)}" for kv in answer["kvs"]]
        if json or lines:
            _show(answer, "\n".join(lines) if prefix or keys_only else _value(answer["kvs"][0]), json=json)
        return 0 if lines else 1

    return _run(lambda: _client(endpoint, token, data), work)


@app.command
def put(
    key: str,
    value: str,
    *,
    lease: int = 0,
    endpoint: Endpoints = None,
    token: Token = None,
    data: Directory = None,
    json: Json = False,
) -> int:
    """Set a key. Repeats safely, in a session, when an answer is lost.

    For example:

      denizen raft put greeting hello
      denizen raft put leader node-1 --lease 7
    """

    async def work(client: KeyValueClient) -> int:
        session = await client.open_session()
        answer = await session.put(key, value, lease=lease)
        await client.call("session/close", {"session": session.id})
        _show(answer, f"revision {answer['revision']}", json=json)
        return 0

    return _run(lambda: _client(endpoint, token, data), work)


@app.command
def delete(
    key: str,
    *,
    prefix: Annotated[bool, Parameter(negative=())] = False,
    endpoint: Endpoints = None,
    token: Token = None,
    data: Directory = None,
    json: Json = False,
) -> int:
    """Delete a key, or all keys with a prefix. Exits 1 when there was none.

    For example:

      denizen raft delete greeting
      denizen raft delete users/ --prefix
    """

    async def work(client: KeyValueClient) -> int:
        answer = await client.delete(key, prefix=prefix)
        _show(answer, f"{answer['deleted']} deleted, revision {answer['revision']}", json=json)
        return 0 if answer["deleted"] else 1

    return _run(lambda: _client(endpoint, token, data), work)


@app.command
def txn(
    body: str = "-", *, endpoint: Endpoints = None, token: Token = None, data: Directory = None, json: Json = False
) -> int:
    """Run a transaction given as JSON (`-` reads it from the input). Exits 1 when its failure branch ran.

    For example:

      denizen raft txn '{"success": [{"put": {"key": "a", "value": "1"}}]}'
      denizen raft txn < transfer.json
    """

    async def work(client: KeyValueClient) -> int:
        try:
            facts = json_module.loads(sys.stdin.read() if body == "-" else body)
        except ValueError as error:
            raise Malformed(f"the transaction is no JSON: {error}") from None
        answer = await client.call("txn", facts)
        branch = "success" if answer["succeeded"] else "failure"
        _show(answer, f"{branch}, revision {answer['revision']}: {json_module.dumps(answer['results'])}", json=json)
        return 0 if answer["succeeded"] else 1

    return _run(lambda: _client(endpoint, token, data), work)


@app.command
def watch(
    key: str,
    *,
    prefix: Annotated[bool, Parameter(negative=())] = False,
    from_revision: int = 0,
    count: int = 0,
    endpoint: Endpoints = None,
    token: Token = None,
    data: Directory = None,
    json: Json = False,
) -> int:
    """Print changes of a key (or of a prefix) as they happen, in order, each once, also over the loss of a node.

    For example:

      denizen raft watch users/ --prefix
      denizen raft watch greeting --from-revision 17 --json

    Parameters
    ----------
    from_revision
        begin with this revision instead of now
    count
        stop after so many changes
    """

    async def work(client: KeyValueClient) -> int:
        seen = 0
        async with aclosing(client.watch(key, from_revision=from_revision, prefix=prefix)) as events:
            async for event in events:
                shown = "" if event["type"] == "delete" else f"\t{_value(event)}"
                _show(event, f"{event['mod_revision']}\t{event['type']}\t{_key(event)}{shown}", json=json)
                seen += 1
                if count and seen >= count:
                    break
        return 0

    return _run(lambda: _client(endpoint, token, data), work)


# --- the cluster -----------------------------------------------------------------------------------------------------


def _admin(
    route: str,
    body: dict[str, Any],
    text: Callable[[dict[str, Any]], str],
    client: Callable[[], KeyValueClient],
    json: bool,
) -> int:
    async def work(connected: KeyValueClient) -> int:
        answer = await connected.call(route, body)
        _show(answer, text(answer), json=json)
        return 0

    return _run(client, work)


def _members(answer: dict[str, Any]) -> str:
    return f"voters {answer['voters']}, learners {answer['learners']}"


@member.command(name="add")
def member_add(
    id: int,
    address: str,
    *,
    learner: Annotated[bool, Parameter(negative=())] = False,
    endpoint: Endpoints = None,
    token: Token = None,
    data: Directory = None,
    json: Json = False,
) -> int:
    """Add a member: it receives the log as a learner, and votes when it has caught up (with `--learner` never).

    The node itself is started with `join = true` (`denizen raft serve --join`), before or after.

    For example:

      denizen raft member add 4 10.0.0.4:7001
    """

    async def work(client: KeyValueClient) -> int:
        answer = await client.call("members/add", {"id": id, "address": address})
        if not learner:
            answer = await client.call("members/promote", {"id": id})
        _show(answer, _members(answer), json=json)
        return 0

    return _run(lambda: _client(endpoint, token, data), work)


@member.command(name="promote")
def member_promote(
    id: int, *, endpoint: Endpoints = None, token: Token = None, data: Directory = None, json: Json = False
) -> int:
    """Make a learner a voter, as soon as it has caught up.

    For example:

      denizen raft member promote 4
    """
    return _admin("members/promote", {"id": id}, _members, lambda: _client(endpoint, token, data), json)


@member.command(name="remove")
def member_remove(
    id: int, *, endpoint: Endpoints = None, token: Token = None, data: Directory = None, json: Json = False
) -> int:
    """Remove a member. Its id must not be used again.

    For example:

      denizen raft member remove 2
    """
    return _admin("members/remove", {"id": id}, _members, lambda: _client(endpoint, token, data), json)


@app.command
def transfer(
    to: int | None = None,
    *,
    endpoint: Endpoints = None,
    token: Token = None,
    data: Directory = None,
    json: Json = False,
) -> int:
    """Hand the leadership to a voter, or to the one that is furthest.

    For example:

      denizen raft transfer 2
    """
    return _admin(
        "transfer", {"to": to}, lambda a: f"leader {a['leader']}", lambda: _client(endpoint, token, data), json
    )


@app.command
def snapshot(*, endpoint: Endpoints = None, token: Token = None, data: Directory = None, json: Json = False) -> int:
    """Make a snapshot at every node that answers, and forget the log before it.

    For example:

      denizen raft snapshot
    """

    async def work(client: KeyValueClient) -> int:
        answers: dict[str, Any] = {}
        for url in client.endpoints:
            answers[url] = await client.ask(url, "snapshot", {})
        _show(answers, "\n".join(f"{url}\tindex {answer['index']}" for url, answer in answers.items()), json=json)
        return 0

    return _run(lambda: _client(endpoint, token, data), work)
