"""The three steps of the login-name protocol (see service/login_names.py) for many users at once.

    Reserve: names elsewhere, with their events → Append: users with their own names → Confirm: names elsewhere

Each step is any number of transactions on any shard; a user's step begins when the one before it is durable everywhere.
"""

from collections.abc import Iterator, Sequence
from typing import Final
from uuid import UUID

import asyncpg

from denizen.bulk.imports import rows
from denizen.bulk.imports.fates import BUSY, CANCELLED, IMPORTED, IMPORTED_BEFORE, OURS, Imported, Taken
from denizen.bulk.imports.people import Name, Person
from denizen.bulk.imports.transactions import StaleError

Copied = tuple[str, list[bytes]]  # a table and rows for it
_LOOK_NAMES: Final = """
    select r.ordinal::integer, l.user_id, coalesce(s.state, 'held') as state, s.reservation, v.version,
           exists (select from denizen.events e where e.stream = r.stream and e.command_id = r.command_id) as used
    from unnest($1::smallint[], $2::smallint[], $3::text[], $4::uuid[], $5::uuid[]) with ordinality
         as r (bucket, kind, value, stream, command_id, ordinal)
    left join denizen.login_names l on l.bucket = r.bucket and l.kind = r.kind and l.value = r.value
    left join denizen.login_names_unsettled s on s.bucket = l.bucket and s.kind = l.kind and s.value = l.value
    left join lateral (
        select e.version from denizen.events e where e.stream = r.stream order by e.version desc limit 1
    ) v on true
    where l.user_id is not null or v.version is not null
"""
_LOOK_USERS: Final = """
    select r.ordinal::integer from unnest($1::uuid[]) with ordinality as r (id, ordinal)
    where exists (select from denizen.events e where e.stream = r.id and e.version = 1)
"""
_GIVEN_UP: Final = "select command_id from denizen.cancelled_commands where bucket between $1 and $2"
# Arrays of rows come as joined texts: the driver takes far longer to encode an array than the server to split a text.
_CONFIRM: Final = """
    delete from denizen.login_names_unsettled s
    using unnest(string_to_array($1, ' ')::smallint[], string_to_array($2, ' ')::smallint[],
                 string_to_array($3, E'\\x01'), string_to_array($4, ' ')::uuid[])
          as r (bucket, kind, value, reservation)
    where s.bucket = r.bucket and s.kind = r.kind and s.value = r.value
      and s.state = 'reserved' and s.reservation = r.reservation
"""


class Reserve:
    """Names elsewhere become reserved; each has a sweeper behind it from then on."""

    def events(self, items: Sequence[Name]) -> list[bytes]:
        return [name.reserving for name in items]

    def copies(self, items: Sequence[Name], moment: int) -> Iterator[Copied]:
        yield "login_names", [rows.name_row(name.person.id, name.bucket, name.kind, name.value) for name in items]
        yield (
            "login_names_unsettled",
            [rows.reserved_row(moment, name.person.command, name.bucket, name.kind, name.value) for name in items],
        )

    async def change(self, connection: asyncpg.Connection, items: Sequence[Name]) -> None:
        """Nothing else."""

    def done(self, items: Sequence[Name]) -> None:
        for name in items:
            name.reserved = True
            name.reserving = b""  # written; memory is for those that are not

    async def look(self, connection: asyncpg.Connection, items: Sequence[Name]) -> list[Name]:
        found = await connection.fetch(
            _LOOK_NAMES,
            [name.bucket for name in items],
            [name.kind for name in items],
            [name.value.decode() for name in items],
            [UUID(bytes=name.stream) for name in items],
            [UUID(bytes=name.reserving_command()) for name in items],
        )
        decided = set()
        for ordinal, user_id, state, reservation, version, used in found:
            name = items[ordinal - 1]
            if user_id is None:
                # A reservation that was given back is never made again: its release would be taken for a repetition.
                name.event_after(version)
                if used:
                    name.person.fate = CANCELLED
                continue
            decided.add(ordinal - 1)
            if user_id.bytes == name.person.id and state == "reserved" and reservation.bytes == name.person.command:
                name.event_after(version - 1)
                name.reserved = True
            elif user_id.bytes != name.person.id:
                name.person.fate = Taken(name.kind, user_id) if state == "held" else BUSY
            elif state != "held":
                name.person.fate = OURS
        return [name for index, name in enumerate(items) if index not in decided and name.person.fate is None]


