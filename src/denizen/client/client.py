"""The operations of the API as methods."""

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, TypeVar
from urllib.parse import quote
from uuid import UUID, uuid4

import msgspec

from denizen.api.erasures import CertificateDocument, ErasureDocument, ErasurePage
from denizen.api.shapes import (
    CreatedKey,
    CreationResult,
    CreationResults,
    EventDocument,
    EventPage,
    KeyDocument,
    KeyList,
    LookupResult,
    LookupResults,
    PasswordVerdict,
    ServiceVersion,
    UserDocument,
    UserPage,
    WrittenUser,
)
from denizen.client.errors import Invalid
from denizen.client.operations import Operations
from denizen.client.queries import Queries
from denizen.client.replays import Replays
from denizen.client.retrying import RetryPolicy
from denizen.client.transport import Answer, Call, Transport
from denizen.limits import page_users_default

T = TypeVar("T")
UserRef = UUID | str

_DEFAULT_RETRIES: Final = RetryPolicy()


class Client(Queries):
    """A client of one deployment. Use it as `async with Client(url, key) as client`, or `close` it.

    An impossible URL or key is `denizen.errors.BadConfiguration`. Methods raise `denizen.client.Problem`s. Writes take
    an `idempotency_key`, drawn if none is given, and are repeated under it when they may be; `if_version` makes a
    command depend on the user's version. `timeout_s` is for one attempt. `operations` and `replays` are for operators.
    """

    def __init__(
        self, url: str, key: str | None = None, *, retries: RetryPolicy = _DEFAULT_RETRIES, timeout_s: float = 30.0
    ) -> None:
        self._transport = Transport(url, key, retries, timeout_s)
        self.operations = Operations(self._transport)
        self.replays = Replays(self._transport)

    async def __aenter__(self) -> "Client":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._transport.close()

    # Users

    async def create_user(self, *, idempotency_key: str | None = None, **fields: Any) -> WrittenUser:
        """Create a user with these fields: `email`, `username`, `name={"given": …}`, `attributes={…}`, `password` …"""
        return await self._write("POST", "/v1/users", fields, idempotency_key)

    async def get_user(
        self, user_id: UserRef, *, version: int | None = None, as_of: datetime | None = None
    ) -> UserDocument:
        """The user as it is, or as it was at a version or a time (with its offset)."""
        query = {}
        if version is not None:
            query["version"] = str(version)
        if as_of is not None:
            query["as_of"] = as_of.isoformat()
        return _decoded(await self._transport.send(Call("GET", _user(user_id), query=query)), UserDocument)

    async def find_user(self, kind: str, value: str) -> UserDocument:
        """The user with a login name; `kind` is "email", "username" or "phone"."""
        return _decoded(await self._transport.send(Call("GET", _login_name(kind, value))), UserDocument)

    async def change_user(
        self,
        user_id: UserRef,
        changes: Mapping[str, Any],
        *,
        if_version: int | None = None,
        idempotency_key: str | None = None,
    ) -> WrittenUser:
        """Apply a JSON merge patch: None clears a field."""
        return await self._write("PATCH", _user(user_id), dict(changes), idempotency_key, if_version)

    async def suspend_user(
        self,
        user_id: UserRef,
        reason: str | None = None,
        *,
        if_version: int | None = None,
        idempotency_key: str | None = None,
    ) -> WrittenUser:
        """Suspend an active user."""
        path = f"{_user(user_id)}:suspend"
        return await self._write("POST", path, _why(reason), idempotency_key, if_version)

    async def reactivate_user(
        self,
        user_id: UserRef,
        reason: str | None = None,
        *,
        if_version: int | None = None,
        idempotency_key: str | None = None,
    ) -> WrittenUser:
        """End a suspension."""
        path = f"{_user(user_id)}:reactivate"
        return await self._write("POST", path, _why(reason), idempotency_key, if_version)

    async def delete_user(
        self,
        user_id: UserRef,
        reason: str | None = None,
        *,
        if_version: int | None = None,
        idempotency_key: str | None = None,
    ) -> WrittenUser:
        """Delete a user; its login names are free again, its history remains."""
        return await self._write("DELETE", _user(user_id), _why(reason), idempotency_key, if_version)

    async def erase_user(self, user_id: UserRef) -> CertificateDocument:
        """Destroy a user's personal data for good, in its history too; again: the certificate of then."""
        call = Call("POST", f"{_user(user_id)}:erase")
        return _decoded(await self._transport.send(call), CertificateDocument)

    async def get_erasure(self, user_id: UserRef) -> CertificateDocument:
        """The certificate of an erasure: what was destroyed, and when."""
        path = f"/v1/erasures/{_quoted(str(user_id))}"
        return _decoded(await self._transport.send(Call("GET", path)), CertificateDocument)

    async def erasures(self, *, page: int = page_users_default) -> AsyncIterator[ErasureDocument]:
        """The users that were erased, the newest first; `page` a request."""
        query = {"limit": str(page)}
        while True:
            found = _decoded(await self._transport.send(Call("GET", "/v1/erasures", query=query)), ErasurePage)
            for erasure in found.items:
                yield erasure
            if found.next_cursor is None:
                return
            query["cursor"] = found.next_cursor

    async def users(self, *, page: int = page_users_default) -> AsyncIterator[UserDocument]:
        """Every user, in the stable order of the deployment; `page` users a request."""
        query = {"limit": str(page)}
        while True:
            found = _decoded(await self._transport.send(Call("GET", "/v1/users", query=query)), UserPage)
            for user in found.items:
                yield user
            if found.next_cursor is None:
                return
            query["cursor"] = found.next_cursor

    async def history(
        self, user_id: UserRef, *, after_version: int = 0, page: int = page_users_default
    ) -> AsyncIterator[EventDocument]:
        """What happened to the user, oldest first; `page` events a request."""
        after: int | None = after_version
        while after is not None:
            query = {"limit": str(page), "after_version": str(after)}
            found = _decoded(
                await self._transport.send(Call("GET", f"{_user(user_id)}/events", query=query)), EventPage
            )
            for event in found.items:
                yield event
            after = found.next_after_version

    # Batches

    async def create_users(
        self, users: Sequence[Mapping[str, Any]], *, idempotency_key: str | None = None
    ) -> list[CreationResult]:
        """Create up to 1,000 users; a result for each, in order."""
        call = Call("POST", "/v1/users:batch", {"users": list(users)}, key=_key(idempotency_key))
        return _decoded(await self._transport.send(call), CreationResults).results

    async def get_users(self, user_ids: Sequence[UserRef]) -> list[LookupResult]:
        """Get up to 1,000 users; a result for each, in order."""
        call = Call("POST", "/v1/users:batch-get", {"ids": [str(user_id) for user_id in user_ids]})
        return _decoded(await self._transport.send(call), LookupResults).results

    # Passwords

    async def set_password(
        self,
        user_id: UserRef,
        password: str | None,
        *,
        if_version: int | None = None,
        idempotency_key: str | None = None,
    ) -> WrittenUser:
        """Set the user's password; None removes it."""
        path = f"{_user(user_id)}/password"
        return await self._write("PUT", path, {"password": password}, idempotency_key, if_version)

    async def verify_password(self, user_id: UserRef, password: str) -> PasswordVerdict:
        """Whether this is the user's password."""
        call = Call("POST", f"{_user(user_id)}/password/verify", {"password": password})
        return _decoded(await self._transport.send(call), PasswordVerdict)

    async def verify_password_of(self, kind: str, value: str, password: str) -> PasswordVerdict:
        """Whether this is the password of the user with a login name; the verdict has its id."""
        call = Call("POST", f"{_login_name(kind, value)}/password/verify", {"password": password})
        return _decoded(await self._transport.send(call), PasswordVerdict)

    # API keys and the service

    async def create_key(self, name: str, scopes: Sequence[str], rate_per_s: int | None = None) -> CreatedKey:
        """Create an API key; `secret` is shown this once. Not repeated when the connection breaks off."""
        body = {"name": name, "scopes": list(scopes), "rate_per_s": rate_per_s}
        return _decoded(await self._transport.send(Call("POST", "/v1/keys", body, repeatable=False)), CreatedKey)

    async def list_keys(self) -> list[KeyDocument]:
        """The API keys, revoked ones too."""
        return _decoded(await self._transport.send(Call("GET", "/v1/keys")), KeyList).items

    async def revoke_key(self, key_id: str) -> None:
        """Revoke an API key for good."""
        await self._transport.send(Call("DELETE", f"/v1/keys/{_quoted(key_id)}"))

    async def service_version(self) -> ServiceVersion:
        """What the gateway runs."""
        return _decoded(await self._transport.send(Call("GET", "/v1/version")), ServiceVersion)

    async def _write(
        self, method: str, path: str, body: Any, idempotency_key: str | None, if_version: int | None = None
    ) -> WrittenUser:
        headers = {} if if_version is None else {"If-Match": f'"{if_version}"'}
        call = Call(method, path, body, headers=headers, key=_key(idempotency_key))
        return _decoded(await self._transport.send(call), WrittenUser)


def _decoded(answer: Answer, shape: type[T]) -> T:
    return msgspec.json.decode(answer.raw, type=shape)


def _key(given: str | None) -> str:
    """The idempotency key that was given, even one that the gateway refuses; else a new one."""
    return str(uuid4()) if given is None else given


def _quoted(text: str) -> str:
    return quote(text, safe="@")


def _user(user_id: UserRef) -> str:
    return f"/v1/users/{_quoted(str(user_id))}"


def _login_name(kind: str, value: str) -> str:
    if not value:
        detail = f"`{kind}` must not be empty"
        raise Invalid(detail, errors=[{"field": kind, "code": f"{kind}_invalid", "detail": detail}])
    return f"/v1/login-names/{_quoted(kind)}/{_quoted(value)}"


def _why(reason: str | None) -> dict[str, str] | None:
    return None if reason is None else {"reason": reason}
