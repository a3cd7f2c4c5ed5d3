"""The documents of the API: what goes over the wire, in and out. OpenAPI is made from these and the table of routes.

Documents that come in as a user (`NewUser`, `UserChanges`) are validated by `denizen.users`; their shapes here are the
published description of the same fields (a test holds the two together). The others are decoded straight into these.
"""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from msgspec import UNSET, Meta, Struct, UnsetType

from denizen.limits import (
    attributes_bytes_max,
    attributes_depth_max,
    batch_users_max,
    display_name_chars_max,
    email_chars_max,
    key_name_chars_max,
    key_rate_per_s_max,
    locale_chars_max,
    name_part_chars_max,
    password_chars_max,
    password_chars_min,
    picture_url_chars_max,
    reason_chars_max,
    username_chars_max,
)

EmailText = Annotated[str, Meta(max_length=email_chars_max, description="Unique. Compared in NFKC, without case.")]
UsernameText = Annotated[
    str, Meta(max_length=username_chars_max, description="Unique. Letters and digits of any script, `.`, `_`, `-`.")
]
PhoneText = Annotated[
    str, Meta(max_length=64, description="Unique where phones are login names. E.164, or national with `country`.")
]
NamePart = Annotated[str, Meta(max_length=name_part_chars_max)]
DisplayName = Annotated[str, Meta(max_length=display_name_chars_max)]
Locale = Annotated[str, Meta(max_length=locale_chars_max, description="BCP 47, such as `de-CH`.")]
Country = Annotated[str, Meta(description="ISO 3166-1 alpha-2, such as `CH`.")]
TimeZone = Annotated[str, Meta(description="IANA name, such as `Europe/Zurich`.")]
PictureUrl = Annotated[str, Meta(max_length=picture_url_chars_max, description="Absolute, http or https.")]
Attributes = Annotated[
    dict[str, Any],
    Meta(
        description=f"What the application keeps about the user: at most {attributes_bytes_max} bytes as compact JSON, "
        f"{attributes_depth_max} levels deep, no null members."
    ),
]
PlainPassword = Annotated[
    str,
    Meta(
        description="Kept as an argon2id hash only.",
        extra_json_schema={"minLength": password_chars_min, "maxLength": password_chars_max},  # the domain checks them
    ),
]
Scope = Literal["users:read", "users:write", "admin", "metrics:read"]
Version = Annotated[int, Meta(ge=1, description="Grows by one with each event of the user.")]
PositionToken = Annotated[str, Meta(description="The place of the write in the log: opaque.", examples=["a3f-2c"])]
LoginKind = Literal["email", "username", "phone"]


class PersonName(Struct):
    """A name in parts, each optional."""

    given: NamePart | None = None
    family: NamePart | None = None


class NewUser(Struct, forbid_unknown_fields=True):
    """A user to create. At least one login name (by default `email` or `username`) is needed."""

    email: EmailText | None = None
    username: UsernameText | None = None
    phone: PhoneText | None = None
    name: PersonName | None = None
    display_name: DisplayName | None = None
    locale: Locale | None = None
    country: Country | None = None
    time_zone: TimeZone | None = None
    picture_url: PictureUrl | None = None
    attributes: Attributes | None = None
    password: PlainPassword | None = None


class UserChanges(Struct, forbid_unknown_fields=True):
    """A JSON merge patch (RFC 7396): a member that is absent stays as it is, null clears it."""

    email: EmailText | UnsetType | None = UNSET
    username: UsernameText | UnsetType | None = UNSET
    phone: PhoneText | UnsetType | None = UNSET
    name: PersonName | UnsetType | None = UNSET
    display_name: DisplayName | UnsetType | None = UNSET
    locale: Locale | UnsetType | None = UNSET
    country: Country | UnsetType | None = UNSET
    time_zone: TimeZone | UnsetType | None = UNSET
    picture_url: PictureUrl | UnsetType | None = UNSET
    attributes: Attributes | UnsetType | None = UNSET


class Why(Struct, forbid_unknown_fields=True):
    """Why something is done to a user; it stays in the history."""

    reason: Annotated[str, Meta(min_length=1, max_length=reason_chars_max)] | None = None


class NewPassword(Struct, forbid_unknown_fields=True):
    """The password to set; null removes it."""

    password: PlainPassword | None


class PasswordGuess(Struct, forbid_unknown_fields=True):
    """The password to verify."""

    password: Annotated[str, Meta(max_length=password_chars_max)]


class PasswordVerdict(Struct, omit_defaults=True):
    """Whether the password is right and the user may log in.

    `user_id` comes with a right password. `reason` says why a right password is still not valid: the user is suspended.
    """

    valid: bool
    user_id: UUID | None = None
    reason: Literal["suspended"] | None = None


class UserDocument(Struct):
    """A user. Its `version` is also its entity tag."""

    id: UUID
    version: Version
    status: Literal["active", "suspended", "deleted"]
    email: str | None
    username: str | None
    phone: str | None
    name: PersonName | None
    display_name: str | None
    locale: str | None
    country: str | None
    time_zone: str | None
    picture_url: str | None
    attributes: dict[str, Any]
    has_password: bool
    created_at: datetime
    updated_at: datetime