class Append:
    """Users come into being, with the names in their own bucket."""

    def events(self, items: Sequence[Person]) -> list[bytes]:
        return [event for person in items for event in person.events]

    def copies(self, items: Sequence[Person], moment: int) -> Iterator[Copied]:
        head = rows.user_head(moment)
        yield "users", [head + person.user for person in items]
        yield (
            "login_names",
            [rows.name_row(person.id, person.bucket, kind, value) for person in items for kind, value in person.home],
        )

    async def change(self, connection: asyncpg.Connection, items: Sequence[Person]) -> None:
        """Under the locks: no command that was given up is done any more."""
        given_up = {
            command.bytes for (command,) in await connection.fetch(_GIVEN_UP, items[0].bucket, items[-1].bucket)
        }
        if given_up:
            stopped = [person for person in items if person.command in given_up]
            for person in stopped:
                person.fate = CANCELLED
            if stopped:
                raise StaleError

    def done(self, items: Sequence[Person]) -> None:
        for person in items:
            person.fate = IMPORTED
            person.events = ()
            person.user = b""

    async def look(self, connection: asyncpg.Connection, items: Sequence[Person]) -> list[Person]:
        there = await connection.fetch(_LOOK_USERS, [UUID(bytes=person.id) for person in items])
        for (ordinal,) in there:
            items[ordinal - 1].fate = IMPORTED_BEFORE
        names = [(person, kind, value) for person in items if person.fate is None for kind, value in person.home]
        found = await connection.fetch(
            _LOOK_NAMES,
            [person.bucket for person, _, _ in names],
            [kind for _, kind, _ in names],
            [value.decode() for _, _, value in names],
            [None] * len(names),
            [None] * len(names),
        )
        for ordinal, user_id, state, _, _, _ in found:
            person, kind, _ = names[ordinal - 1]
            if user_id is not None and user_id.bytes != person.id:
                person.fate = Taken(kind, user_id) if state == "held" else BUSY
        return [person for person in items if person.fate is None]


class Confirm:
    """Reserved names become held, for the users' streams have them."""

    def events(self, items: Sequence[Name]) -> list[bytes]:
        return [name.confirming() for name in items]

    def copies(self, items: Sequence[Name], moment: int) -> Iterator[Copied]:
        """No rows of other tables."""
        return iter(())

    async def change(self, connection: asyncpg.Connection, items: Sequence[Name]) -> None:
        """They are not unsettled any more; the sweeper may have been quicker with some."""
        done = await connection.execute(
            _CONFIRM,
            " ".join([str(name.bucket) for name in items]),
            " ".join([str(name.kind) for name in items]),
            b"\1".join([name.value for name in items]).decode(),
            " ".join([name.person.command.hex() for name in items]),
        )
        if done != f"DELETE {len(items)}":
            raise StaleError

    def done(self, items: Sequence[Name]) -> None:
        """Nobody needs to know."""

    async def look(self, connection: asyncpg.Connection, items: Sequence[Name]) -> list[Name]:
        found = await connection.fetch(
            _LOOK_NAMES,
            [name.bucket for name in items],
            [name.kind for name in items],
            [name.value.decode() for name in items],
            [None] * len(items),
            [None] * len(items),
        )
        still = []
        for ordinal, user_id, _, reservation, _, _ in found:
            name = items[ordinal - 1]
            if user_id is not None and reservation is not None and reservation.bytes == name.person.command:
                still.append(name)
        return still


RESERVE: Final = Reserve()
APPEND: Final = Append()
CONFIRM: Final = Confirm()


def is_imported(person: Person) -> bool:
    """Whether its user is durable, so that its names are to be confirmed."""
    return isinstance(person.fate, Imported)
