"""How a write is carried out: its context, the memory of recent idempotency keys around it, its reply."""

from collections.abc import Awaitable, Callable
from typing import Any

from denizen.errors import OutcomeUnknown
from denizen.http.problems import as_error
from denizen.http.replies import Reply, json_reply
from denizen.http.requests import Request
from denizen.http.services import Services
from denizen.http.views import written_headers, written_user
from denizen.service import Context, Written


async def write(
    services: Services, request: Request, body: Any, command: Callable[[Context], Awaitable[Written]]
) -> Written:
    """Run `command` under the request's context; the idempotency key stays claimed unless nothing was changed."""
    context = request.context(body)
    key = context.idempotency_key
    if key is None:
        return await command(context)
    is_new = services.recent_keys.claim(key, request.method, request.path, body)
    try:
        return await command(context)
    except Exception as error:
        if is_new and not may_have_happened(error):
            services.recent_keys.release(key)
        raise


def may_have_happened(error: BaseException) -> bool:
    """Whether a write that failed with this error may have been stored all the same."""
    known = as_error(error)
    return isinstance(known, OutcomeUnknown) or known.code == "internal"


def written_reply(written: Written, status: int = 200) -> Reply:
    """The reply to a write: the user, its position, and the header fields."""
    headers = written_headers(written)
    if status == 201:
        headers.append(("location", f"/v1/users/{written.user.id}"))
    return json_reply(written_user(written), status, headers)
