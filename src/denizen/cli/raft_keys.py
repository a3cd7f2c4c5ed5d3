"""`denizen raft get|put|delete|txn|watch|compact`: using the keys of a cluster."""

import json
import sys
from contextlib import aclosing
from typing import Annotated

from cyclopts import App, Parameter

from denizen.cli.raft_client import LOCAL, Cluster, key_of, value_of
from denizen.raft.kv.client import KeyValueClient
from denizen.raft.kv.errors import Malformed

app = App(name="keys", help_format="plaintext")


@app.command
def get(
    key: str,
    *,
    prefix: Annotated[bool, Parameter(negative=())] = False,
    revision: int = 0,
    limit: int = 0,
    keys_only: Annotated[bool, Parameter(negative=())] = False,
    local: Annotated[bool, Parameter(negative=())] = False,
    cluster: Cluster = LOCAL,
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
        lines = [key_of(kv) if keys_only else f"{key_of(kv)}\t{value_of(kv)}" for kv in answer["kvs"]]
        if cluster.json or lines:
            cluster.show(answer, "\n".join(lines) if prefix or keys_only else value_of(answer["kvs"][0]))
        return 0 if lines else 1

    return cluster.run(work)


@app.command
def put(
    key: str,
    value: str,
    *,
    lease: int = 0,
    cluster: Cluster = LOCAL,
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
        cluster.show(answer, f"revision {answer['revision']}")
        return 0

    return cluster.run(work)


@app.command
def delete(
    key: str,
    *,
    prefix: Annotated[bool, Parameter(negative=())] = False,
    cluster: Cluster = LOCAL,
) -> int:
    """Delete a key, or all keys with a prefix. Exits 1 when there was none.

    For example:

      denizen raft delete greeting
      denizen raft delete users/ --prefix
    """

    async def work(client: KeyValueClient) -> int:
        answer = await client.delete(key, prefix=prefix)
        cluster.show(answer, f"{answer['deleted']} deleted, revision {answer['revision']}")
        return 0 if answer["deleted"] else 1

    return cluster.run(work)


@app.command
def txn(body: str = "-", *, cluster: Cluster = LOCAL) -> int:
    """Run a transaction given as JSON (`-` reads it from the input). Exits 1 when its failure branch ran.

    For example:

      denizen raft txn '{"success": [{"put": {"key": "a", "value": "1"}}]}'
      denizen raft txn < transfer.json
    """

    async def work(client: KeyValueClient) -> int:
        try:
            facts = json.loads(sys.stdin.read() if body == "-" else body)
        except ValueError as error:
            raise Malformed(f"the transaction is no JSON: {error}") from None
        answer = await client.call("txn", facts)
        branch = "success" if answer["succeeded"] else "failure"
        cluster.show(answer, f"{branch}, revision {answer['revision']}: {json.dumps(answer['results'])}")
        return 0 if answer["succeeded"] else 1

    return cluster.run(work)


@app.command
def watch(
    key: str,
    *,
    prefix: Annotated[bool, Parameter(negative=())] = False,
    from_revision: int = 0,
    count: int = 0,
    cluster: Cluster = LOCAL,
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
                shown = "" if event["type"] == "delete" else f"\t{value_of(event)}"
                cluster.show(event, f"{event['mod_revision']}\t{event['type']}\t{key_of(event)}{shown}")
                seen += 1
                if count and seen >= count:
                    break
        return 0

    return cluster.run(work)


@app.command
def compact(revision: int, *, cluster: Cluster = LOCAL) -> int:
    """Forget the past before a revision: it can no longer be read or watched. The present stays.

    For example:

      denizen raft compact 4711
    """

    async def work(client: KeyValueClient) -> int:
        answer = await client.call("compact", {"revision": revision})
        cluster.show(answer, f"revisions before {revision} are forgotten; revision {answer['revision']}")
        return 0

    return cluster.run(work)
