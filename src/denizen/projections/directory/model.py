"""The directory's tables, and the fold that fills them.

`directory` has one row for each user that is not deleted: the user's state as a document (without the password's
hash), and beside it what is filtered and sorted by. `terms` is all that a user is found by, a line each: "n:" and a
word of a name, "a:" and a top-level attribute with a short value, "c:" and the country, "s:" and a status that is not
active. A GIN index over them finds the few users whom several filters fit together, in no order. `directory_terms` has
the words of names once more, as a plain table, which gives its answers in order, page by page, however many there are.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple
from uuid import UUID

import msgspec
from msgspec.structs import replace

from denizen.events.records import RecordedEvent, StoredUser, decode_state, encode_state
from denizen.projections.directory.words import all_words
from denizen.projections.projection import Derived, Output, Projection
from denizen.projections.tables import Kind, Table
from denizen.sharding.ids import UserId
from denizen.users.evolve import evolve
from denizen.users.login_names import normalise_email, normalise_username
from denizen.users.rejections import Rejected
from denizen.users.state import Status, User

NAME: Final = "n:"
ATTRIBUTE: Final = "a:"
COUNTRY: Final = "c:"
STATUS: Final = "s:"
SEPARATOR: Final = "\n"
ATTRIBUTE_CHARS_MAX: Final = 100  # of a name and its value: longer ones are not searched
ATTRIBUTES_MAX: Final = 32
SET: Final = "set"  # stands in the document for the hash of a password


class DirectoryRow(NamedTuple):
    """A user. `name`: its searched words, those of the displayed name first."""

    user_id: UUID
    created_at: datetime
    updated_at: datetime
    version: int
    status: int
    country: str | None
    email: str | None
    username: str | None
    name: str
    terms: str
    document: bytes


class TermRow(NamedTuple):
    """A user is found by this word of a name."""

    user_id: UUID
    term: str


def fold(user_id: UUID, row: DirectoryRow | None, events: Sequence[RecordedEvent], _: Output) -> DirectoryRow | None:
    """The state of a user after these events, as a row; none once it is deleted."""
    user: User | None = None if row is None else decode_state(row.document)
    if row is None and events[0].version > 1:
        return None  # deleted before
    for recorded in events:
        user = evolve(user, recorded.event)  # type: ignore[arg-type]  # never of a login name's stream
    if user is None or user.status.gone:
        return None
    last = events[-1]
    created_at = events[0].recorded_at if row is None else row.created_at
    return row_of(user_id, user, created_at, last.recorded_at, last.version)


def row_of(user_id: UUID, user: User, created_at: datetime, updated_at: datetime, version: int) -> DirectoryRow:
    """The row of a user."""
    if user.password is not None and user.password != SET:
        user = replace(user, password=SET)
    words = _words(user)
    return DirectoryRow(
        user_id,
        created_at,
        updated_at,
        version,
        int(user.status),
        user.country,
        None if user.email is None else _key(user.email, normalise_email),
        None if user.username is None else _key(user.username, normalise_username),
        " ".join(words),
        SEPARATOR.join(_terms(user, words)),
        encode_state(user),
    )


def stored_user(row: Sequence[Any]) -> StoredUser:
    """The user of a row: (user_id, version, created_at, updated_at, document)."""
    identifier, version, created_at, updated_at, document = row
    return StoredUser(UserId(identifier), version, created_at, updated_at, decode_state(document))


def words_of_row(row: DirectoryRow) -> list[tuple[UUID, str]]:
    """The words of the user's name, each a row of `TermRow`."""
    user_id = row.user_id
    return [(user_id, NAME + word) for word in row.name.split()]


def _terms(user: User, words: Sequence[str]) -> list[str]:
    """What the user is found by."""
    terms = [NAME + word for word in words]
    if user.attributes:
        found = [attribute_term(name, value) for name, value in user.attributes.items()]
        terms += [term for term in found if term is not None][:ATTRIBUTES_MAX]
    if user.country is not None:
        terms.append(COUNTRY + user.country)
    if user.status is not Status.ACTIVE:
        terms.append(STATUS + str(user.status.value))
    return terms


def attribute_term(name: str, value: Any) -> str | None:
    """The term of an attribute; None for what is not searched: lists, objects, texts that are long or of many lines."""
    if type(value) is str:
        text = value
    elif value is True or value is False:
        text = "true" if value else "false"
    elif isinstance(value, (int, float)):
        text = msgspec.json.encode(value).decode()
    else:
        return None
    term = f"{ATTRIBUTE}{name}={text}"
    return term if len(term) <= ATTRIBUTE_CHARS_MAX and SEPARATOR not in term else None


def _words(user: User) -> tuple[str, ...]:
    name = user.name
    if name is None:
        return all_words((user.display_name,))
    return all_words((user.display_name, name.given, name.family))


def _key(text: str, normalise: Any) -> str:
    try:
        return str(normalise(text))
    except Rejected:  # an old one, by rules of then
        return text.casefold()


STATE: Final = Table(
    "directory",
    DirectoryRow,
    indexes=(
        "(created_at, user_id)",
        "(updated_at, user_id)",
        "(name, user_id)",
        "(email, user_id)",
        "(username, user_id)",
        # New entries wait in a list that every search reads, so it is short.
        "using gin (array_to_tsvector(string_to_array(terms, E'\\n'))) with (gin_pending_list_limit = 128)",
    ),
)
TERMS: Final = Table("directory_terms", TermRow, kind=Kind.DERIVED, key=("term", "user_id"))
DIRECTORY: Final = Projection("directory", fold, state=STATE, derived=[Derived(TERMS, words_of_row)])
