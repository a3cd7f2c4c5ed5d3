"""Batches: up to a thousand users created, or looked up, in one request; each succeeds or fails by itself.

Items of a batch with `Idempotency-Key: k` are stored under `k:0`, `k:1` … by their index, each with a fingerprint of
its own, so a repeated batch is answered item by item from what became of the first.
"""

import asyncio
from typing import Any, Final

from msgspec import Struct

from denizen.api.shapes import UserIds
from denizen.errors import DenizenError, Invalid
from denizen.http.handlers.users import hashed
from denizen.http.idempotency import fingerprint
from denizen.http.problems import as_error, problem_document
from denizen.http.replies import Reply, json_reply
from denizen.http.requests import Request, as_document, json_object
from denizen.http.services import Services
from denizen.http.views import user_document, written_user
from denizen.http.writes import may_have_happened
from denizen.limits import batch_passwords_max, batch_users_max
from denizen.service import Context, Written
from denizen.users.commands import Registration
from denizen.users.faults import checked
from denizen.users.rejections import Rejected
from denizen.users.validate import request_from

_PAUSE_EVERY: Final = 50  # items between two chances for other requests
_PATH: Final = "/v1/users:batch"

Item = dict[str, Any]


class _Batch(Struct):
    """The request's shape, its users still raw: each is validated, and may fail, by itself."""

    users: list[Any]


async def create_users(services: Services, request: Request) -> Reply:
    """POST /v1/users:batch"""
    users = _users(await request.body())
    _charge(services, request, len(users))
    contexts = _contexts(request, users)
    results: list[Item | None] = [None] * len(users)
    accepted: list[tuple[int, Registration, bool]] = []
    for index, user in enumerate(users):
        if index % _PAUSE_EVERY == _PAUSE_EVERY - 1:
            await asyncio.sleep(0)
        try:
            registration = await hashed(services, checked(request_from, json_object(user)))
            accepted.append((index, registration, _claim(services, contexts[index], user)))
        except (DenizenError, Rejected) as error:
            results[index] = _failure(error)
    outcomes = await services.users.register_many(
        [registration for _, registration, _ in accepted], [contexts[index] for index, _, _ in accepted]
    )
    for (index, _, is_new), outcome in zip(accepted, outcomes, strict=True):
        results[index] = _creation(outcome)
        if is_new and isinstance(outcome, Exception) and not may_have_happened(outcome):
            services.recent_keys.release(contexts[index].idempotency_key or "")
    return json_reply({"results": results})


def _users(body: Any) -> list[Any]:
    if isinstance(body, dict) and (unknown := next((name for name in body if name != "users"), None)) is not None:
        detail = f"`{unknown[:100]}`: there is no such field"
        raise Invalid(detail, errors=[{"field": unknown[:100], "code": "unknown_field", "detail": detail}])
    users = as_document(body, _Batch).users
    if not 1 <= len(users) <= batch_users_max:
        raise Invalid(f"`users` must hold 1 to {batch_users_max} users", field="users", rule="length")
    if sum(isinstance(user, dict) and user.get("password") is not None for user in users) > batch_passwords_max:
        detail = f"a batch may hold at most {batch_passwords_max} plain passwords; import hashes instead"
        raise Invalid(detail, field="users", rule="passwords")
    return users


def _charge(services: Services, request: Request, items: int) -> None:
    if request.key is not None and request.key.rate_per_s is not None:
        services.limiter.bucket(request.key.id, request.key.rate_per_s).charge(items - 1)


def _contexts(request: Request, users: list[Any]) -> list[Context]:
    """A context for each item: all the same, unless there is an idempotency key."""
    plain = Context(request.actor, request.correlation_id)
    key = request.idempotency_key()
    if key is None or request.key is None:
        return [plain] * len(users)
    scoped = f"{request.key.id}:{key}"
    return [
        Context(plain.actor, plain.correlation_id, f"{scoped}:{index}", fingerprint("POST", _PATH, user))
        for index, user in enumerate(users)
    ]


def _claim(services: Services, context: Context, user: Any) -> bool:
    if context.idempotency_key is None:
        return False
    return services.recent_keys.claim(context.idempotency_key, "POST", _PATH, user)


def _creation(outcome: Written | DenizenError | Rejected) -> Item:
    if isinstance(outcome, Exception):
        return _failure(outcome)
    result: Item = {"status": 201, "user": written_user(outcome)}
    if outcome.replayed:
        result["replayed"] = True
    return result


def _failure(error: Exception) -> Item:
    known = as_error(error)
    return {"status": known.status, "problem": problem_document(known)}


async def get_users(services: Services, request: Request) -> Reply:
    """POST /v1/users:batch-get"""
    ids = (await request.document(UserIds)).ids
    _charge(services, request, len(ids))
    found = await services.users.get_many(ids)
    return json_reply({"results": [_lookup(item) for item in found]})


def _lookup(item: Any) -> Item:
    return _failure(item) if isinstance(item, Exception) else {"status": 200, "user": user_document(item)}
