"""Read models and their replays, for operators. It needs a key with the scope `admin`.

await client.replays.run("directory")
while (await client.replays.replay("directory")).state != "done": ...
if (await client.replays.verify("directory")).equal:
    await client.replays.promote("directory")
"""

from typing import Any, TypeVar
from urllib.parse import quote
from uuid import UUID

import msgspec

from denizen.api.read_side import (
    Comparison,
    ProjectionList,
    ReplayDocument,
    ReplayList,
    ReplayPlan,
    VersionDone,
)
from denizen.client.transport import Call, Transport

T = TypeVar("T")


class Replays:
    """What operators do with read models. `client.replays` is one."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def projections(self) -> ProjectionList:
        """Every version of every read model, and the streams that are parked."""
        return await self._send(ProjectionList, "GET", "/v1/projections")

    async def pause_projection(self, name: str) -> None:
        """Stop applying events; it goes on answering with what it has."""
        await self._do(f"/v1/projections/{_quoted(name)}:pause")

    async def resume_projection(self, name: str) -> None:
        """Go on applying events."""
        await self._do(f"/v1/projections/{_quoted(name)}:resume")

    async def retry(self, name: str, user_id: UUID | str) -> None:
        """Try the event again that a parked user waits at."""
        await self._do(f"/v1/projections/{_quoted(name)}/parked/{_quoted(str(user_id))}:retry")

    async def skip(self, name: str, user_id: UUID | str) -> None:
        """Go on behind the event that a parked user waits at."""
        await self._do(f"/v1/projections/{_quoted(name)}/parked/{_quoted(str(user_id))}:skip")

    async def all(self) -> list[ReplayDocument]:
        """Every replay whose version is still there."""
        return (await self._send(ReplayList, "GET", "/v1/replays")).items

    async def replay(self, name: str) -> ReplayDocument:
        """The newest replay of a projection. `LookupError` if there is none."""
        found = [each for each in await self.all() if each.projection == name]
        if not found:
            raise LookupError(f"there is no replay of {name}")
        return found[-1]

    async def plan(self, name: str, *, workers: int | None = None) -> ReplayPlan:
        """What a replay would do."""
        query = {} if workers is None else {"workers": str(workers)}
        return await self._send(ReplayPlan, "GET", _replay(name, "plan"), query=query)

    async def run(self, name: str, *, workers: int | None = None) -> ReplayDocument:
        """Make a new version, in a process of its own; returns when it has begun. `Problem` if one runs already."""
        return await self._send(ReplayDocument, "POST", _replay(name, "run"), {"workers": workers}, repeatable=False)

    async def resume(self, name: str, *, workers: int | None = None) -> ReplayDocument:
        """Go on with a replay that was paused, or whose run was killed."""
        return await self._send(ReplayDocument, "POST", _replay(name, "resume"), {"workers": workers}, repeatable=False)

    async def pause(self, name: str) -> None:
        """Stop loading after the parts under way."""
        await self._do(_replay(name, "pause"))

    async def cancel(self, name: str, version: int | None = None) -> int:
        """Remove a version that is not live; which."""
        return (await self._send(VersionDone, "POST", _replay(name, "cancel"), {"version": version})).version

    async def verify(self, name: str, version: int | None = None) -> Comparison:
        """Compare a version with the live one, row for row."""
        return await self._send(Comparison, "POST", _replay(name, "verify"), {"version": version})

    async def promote(self, name: str, version: int | None = None, *, unverified: bool = False) -> int:
        """Let readers see a version; which."""
        body = {"version": version, "unverified": unverified}
        return (await self._send(VersionDone, "POST", _replay(name, "promote"), body)).version

    async def roll_back(self, name: str) -> int:
        """Let readers see the version before again; which."""
        return (await self._send(VersionDone, "POST", _replay(name, "rollback"), repeatable=False)).version

    async def _do(self, path: str) -> None:
        await self._transport.send(Call("POST", path, repeatable=False))

    async def _send(
        self,
        shape: type[T],
        method: str,
        path: str,
        body: Any = None,
        *,
        query: dict[str, str] | None = None,
        repeatable: bool = True,
    ) -> T:
        answer = await self._transport.send(Call(method, path, body, query=query or {}, repeatable=repeatable))
        return msgspec.json.decode(answer.raw, type=shape)


def _quoted(text: str) -> str:
    return quote(text, safe="")


def _replay(name: str, verb: str) -> str:
    return f"/v1/replays/{_quoted(name)}:{verb}"
