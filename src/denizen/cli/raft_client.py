"""What the commands of `denizen raft` that talk to a cluster share: options, the client, how things are shown."""

import asyncio
import json as json_module
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from denizen.raft.errors import BadSettings
from denizen.raft.kv.client import KeyValueClient
from denizen.raft.kv.errors import KeyValueError, Malformed

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


def client_of(endpoint: list[str] | None, token: str | None, data: Path | None) -> KeyValueClient:
    if endpoint:
        if not token:
            raise BadSettings("--endpoint needs --token (`denizen raft token` prints it)")
        return KeyValueClient([url.rstrip("/") for url in endpoint], token)
    from denizen.raft.kv.local_cluster import read_cluster_file

    cluster = read_cluster_file(data or default_directory())
    return KeyValueClient(list(cluster.endpoints.values()), token or cluster.token)


def run(client: Callable[[], KeyValueClient], work: Callable[[KeyValueClient], Awaitable[int]]) -> int:
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


def show(facts: Any, text: str, *, json: bool) -> None:
    print(json_module.dumps(facts) if json else text, flush=True)


def value_of(kv: dict[str, Any]) -> str:
    return str(kv.get("value", f"(base64) {kv.get('value_base64', '')}"))


def key_of(kv: dict[str, Any]) -> str:
    return str(kv.get("key", f"(base64) {kv.get('key_base64', '')}"))
