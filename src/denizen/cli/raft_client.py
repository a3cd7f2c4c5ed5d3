"""What the commands of `denizen raft` that talk to a cluster share: their options, the client, how things are shown."""

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

from cyclopts import Parameter

from denizen.raft.errors import BadSettings
from denizen.raft.kv.client import KeyValueClient
from denizen.raft.kv.errors import KeyValueError, Malformed

Json = Annotated[bool, Parameter(name="--json", negative=(), help="Print JSON, one document a line.")]
Directory = Annotated[
    Path | None, Parameter(name="--data", env_var="DENIZEN_RAFT_DATA", help="Directory of a local cluster.")
]


def default_directory() -> Path:
    """Return where `up` keeps its cluster when nobody says otherwise."""
    if os.geteuid() == 0:
        return Path("/var/lib/denizen-raft")
    share = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local/share")
    return Path(share) / "denizen-raft"


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Cluster:
    """The options that tell where the cluster is, and how what it answers is shown."""

    endpoint: Annotated[
        list[str] | None,
        Parameter(
            name="--endpoint",
            negative=(),
            env_var="DENIZEN_RAFT_ENDPOINTS",
            help="URL of a node; give it once per node.",
        ),
    ] = None
    token: Annotated[str | None, Parameter(env_var="DENIZEN_RAFT_TOKEN", help="The cluster's client token.")] = None
    data: Directory = None
    json: Json = False

    def run(self, work: Callable[[KeyValueClient], Awaitable[int]]) -> int:
        """Run with a client; an expected error is one line."""

        async def main() -> int:
            async with self._client() as connected:
                return await work(connected)

        try:
            return asyncio.run(main())
        except (KeyValueError, BadSettings) as error:
            print(f"denizen raft: {error}", file=sys.stderr)
            return 2 if isinstance(error, BadSettings | Malformed) else 1
        except KeyboardInterrupt:
            return 130

    def show(self, facts: Any, text: str) -> None:
        """Print an answer: as JSON or, for people, as this text."""
        print(json.dumps(facts) if self.json else text, flush=True)

    def _client(self) -> KeyValueClient:
        if self.endpoint:
            if not self.token:
                raise BadSettings("--endpoint needs --token (`denizen raft token` prints it)")
            return KeyValueClient([url.rstrip("/") for url in self.endpoint], self.token)
        from denizen.raft.kv.local_cluster import read_cluster_file

        found = read_cluster_file(self.data or default_directory())
        return KeyValueClient(list(found.endpoints.values()), self.token or found.token)


async def once(client: KeyValueClient, route: str, body: dict[str, Any]) -> dict[str, Any]:
    """Call a route so that it takes effect once, however often it is repeated because an answer was lost."""
    session = await client.open_session()
    answer = await session.call(route, body)
    await client.call("session/close", {"session": session.id})
    return answer


LOCAL: Final = Cluster()
"""The cluster of this machine, unless options say otherwise."""


def value_of(kv: dict[str, Any]) -> str:
    return str(kv.get("value", f"(base64) {kv.get('value_base64', '')}"))


def key_of(kv: dict[str, Any]) -> str:
    return str(kv.get("key", f"(base64) {kv.get('key_base64', '')}"))
