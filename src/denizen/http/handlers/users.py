"""Users: create, get, change, suspend, reactivate, delete, history, list."""

from typing import Any

from msgspec.structs import replace

from denizen.api.shapes import EventPage, UserPage, Why
from denizen.http.cursors import cursor_after, parse_cursor
from denizen.http.etags import etag, is_known
from denizen.http.handlers.directory import is_search, positions_of, search_users
from denizen.http.refusals import InvalidParameter
from denizen.http.replies import Reply, json_reply, not_modified
from denizen.http.requests import Request, as_document, json_object
from denizen.http.services import Services
from denizen.http.views import event_document, user_document
from denizen.http.writes import write, written_reply
from denizen.limits import page_events_max, page_users_default, page_users_max
from denizen.service import StoredUser
from denizen.users.commands import Registration, RegistrationRequest
from denizen.users.faults import checked
from denizen.users.text import check_characters
from denizen.users.validate import patch_from, request_from

_VERSION_MAX = 2**31 - 1


async def create_user(services: Services, request: Request) -> Reply:
    """POST /v1/users"""
    body = await request.body()
    registration = await hashed(services, checked(request_from, json_object(body)))
    written = await write(services, request, body, lambda context: services.users.register(registration, context))
    return written_reply(written, 201)


async def hashed(services: Services, asked: RegistrationRequest) -> Registration:
    """The registration, with the hash of the password that came with it."""
    if asked.password is None:
        return asked.registration
    return replace(asked.registration, password_hash=await services.passwords.hash(asked.password))


async def get_user(services: Services, request: Request) -> Reply:
    """GET /v1/users/{id}"""
    user_id = request.user_id()
    if not request.query:
        return user_reply(request, await services.users.get(user_id))
    if "version" in request.query and "as_of" in request.query:
        raise InvalidParameter("as_of", "exclusive", "`version` and `as_of` cannot both be given")
    if request.query.get("as_of", "").isdigit() or "version" in request.query:
        name = "version" if "version" in request.query else "as_of"
        version = request.integer(name, 0, 1, _VERSION_MAX)
        return user_reply(request, await services.users.get_as_of(user_id, version=version))
    return user_reply(request, await services.users.get_as_of(user_id, time=request.time("as_of")))


def user_reply(request: Request, stored: StoredUser, location: str | None = None) -> Reply:
    """The user, or 304 if the client has this version."""
    if is_known(request.headers.get("if-none-match"), stored.version):
        return not_modified(stored.version)
    headers = [("etag", etag(stored.version))]
    if location is not None:
        headers.append(("content-location", location))
    return json_reply(user_document(stored), 200, headers)


async def change_user(services: Services, request: Request) -> Reply:
    """PATCH /v1/users/{id}"""
    user_id, version = request.user_id(), request.expected_version()
    body = await request.body()
    patch = checked(patch_from, json_object(body))
    written = await write(
        services,
        request,
        body,
        lambda context: services.users.change(user_id, patch, if_version=version, context=context),
    )
    return written_reply(written)


async def delete_user(services: Services, request: Request) -> Reply:
    """DELETE /v1/users/{id}"""
    return await _with_reason(services, request, services.users.delete)


async def suspend_user(services: Services, request: Request) -> Reply:
    """POST /v1/users/{id}:suspend"""
    return await _with_reason(services, request, services.users.suspend)


async def reactivate_user(services: Services, request: Request) -> Reply:
    """POST /v1/users/{id}:reactivate"""
    return await _with_reason(services, request, services.users.reactivate)


async def _with_reason(services: Services, request: Request, command: Any) -> Reply:
    user_id, version = request.user_id(), request.expected_version()
    body = await request.optional_body()
    reason = as_document(body, Why).reason
    if reason is not None:
        check_characters("reason", reason)
    written = await write(
        services, request, body, lambda context: command(user_id, reason, if_version=version, context=context)
    )
    return written_reply(written)


async def get_history(services: Services, request: Request) -> Reply:
    """GET /v1/users/{id}/events"""
    user_id = request.user_id()
    after = request.integer("after_version", 0, 0, _VERSION_MAX)
    limit = request.integer("limit", page_users_default, 1, page_events_max)
    events = await services.users.history(user_id, after_version=after, limit=limit + 1)
    items = [event_document(event) for event in events[:limit]]
    return json_reply(EventPage(items, items[-1].version if len(events) > limit else None))


async def list_users(services: Services, request: Request) -> Reply:
    """GET /v1/users"""
    if is_search(request.query):
        return await search_users(services, request)
    positions_of(request)  # the list is always current, but an impossible position is refused all the same
    limit = request.integer("limit", page_users_default, 1, page_users_max)
    after = parse_cursor(request.query["cursor"]) if "cursor" in request.query else None
    users = await services.users.list_users(after=after, limit=limit + 1)
    items = [user_document(user) for user in users[:limit]]
    return json_reply(UserPage(items, cursor_after(items[-1].id) if len(users) > limit else None))
