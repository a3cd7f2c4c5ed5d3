"""`denizen raft …`: run the replicated key-value service, and use it.

The commands that talk to a cluster find it by `--endpoint` and `--token` (or DENIZEN_RAFT_ENDPOINTS and
DENIZEN_RAFT_TOKEN), else by the `cluster.toml` that `denizen raft up` wrote into its directory. Exit codes: 0 done,
1 it ran and the answer is no (no such key, a transaction's failure branch, a refused change), 2 called wrongly.
"""

import sys
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter

from denizen.cli.raft_client import Directory, Json, default_directory
from denizen.cli.raft_cluster import app as cluster
from denizen.cli.raft_keys import app as keys
from denizen.cli.raft_leases import app as leases
from denizen.raft.errors import BadSettings

app = App(name="raft", help="A replicated key-value service on Denizen's own Raft.", help_format="plaintext")
for group in (keys, cluster):
    app.update(group)
app.command(leases)

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
        "http": http,
        "secret_file": str(secret_file) if secret_file else None,
        "join": True if join else None,
    }
    given = {name: value for name, value in given.items() if value is not None}
    try:
        if peer:
            given["peers"] = _peers(peer)
        node = load(config, **given) if config else from_mapping(given)
    except BadSettings as error:
        print(f"denizen raft: {error}", file=sys.stderr)
        return 2
    return run(node, lambda text: print(text, flush=True))


def _peers(given: list[str]) -> dict[int, str]:
    peers: dict[int, str] = {}
    for text in given:
        id, _, address = text.partition("=")
        if not (id.isascii() and id.isdigit() and address):
            raise BadSettings(f"--peer {text!r} is not id=host:port")
        if int(id) in peers:
            raise BadSettings(f"--peer names node {id} twice")
        peers[int(id)] = address
    return peers


@app.command
def up(*, nodes: int | None = None, data: Directory = None, port: int | None = None, json: Json = False) -> int:
    """Start a cluster on this machine, for trying; Ctrl-C stops it, and starting it again goes on with its data.

    For example:

      denizen raft up --nodes 3
      denizen raft up --nodes 5 --data ./cluster --port 8100

    Parameters
    ----------
    nodes
        how many nodes a new cluster has (3 unless told otherwise; 1, 3, 5 or 7 make sense)
    port
        the first of the ports a new cluster uses, two per node (7100 unless told otherwise); 0 takes free ones
    """
    from denizen.raft.kv.up import run_cluster

    if nodes is not None and not 1 <= nodes <= 9:
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
