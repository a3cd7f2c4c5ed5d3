"""Users by login name, and passwords: set, and verify by id or by login name."""

from collections.abc import Awaitable
from uuid import UUID

import structlog

from denizen.api.shapes import NewPassword, PasswordGuess, PasswordVerdict
from denizen.errors import DenizenError, UserDeleted, UserErased, UserNotFound
from denizen.http.handlers.users import user_reply
from denizen.http.refusals import RouteNotFound
from denizen.http.replies import Reply, json_reply
from denizen.http.requests import Request, as_document
from denizen.http.services import Services
from denizen.http.writes import write, written_reply
from denizen.service import Context, StoredUser
from denizen.users.login_names import LoginName, LoginNameKind, login_name
from denizen.users.passwords import check_password
from denizen.users.rejections import Rejected
from denizen.users.state import Status

_log = structlog.get_logger()


async def find_user(services: Services, request: Request) -> Reply:
    """GET /v1/login-names/{kind}/{value}"""
    stored = await services.users.find(_login_name(services, request))
    return user_reply(request, stored, location=f"/v1/users/{stored.id}")


def _login_name(services: Services, request: Request) -> LoginName:
    """The login name in the path; what cannot be one names no user. `RouteNotFound` if its kind is not used here."""
    try:
        kind = LoginNameKind.from_word(request.params["kind"])
    except Rejected as error:
        raise RouteNotFound(error.detail) from error
    if kind not in services.users.kinds:
        used = ", ".join(f"`{each.word}`" for each in sorted(services.users.kinds))
        raise RouteNotFound(f"`{kind.word}` is no login name in this deployment: {used} are")
    try:
        return login_name(kind, request.params["value"])
    except Rejected as error:
        raise UserNotFound("there is no user with this login name") from error


async def set_password(services: Services, request: Request) -> Reply:
    """PUT /v1/users/{id}/password"""
    user_id, version = request.user_id(), request.expected_version()
    body = await request.body()
    password = as_document(body, NewPassword).password
    if password is not None:
        check_password(password)
    password_hash = None if password is None else await services.passwords.hash(password)
    written = await write(
        services,
        request,
        body,
        lambda context: services.users.set_password(user_id, password_hash, if_version=version, context=context),
    )
    return written_reply(written)


async def verify_by_id(services: Services, request: Request) -> Reply:
    """POST /v1/users/{id}/password/verify"""
    guess = await request.document(PasswordGuess)
    return await _verify(services, request, services.users.get(_any_id(request)), guess.password)


async def verify_by_login_name(services: Services, request: Request) -> Reply:
    """POST /v1/login-names/{kind}/{value}/password/verify"""
    guess = await request.document(PasswordGuess)
    try:
        found = services.users.find(_login_name(services, request))
    except UserNotFound:
        found = _nobody()
    return await _verify(services, request, found, guess.password)


def _any_id(request: Request) -> UUID:
    try:
        return request.user_id()
    except UserNotFound:
        return UUID(int=0x8 << 76 | 0b10 << 62)  # well-formed, but of nobody: the answer is like any other


async def _nobody() -> StoredUser:
    raise UserNotFound("there is no user with this login name")


async def _verify(services: Services, request: Request, search: Awaitable[StoredUser], password: str) -> Reply:
    """Compare, in the same time whether or not there is such a user; store a better hash after a right password."""
    stored: StoredUser | None
    try:
        stored = await search
    except (UserNotFound, UserDeleted, UserErased):
        stored = None
    verdict = await services.passwords.verify(stored.user.password if stored else None, password)
    if stored is None or not verdict.ok:
        return json_reply(PasswordVerdict(valid=False))
    if stored.user.status is Status.SUSPENDED:
        return json_reply(PasswordVerdict(valid=False, user_id=stored.id, reason="suspended"))
    if verdict.upgrade:
        await _upgrade(services, request, stored, password)
    return json_reply(PasswordVerdict(valid=True, user_id=stored.id))


async def _upgrade(services: Services, request: Request, stored: StoredUser, password: str) -> None:
    """Keep a hash with the present parameters. The password was right, so whatever fails here waits for next time."""
    try:
        check_password(password)
        password_hash = await services.passwords.hash(password)
        context = Context(request.actor, request.correlation_id)
        await services.users.set_password(stored.id, password_hash, if_version=stored.version, context=context)
    except (DenizenError, Rejected) as error:
        _log.info("password_upgrade_put_off", code=error.code, request_id=request.request_id)
