"""The feed of changes: a page at a time, waiting for it if need be, or as server-sent events without an end.

Both give the same changes and cursors; a consumer may change from one to the other at any message.
"""

import asyncio
from contextlib import AsyncExitStack
from typing import Any, Final

from msgspec import Raw

from denizen.api.read_side import ChangeBatch, ChangePage
from denizen.changes import Follower, Hub
from denizen.changes.cursors import Place, decode, encode
from denizen.errors import DenizenError, Invalid, Unauthenticated, Unavailable
from denizen.events.codec import EVENT_TYPES, LOGIN_NAME_EVENTS_FROM
from denizen.http.authorization import bearer_token
from denizen.http.problems import problem_document
from denizen.http.refusals import InvalidParameter
from denizen.http.replies import Reply, encode_json, json_reply
from denizen.http.requests import Request, single_header
from denizen.http.services import Services
from denizen.http.streaming import EVENT_STREAM, Outlet, StreamReply, until_gone
from denizen.limits import changes_heartbeat_s, changes_page_default, changes_page_max, changes_pause_s, changes_wait_s
from denizen.sharding.ids import BUCKETS

TYPES: Final = tuple(each.name for each in EVENT_TYPES if each.number < LOGIN_NAME_EVENTS_FROM)
STARTS: Final = ("now", "beginning")
_LOOK_S: Final = 1.0  # how often a stream without news looks whether its key is still good
_STREAM_HEADERS: Final = [("content-type", EVENT_STREAM), ("x-accel-buffering", "no")]


async def get_changes(services: Services, request: Request) -> Reply | StreamReply:
    """GET /v1/changes"""
    hub = services.changes
    if hub is None:
        raise Unavailable("this gateway has no feed of changes")
    limit = request.integer("limit", changes_page_default, 1, changes_page_max)
    wait_s = request.integer("wait_s", 0, 0, int(changes_wait_s))
    types = _types(request)
    async with AsyncExitStack() as stack:
        stack.enter_context(services.feeds.one_more(request.key.id if request.key is not None else ""))
        follower = await stack.enter_async_context(Follower(hub, await _start(hub, request), types))
        if request.method == "GET" and EVENT_STREAM in (request.headers.get("accept") or ""):
            held = stack.pop_all()  # until the stream is over

            async def run(outlet: Outlet) -> None:
                async with held:
                    await _stream(services, request, hub, follower, outlet)

            return StreamReply(run, _STREAM_HEADERS)
        found = await until_gone(follower.next(limit, wait_s), request.gone()) or []
        page = ChangePage(_items(found), follower.lag_events, _cursor(hub, follower), follower.more)
        return json_reply(page)


async def _stream(services: Services, request: Request, hub: Hub, follower: Follower, outlet: Outlet) -> None:
    try:
        await until_gone(_send_changes(services, request, hub, follower, outlet), request.gone())
    except DenizenError as error:
        last = encode_json(problem_document(error, request.request_id))
        await outlet.send_last(_message("end", last))


async def _send_changes(services: Services, request: Request, hub: Hub, follower: Follower, outlet: Outlet) -> None:
    """Messages until something ends it. Each has the cursor behind its changes as its id, the first one too."""
    loop = asyncio.get_running_loop()
    token = bearer_token(request.headers.get("authorization"))
    cursor = _cursor(hub, follower)
    await outlet.send(b"retry: 1000\n" + _message("open", b"{}", cursor))
    sent_at = loop.time()
    while True:
        found = await follower.next(changes_page_max, _LOOK_S)
        if services.keys.check(token) is None:
            raise Unauthenticated("this key was revoked")
        if found:
            cursor = _cursor(hub, follower)
            batch = encode_json(ChangeBatch(_items(found), follower.lag_events))
            await outlet.send(_message("changes", batch, cursor))
            sent_at = loop.time()
            await asyncio.sleep(changes_pause_s)
        elif loop.time() - sent_at >= changes_heartbeat_s:
            await outlet.send(_heartbeat(cursor, cursor := _cursor(hub, follower)))
            sent_at = loop.time()


def _heartbeat(before: str, now: str) -> bytes:
    """A comment, or the new cursor if there were only changes that are not wanted."""
    return b": heartbeat\n\n" if now == before else _message("cursor", b"{}", now)


def _message(event: str, data: bytes, cursor: str | None = None) -> bytes:
    identity = b"" if cursor is None else b"id: " + cursor.encode() + b"\n"
    return b"event: " + event.encode() + b"\n" + identity + b"data: " + data + b"\n\n"


def _items(found: list[bytes]) -> Any:
    """Changes that are JSON already, to be put into a document as they are."""
    return [Raw(each) for each in found]


def _cursor(hub: Hub, follower: Follower) -> str:
    return encode(follower.place, hub.key)


async def _start(hub: Hub, request: Request) -> Place:
    """Where the consumer begins: at its last cursor, else now or at the beginning."""
    cursor = single_header(request.headers, "last-event-id") or request.query.get("cursor")
    start = request.query.get("from")
    buckets = _buckets(request)
    if cursor is None:
        if start not in (None, *STARTS):
            raise InvalidParameter("from", "from", f"`from` must be one of {', '.join(STARTS)}")
        first, last = buckets or (0, BUCKETS - 1)
        heads = [0] * BUCKETS if start == "beginning" else await hub.read_heads()
        return Place(first, last, heads[first : last + 1])
    if start is not None and "cursor" in request.query:
        raise InvalidParameter("from", "from", "a cursor says itself where to begin: leave `from` out")
    place = _decoded(cursor, hub)
    if buckets not in (None, (place.first, place.last)):
        raise InvalidParameter("buckets", "buckets", f"the cursor is of buckets {place.first}-{place.last}")
    if any(map(int.__gt__, place.sequences, hub.taken[place.first : place.last + 1])):
        heads = await hub.read_heads()
        if any(map(int.__gt__, place.sequences, heads[place.first : place.last + 1])):
            raise InvalidParameter(
                "cursor", "ahead", "`cursor` is ahead of all that is committed: was a backup restored?"
            )
    return place


def _decoded(cursor: str, hub: Hub) -> Place:
    try:
        return decode(cursor, hub.key)
    except Invalid as error:
        raise InvalidParameter("cursor", "cursor", error.detail) from None


def _buckets(request: Request) -> tuple[int, int] | None:
    text = request.query.get("buckets")
    if text is None:
        return None
    first, _, last = text.partition("-")
    numbers = text.isascii() and len(text) <= 9 and first.isdigit() and last.isdigit()
    if numbers and int(first) <= int(last) < BUCKETS:
        return int(first), int(last)
    raise InvalidParameter("buckets", "buckets", f"`buckets` must be a range such as 0-1023, within 0-{BUCKETS - 1}")


def _types(request: Request) -> frozenset[str] | None:
    text = request.query.get("types")
    if text is None:
        return None
    wanted = frozenset(text.split(","))
    if not wanted <= set(TYPES):
        raise InvalidParameter(
            "types", "types", f"`types` must be some of {', '.join(TYPES)}, with commas between them"
        )
    return wanted
