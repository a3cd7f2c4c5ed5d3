"""From what the service returns to the documents of the API."""

from typing import Any, cast

from msgspec import to_builtins
from msgspec.structs import astuple

from denizen.api.read_side import ChangeDocument
from denizen.api.shapes import EventDocument, KeyDocument, PersonName, Scope, UserDocument, WrittenUser
from denizen.http.etags import etag
from denizen.http.replies import Headers, encode_json
from denizen.projections.projection import is_of_user
from denizen.service import RecordedEvent, StoredUser, Written
from denizen.service.keys import KeyInfo
from denizen.users.events import DataErased


def user_document(stored: StoredUser) -> UserDocument:
    """The user as the API shows it: all but the password's hash."""
    return UserDocument(*_fields(stored))


def written_user(written: Written) -> WrittenUser:
    """The user after a write."""
    return WrittenUser(*(*_fields(written.user), written.position.token()))


def written_headers(written: Written) -> Headers:
    """The header fields of a reply to a write."""
    headers = [("etag", etag(written.user.version)), ("denizen-position", written.position.token())]
    if written.replayed:
        headers.append(("idempotency-replayed", "true"))
    return headers


def encoded_change(recorded: RecordedEvent) -> bytes | None:
    """The event as the feed of changes shows it; None for a login name's own, which is no change of a user."""
    if not is_of_user(recorded):
        return None
    shown = event_document(recorded)
    return encode_json(ChangeDocument(recorded.stream, *astuple(shown)))


def event_document(recorded: RecordedEvent) -> EventDocument:
    """The event as the API shows it: who and why, never a password's hash."""
    data: dict[str, Any] = to_builtins(recorded.event)
    if isinstance(recorded.event, DataErased):
        data = {"erased": True}
    if "password" in type(recorded.event).__struct_fields__:
        data["password_set"] = data.pop("password", None) is not None
    return EventDocument(
        recorded.version,
        recorded.position.token(),
        recorded.type,
        recorded.schema,
        recorded.recorded_at,
        recorded.actor,
        recorded.command_id,
        recorded.correlation_id,
        data,
    )


def key_document(info: KeyInfo) -> KeyDocument:
    """The API key without its secret."""
    return KeyDocument(
        info.id, info.name, cast(list[Scope], sorted(info.scopes)), info.rate_per_s, info.created_at, info.revoked_at
    )


def _fields(stored: StoredUser) -> tuple[Any, ...]:
    user = stored.user
    name = user.name
    return (
        stored.id,
        stored.version,
        user.status.word,
        user.email,
        user.username,
        user.phone,
        name and PersonName(name.given, name.family),
        user.display_name,
        user.locale,
        user.country,
        user.time_zone,
        user.picture_url,
        user.attributes,
        user.password is not None,
        stored.created_at,
        stored.updated_at,
    )
