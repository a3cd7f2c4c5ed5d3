"""Searching users: the query's parameters to a search of the directory, its page to the document."""

from collections.abc import Mapping
from typing import Final
from unicodedata import normalize

import msgspec

from denizen.api.shapes import UserPage
from denizen.errors import Invalid, Unavailable
from denizen.http.json_bodies import decode_json
from denizen.http.refusals import InvalidParameter, MalformedJson
from denizen.http.replies import Reply, json_reply
from denizen.http.requests import Request
from denizen.http.search_cursors import cursor_at, place_of
from denizen.http.services import Services
from denizen.http.views import user_document
from denizen.limits import page_users_default, page_users_max, position_wait_s, positions_max, search_text_chars_max
from denizen.projections.directory.model import DIRECTORY, attribute_term
from denizen.projections.directory.search import search
from denizen.projections.directory.wanted import SORTS, Place, Search
from denizen.projections.reading import ReadModels
from denizen.sharding.ids import Position
from denizen.users.places import COUNTRIES
from denizen.users.state import Status

FILTERS: Final = ("name", "email", "username", "status", "country", "attributes", "sort")
TIMES: Final = ("created_from", "created_before", "updated_from", "updated_before")
STATUSES: Final = {status.word: status for status in (Status.ACTIVE, Status.SUSPENDED)}


def is_search(query: Mapping[str, str]) -> bool:
    """Whether the query asks for more than the list of all users."""
    return any(name in query for name in (*FILTERS, *TIMES))


async def search_users(services: Services, request: Request) -> Reply:
    """GET /v1/users with a filter or an order."""
    reads = require_reads(services)
    wanted = _search_of(request)
    stale = not await reached(reads, DIRECTORY.name, request)
    async with reads.reader() as connection:
        freshness = await reads.freshness(connection, DIRECTORY.name)  # before: what is found is at least so fresh
        found = await search(connection, wanted, reads.long_search())
    items = [user_document(user) for user in found.users]
    cursor = None if found.next is None else cursor_at((found.next.key,), found.next.user_id, request)
    return json_reply(UserPage(items, cursor, freshness.as_of, stale))


def require_reads(services: Services) -> ReadModels:
    """The read models; `Unavailable` where the gateway has none."""
    if services.reads is None:
        raise Unavailable("this deployment runs without read models")
    return services.reads


async def reached(reads: ReadModels, projection: str, request: Request) -> bool:
    """Wait a moment for the positions that the request names; whether the model has them. True if it names none."""
    positions = positions_of(request)
    return not positions or await reads.wait_for(projection, positions, position_wait_s)


def positions_of(request: Request) -> list[Position]:
    """The positions that the request names, if any."""
    text = request.query.get("position")
    if text is None:
        return []
    tokens = text.split(",")
    if len(tokens) > positions_max:
        raise InvalidParameter("position", "position", f"`position` may name {positions_max} positions at most")
    try:
        return [Position.parse(token) for token in tokens]
    except Invalid as error:
        raise InvalidParameter("position", "position", error.detail) from None


def _search_of(request: Request) -> Search:
    query = request.query
    sort = query.get("sort")
    descending = sort is not None and sort.startswith("-")
    if sort is not None and sort.removeprefix("-") not in SORTS:
        raise InvalidParameter(
            "sort", "sort", f"`sort` must be one of {', '.join(SORTS)}, with `-` before it to turn it"
        )
    status = query.get("status")
    if status is not None and status not in STATUSES:
        raise InvalidParameter("status", "status", f"`status` must be one of {', '.join(STATUSES)}")
    return Search(
        limit=request.integer("limit", page_users_default, 1, page_users_max),
        name=_text(query, "name"),
        email=_prefix(query, "email"),
        username=_prefix(query, "username"),
        status=None if status is None else STATUSES[status].value,
        country=_country(query),
        attributes=_attributes(query),
        sort=None if sort is None else sort.removeprefix("-"),
        descending=descending,
        after=_place(request),
        **{name: request.time(name) for name in TIMES if name in query},
    )


def _text(query: Mapping[str, str], name: str) -> str | None:
    text = query.get(name)
    if text is not None and not (0 < len(text) <= search_text_chars_max and "\0" not in text):
        raise InvalidParameter(
            name, "text", f"`{name}` must have 1 to {search_text_chars_max} characters, none of them NUL"
        )
    return text


def _country(query: Mapping[str, str]) -> str | None:
    """In the spelling in which users have it."""
    text = query.get("country")
    if text is not None and not (text.isascii() and text.upper() in COUNTRIES):
        raise InvalidParameter("country", "country", "`country` must be an ISO 3166-1 alpha-2 code such as DE")
    return None if text is None else text.upper()


def _prefix(query: Mapping[str, str], name: str) -> str | None:
    text = _text(query, name)
    return None if text is None else normalize("NFKC", text.strip()).casefold()


def _attributes(query: Mapping[str, str]) -> tuple[str, ...]:
    text = query.get("attributes")
    if text is None:
        return ()
    try:
        decode_json(text.encode())  # names each member once, as a body does
        wanted = msgspec.json.decode(text, type=dict[str, str | int | float | bool])
    except (MalformedJson, msgspec.DecodeError, RecursionError):
        wanted = {}
    terms = [attribute_term(name, value) for name, value in wanted.items()]
    if not terms or None in terms or len(terms) > 10 or "\0" in text or "\\u0000" in text:
        detail = (
            "`attributes` must be a JSON object of 1 to 10 short texts, numbers or booleans, each name once, "
            'such as {"plan":"gold"}'
        )
        raise InvalidParameter("attributes", "attributes", detail)
    return tuple(term for term in terms if term is not None)


def _place(request: Request) -> Place | None:
    place = place_of(request)
    if place is None:
        return None
    key, user_id = place
    if len(key) != 1 or isinstance(key[0], int):
        raise InvalidParameter("cursor", "cursor", "`cursor` is not one that this route gave")
    return Place(key[0], user_id)
