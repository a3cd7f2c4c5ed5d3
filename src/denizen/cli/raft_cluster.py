"""`denizen raft status|member|transfer|snapshot`: looking at a cluster and changing it."""

import json
from collections.abc import Callable
from typing import Annotated, Any

from cyclopts import App, Parameter

from denizen.cli.raft_client import LOCAL, Cluster
from denizen.raft.kv.client import KeyValueClient
from denizen.raft.kv.errors import KeyValueError

app = App(name="cluster", help_format="plaintext")
member = App(name="member", help="Add and remove members of the cluster.", help_format="plaintext")
app.command(member)


@app.command
def status(*, cluster: Cluster = LOCAL) -> int:
    """Show every node: its role, term, log and store. Exits 1 when a node does not answer or knows no leader.

    For example:

      denizen raft status
      denizen raft status --json
    """

    async def work(client: KeyValueClient) -> int:
        from denizen.raft.kv.up import node_rows, print_nodes

        rows = await node_rows(client)
        if cluster.json:
            print(json.dumps(rows))
        else:
            print_nodes(rows)
        return 0 if all(row.get("leader") for row in rows) else 1

    return cluster.run(work)


def _ask(cluster: Cluster, route: str, body: dict[str, Any], text: Callable[[dict[str, Any]], str]) -> int:
    async def work(client: KeyValueClient) -> int:
        answer = await client.call(route, body)
        cluster.show(answer, text(answer))
        return 0

    return cluster.run(work)


def _members(answer: dict[str, Any]) -> str:
    return f"voters {answer['voters']}, learners {answer['learners']}"


@member.command(name="add")
def member_add(
    id: int,
    address: str,
    *,
    learner: Annotated[bool, Parameter(negative=())] = False,
    cluster: Cluster = LOCAL,
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
        cluster.show(answer, _members(answer))
        return 0

    return cluster.run(work)


@member.command(name="promote")
def member_promote(id: int, *, cluster: Cluster = LOCAL) -> int:
    """Make a learner a voter, as soon as it has caught up.

    For example:

      denizen raft member promote 4
    """
    return _ask(cluster, "members/promote", {"id": id}, _members)


@member.command(name="remove")
def member_remove(id: int, *, cluster: Cluster = LOCAL) -> int:
    """Remove a member. Its id must not be used again.

    For example:

      denizen raft member remove 2
    """
    return _ask(cluster, "members/remove", {"id": id}, _members)


@app.command
def transfer(
    to: int | None = None,
    *,
    cluster: Cluster = LOCAL,
) -> int:
    """Hand the leadership to a voter, or to the one that is furthest.

    For example:

      denizen raft transfer 2
    """
    return _ask(cluster, "transfer", {"to": to}, lambda a: f"leader {a['leader']}")


@app.command
def snapshot(*, cluster: Cluster = LOCAL) -> int:
    """Make a snapshot at every node that answers, and forget the log before it. Exits 1 when one does not.

    For example:

      denizen raft snapshot
    """

    async def work(client: KeyValueClient) -> int:
        answers: dict[str, Any] = {}
        for url in client.endpoints:
            try:
                answers[url] = await client.ask(url, "snapshot", {})
            except KeyValueError as error:
                answers[url] = {"error": str(error)}
        lines = [
            f"{url}\t{answer.get('error') or 'index'} {answer.get('index', '')}" for url, answer in answers.items()
        ]
        cluster.show(answers, "\n".join(line.rstrip() for line in lines))
        return 1 if any("error" in answer for answer in answers.values()) else 0

    return cluster.run(work)