class WrittenUser(UserDocument):
    """A user after a write, and the position of the write in the log."""

    position: PositionToken


class UserPage(Struct):
    """A page of users; `next_cursor` is null on the last one.

    A search is answered by the directory, which follows the writes: everything committed until `as_of` is in it.
    `stale`: the `position` asked for was not there in time. The list of all users is always current: no `as_of`.
    """

    items: list[UserDocument]
    next_cursor: str | None
    as_of: datetime | None = None
    stale: bool = False


class ActivityDocument(Struct):
    """That something happened to a user. `changes` names the fields; their values are in the user's history alone."""

    user_id: UUID
    version: Version
    type: str
    at: datetime
    actor: str
    changes: list[str]


class ActivityPage(Struct):
    """A page of activity, the newest first; `next_cursor` is null on the last one. For the rest see `UserPage`."""

    items: list[ActivityDocument]
    next_cursor: str | None
    as_of: datetime | None
    stale: bool


class PeriodDocument(Struct):
    """What happened in the hour or day (UTC) that begins at `start`. Periods in which nothing did are left out."""

    start: datetime
    sign_ups: int
    changes: int
    deletions: int
    erasures: int


class StatisticsDocument(Struct):
    """How many users there are, and how many for each value ("" for none); what happened in each period.

    For `as_of` and `stale` see `UserPage`. The plan of a user is the attribute `plan`, if it is a text.
    """

    users: int
    by_status: dict[str, int]
    by_country: dict[str, int]
    by_plan: dict[str, int]
    periods: list[PeriodDocument]
    as_of: datetime | None
    stale: bool


class EventDocument(Struct):
    """What happened to a user: the event's `data`, who did it (`actor`) and in which request (`correlation_id`).

    `data` never holds a password or its hash; `password_set` stands for it. Of a user who was erased it is
    `{"erased": true}`.
    """

    version: Version
    position: PositionToken
    type: str
    schema: int
    recorded_at: datetime
    actor: str
    command_id: UUID
    correlation_id: UUID | None
    data: dict[str, Any]


class EventPage(Struct):
    """A page of a user's history, oldest first; `next_after_version` is null on the last one."""

    items: list[EventDocument]
    next_after_version: int | None


class FieldError(Struct):
    """What is wrong with one field, parameter or header."""

    field: str | None
    code: str
    detail: str


class Problem(Struct, omit_defaults=True):
    """An error (RFC 9457). `code` is stable; `errors` names every field at fault, twenty at most.

    Some codes have more members: `kind` (login_name_taken), `expected` and `actual` (version_conflict), `byte_offset`
    (malformed_json), `retry_after_s` (rate_limited).
    """

    type: str
    title: str
    status: Annotated[int, Meta(ge=400, le=599)]
    code: str
    detail: str
    retryable: bool
    request_id: str | None = None
    errors: list[FieldError] | None = None


class NewUsers(Struct, forbid_unknown_fields=True):
    """Users to create together; each succeeds or fails by itself."""

    users: Annotated[list[NewUser], Meta(min_length=1, max_length=batch_users_max)]


class UserIds(Struct, forbid_unknown_fields=True):
    """The ids of users to get together."""

    ids: Annotated[list[UUID], Meta(min_length=1, max_length=batch_users_max)]


class CreationResult(Struct, omit_defaults=True):
    """What became of one user of a batch: `user` (201), or `problem` with its status."""

    status: int
    user: WrittenUser | None = None
    problem: Problem | None = None
    replayed: bool = False


class CreationResults(Struct):
    """One result for each user of the batch, in its order."""

    results: list[CreationResult]


class LookupResult(Struct, omit_defaults=True):
    """What was found for one id: `user` (200), or `problem` with its status."""

    status: int
    user: UserDocument | None = None
    problem: Problem | None = None


class LookupResults(Struct):
    """One result for each id, in the order asked."""

    results: list[LookupResult]


class NewKey(Struct, forbid_unknown_fields=True):
    """An API key to create; without `rate_per_s` it has no limit of its own."""

    name: Annotated[str, Meta(min_length=1, max_length=key_name_chars_max, pattern=r"^[^\x00-\x1f\x7f]+$")]
    scopes: Annotated[list[Scope], Meta(min_length=1, max_length=4)]
    rate_per_s: Annotated[int, Meta(ge=1, le=key_rate_per_s_max)] | None = None


class KeyDocument(Struct):
    """An API key, without its secret."""

    id: str
    name: str
    scopes: list[Scope]
    rate_per_s: int | None
    created_at: datetime
    revoked_at: datetime | None


class CreatedKey(Struct):
    """A new API key and its secret, which is shown this once and kept only as a hash."""

    key: KeyDocument
    secret: str


class KeyList(Struct):
    """The API keys, revoked ones too."""

    items: list[KeyDocument]


class Health(Struct):
    """Whether the process lives, or can serve."""

    status: Literal["live", "ready", "not_ready", "stopping"]


class ServiceVersion(Struct):
    """What is running."""

    name: str
    version: str
    api: str
