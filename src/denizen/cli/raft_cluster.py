"""`denizen raft status|member|transfer|snapshot`: looking at a cluster and changing it."""

import json as json_module
from collections.abc import Callable
from typing import Annotated, Any

from cyclopts import App, Parameter

from denizen.cli.raft_client import Directory, Endpoints, Json, Token, client_of, run, show
from denizen.raft.kv.client import KeyValueClient

app = App(name="cluster", help_format="plaintext")
member = App(name="member", help="Add and remove members of the cluster.", help_format="plaintext")
app.command(member)


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

    return run(lambda: client_of(endpoint, token, data), work)


def _admin(
    route: str,
    body: dict[str, Any],
    text: Callable[[dict[str, Any]], str],
    client: Callable[[], KeyValueClient],
    json: bool,
) -> int:
    async def work(connected: KeyValueClient) -> int:
        answer = await connected.call(route, body)
        show(answer, text(answer), json=json)
        return 0

    return run(client, work)


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
        show(answer, _members(answer), json=json)
        return 0

    return run(lambda: client_of(endpoint, token, data), work)


@member.command(name="promote")
def member_promote(
    id: int, *, endpoint: Endpoints = None, token: Token = None, data: Directory = None, json: Json = False
) -> int:
    """Make a learner a voter, as soon as it has caught up.

    For example:

      denizen raft member promote 4
    """
    return _admin("members/promote", {"id": id}, _members, lambda: client_of(endpoint, token, data), json)


@member.command(name="remove")
def member_remove(
    id: int, *, endpoint: Endpoints = None, token: Token = None, data: Directory = None, json: Json = False
) -> int:
    """Remove a member. Its id must not be used again.

    For example:

      denizen raft member remove 2
    """
    return _admin("members/remove", {"id": id}, _members, lambda: client_of(endpoint, token, data), json)


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
        "transfer", {"to": to}, lambda a: f"leader {a['leader']}", lambda: client_of(endpoint, token, data), json
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
        show(answers, "\n".join(f"{url}\tindex {answer['index']}" for url, answer in answers.items()), json=json)
        return 0

    return run(lambda: client_of(endpoint, token, data), work)
