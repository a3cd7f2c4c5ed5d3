"""`denizen raft lease grant|keepalive|revoke|list|show`: keys that go when nobody keeps them alive."""

from typing import Any

from cyclopts import App

from denizen.cli.raft_client import LOCAL, Cluster, key_of, once
from denizen.raft.kv.client import KeyValueClient
from denizen.raft.kv.errors import LostLease

app = App(name="lease", help="Grant, keep and revoke leases, which keys can go with.", help_format="plaintext")


@app.command
def grant(ttl_s: int, *, id: int = 0, cluster: Cluster = LOCAL) -> int:
    """Grant a lease of so many seconds, to be kept alive before they are over. Exits 1 when its id is taken.

    For example:

      denizen raft lease grant 60
      denizen raft lease grant 60 --id 7 --json

    Parameters
    ----------
    id
        the lease's number; 0 lets the cluster choose
    """

    async def work(client: KeyValueClient) -> int:
        answer = await once(client, "lease/grant", {"ttl_s": ttl_s, "id": id})
        cluster.show(answer, f"lease {answer['id']}, {answer['ttl_s']} s")
        return 0

    return cluster.run(work)


@app.command
def keepalive(id: int, *, cluster: Cluster = LOCAL) -> int:
    """Give a lease its full time again, once. Exits 1 when it ran out or was revoked.

    For example:

      denizen raft lease keepalive 7
    """

    async def work(client: KeyValueClient) -> int:
        answer = await client.call("lease/keepalive", {"id": id}, repeat=True)
        cluster.show(answer, f"lease {answer['id']}, {answer['ttl_s']} s")
        return 0

    return cluster.run(work)


@app.command
def revoke(id: int, *, cluster: Cluster = LOCAL) -> int:
    """End a lease and delete its keys. Exits 1 when there is none.

    For example:

      denizen raft lease revoke 7
    """

    async def work(client: KeyValueClient) -> int:
        answer = await once(client, "lease/revoke", {"id": id})
        cluster.show(answer, f"lease {id} revoked, revision {answer['revision']}")
        return 0

    return cluster.run(work)


@app.command(name="list")
def list_(*, cluster: Cluster = LOCAL) -> int:
    """Show every lease: its time, what is left of it, and its keys.

    For example:

      denizen raft lease list
      denizen raft lease list --json
    """

    async def work(client: KeyValueClient) -> int:
        answer = await client.call("leases", None, method="GET")
        if cluster.json or answer["leases"]:
            cluster.show(answer, "\n".join(map(_line, answer["leases"])))
        return 0

    return cluster.run(work)


@app.command
def show(id: int, *, cluster: Cluster = LOCAL) -> int:
    """Show one lease. Exits 1 when there is none.

    For example:

      denizen raft lease show 7
    """

    async def work(client: KeyValueClient) -> int:
        answer = await client.call("leases", None, method="GET")
        found = [lease for lease in answer["leases"] if lease["id"] == id]
        if not found:
            raise LostLease(f"there is no lease {id}: it ran out, was revoked, or never was")
        cluster.show(found[0], _line(found[0]))
        return 0

    return cluster.run(work)


def _line(lease: dict[str, Any]) -> str:
    left = lease.get("remaining_s", lease["ttl_s"])
    keys = "".join(f"\t{key_of(key)}" for key in lease["keys"])
    return f"{lease['id']}\t{left:.0f} of {lease['ttl_s']} s left{keys}"
