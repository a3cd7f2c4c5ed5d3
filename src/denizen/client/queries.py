"""What the read models answer, and the feed of changes, as methods of the client."""

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, TypeVar
from urllib.parse import quote
from uuid import UUID

import msgspec

from denizen.api.read_side import ChangePage, ExplanationDocument
from denizen.api.shapes import ActivityDocument, ActivityPage, StatisticsDocument, UserDocument, UserPage
from denizen.client.transport import Call, Transport, encode
from denizen.limits import page_users_default

T = TypeVar("T")
_WAIT_S: Final = 20


class Queries:
    """The reading half of `Client`."""

    _transport: Transport

    async def search_page(self, *, position: str | None = None, **filters: Any) -> UserPage:
        """One page of a search, with `as_of` and `stale`; see `search` for the filters."""
        return await self._get("/v1/users", UserPage, _search(filters, position))

    async def search(
        self, *, position: str | None = None, page: int = page_users_default, **filters: Any
    ) -> AsyncIterator[UserDocument]:
        """Users found by `name`, `email`, `username` (beginnings), `status`, `country`, `attributes={…}`,
        `created_from`, `created_before`, `updated_from`, `updated_before`; in the order of `sort`, such as "-created".

        `position`, of a write of yours, has the first page wait a moment until the directory has it.
        """  # fmt: skip
        query = _search(filters, position) | {"limit": str(page)}
        while True:
            found = await self._get("/v1/users", UserPage, query)
            for user in found.items:
                yield user
            if found.next_cursor is None:
                return
            query["cursor"] = found.next_cursor

    async def activity(
        self,
        *,
        user: UUID | str | None = None,
        actor: str | None = None,
        since: datetime | None = None,
        position: str | None = None,
        page: int = page_users_default,
    ) -> AsyncIterator[ActivityDocument]:
        """Who did what to which user, the newest first."""
        wanted = {"user": user, "actor": actor, "since": since, "position": position, "limit": page}
        query = _texts(wanted)
        while True:
            found = await self._get("/v1/activity", ActivityPage, query)
            for each in found.items:
                yield each
            if found.next_cursor is None:
                return
            query["cursor"] = found.next_cursor

    async def statistics(
        self,
        *,
        per: str = "day",
        since: datetime | None = None,
        before: datetime | None = None,
        position: str | None = None,
    ) -> StatisticsDocument:
        """How many users there are, and what happened in each "hour" or "day"."""
        query = _texts({"per": per, "since": since, "before": before, "position": position})
        return await self._get("/v1/statistics", StatisticsDocument, query)

    async def explain(self, user_id: UUID | str, projection: str = "directory") -> ExplanationDocument:
        """The events that made a read model's rows of a user, and whether the rows agree with them."""
        path = f"/v1/users/{quote(str(user_id), safe='')}/explain"
        return await self._get(path, ExplanationDocument, {"projection": projection})

    async def changes(
        self,
        cursor: str | None = None,
        *,
        start: str = "now",
        types: Sequence[str] = (),
        buckets: tuple[int, int] | None = None,
        limit: int = 1_000,
        wait_s: int = _WAIT_S,
    ) -> AsyncIterator[ChangePage]:
        """Every change of every user from a cursor on, else from `start` ("now" or "beginning"); never ends.

        Pages come as there are changes, and an empty one after `wait_s` without any. Keep `next_cursor` in the
        transaction of what you made of the page: then each change counts once, whatever happens on either side.
        """
        query = {"limit": str(limit), "wait_s": str(wait_s)}
        if types:
            query["types"] = ",".join(types)
        if cursor is not None:
            query["cursor"] = cursor
        else:
            query |= {"from": start} | ({"buckets": f"{buckets[0]}-{buckets[1]}"} if buckets else {})
        while True:
            page = await self._get("/v1/changes", ChangePage, query)
            yield page
            query.pop("from", None)
            query["cursor"] = page.next_cursor

    async def _get(self, path: str, shape: type[T], query: Mapping[str, str]) -> T:
        answer = await self._transport.send(Call("GET", path, query=query))
        return msgspec.json.decode(answer.raw, type=shape)


def _search(filters: Mapping[str, Any], position: str | None) -> dict[str, str]:
    return _texts({**filters, "position": position})


def _texts(values: Mapping[str, Any]) -> dict[str, str]:
    """A query of what is given: times with their offset, objects as JSON."""
    return {name: _text(value) for name, value in values.items() if value is not None}


def _text(value: Any) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    return encode(value).decode() if isinstance(value, Mapping) else str(value)
