"""Is the target what the source is? Counts and digests of whole rows, from both servers, at one head.

The digest of the events is computed from the rows that are on the target, and compared with the one that the source
kept while it wrote them. Users and login names, which the target folded for itself, are compared with the source's
rows. Equal means that each of these is equal; what differs is looked for row by row.

A large bucket is compared as a whole before the fence, and under it only what was touched since then.
"""

from typing import Final
from uuid import UUID

import asyncpg
from msgspec import Struct, field

from denizen import limits
from denizen.moving.folding import NameKey

DIGEST: Final = "select * from denizen.move_digest($1)"
DIGEST_OF: Final = "select * from denizen.move_digest_of($1, $2, $3, $4)"
EVENTS: Final = "select rows, digest from denizen.move_events($1, $2)"
# Key and hash of every row, by table; the keys as text.
_ROWS: Final = {
    "events": """
        select sequence::text, denizen.event_hash(e) from denizen.events e where bucket = $1
    """,
    "users": """
        select id::text, hash_record_extended(u, 0) from denizen.users u where bucket = $1
    """,
    "login names": """
        select kind || ':' || value, hash_record_extended(l, 0) from denizen.login_names l where bucket = $1
    """,
    "unsettled login names": """
        select kind || ':' || value, hash_record_extended(l, 0) from denizen.login_names_unsettled l where bucket = $1
    """,
    "idempotency records": """
        select encode(key, 'hex'), hash_record_extended(i, 0) from denizen.idempotency i where bucket = $1
    """,
    "cancelled commands": """
        select command_id::text, hash_record_extended(c, 0) from denizen.cancelled_commands c where bucket = $1
    """,
    "secrets": """
        select sequence::text, hash_record_extended(row(sequence, secret), 0) from denizen.events
        where bucket = $1 and secret is not null
    """,
}
_FIELDS: Final = {
    "users": ("users", "users_digest"),
    "login names": ("names", "names_digest"),
    "unsettled login names": ("unsettled", "unsettled_digest"),
    "idempotency records": ("keys", "keys_digest"),
    "cancelled commands": ("cancelled", "cancelled_digest"),
    "secrets": ("secrets", "secrets_digest"),
}
_CARRIED: Final = ("idempotency records", "cancelled commands", "secrets")


class Touched(Struct):
    """What changed since the target was found equal at `checked`; to be compared alone, if that was done."""

    checked: int = 0
    users: set[UUID] = field(default_factory=set)
    names: set[NameKey] = field(default_factory=set)


async def digest(connection: asyncpg.Connection, bucket: int, touched: Touched | None) -> asyncpg.Record:
    """What is to be compared on one server: of the whole bucket, or of what was touched."""
    if touched is None:
        return await connection.fetchrow(DIGEST, bucket)
    kinds, values = [kind for kind, _ in touched.names], [value for _, value in touched.names]
    return await connection.fetchrow(DIGEST_OF, bucket, list(touched.users), kinds, values)


async def unequal(
    source: asyncpg.Record, target: asyncpg.Connection, bucket: int, touched: Touched | None, *, carried: bool = True
) -> list[str]:
    """The tables of the target that differ from the source's `digest`; with or without what is carried as it is."""
    there = await digest(target, bucket, touched)
    after = 0 if touched is None else touched.checked
    rows, own = await target.fetchrow(EVENTS, bucket, after)
    differ = []
    heads = (source["head"], source["digest"]) != (there["head"], there["digest"])
    if heads or rows != source["head"] - after or (after == 0 and own != source["digest"]):
        differ.append("events")
    for table, fields in _FIELDS.items():
        if (carried or table not in _CARRIED) and any(source[name] != there[name] for name in fields):
            differ.append(table)
    if "events" in differ and "secrets" in differ:
        differ.remove("secrets")  # they are of events
    return differ


async def differences(
    source: asyncpg.Connection, target: asyncpg.Connection, bucket: int, tables: list[str]
) -> list[str]:
    """What differs in these tables, row by row, in words; a bounded number."""
    found: list[str] = []
    for table in tables:
        ours = dict(await source.fetch(_ROWS[table], bucket))
        theirs = dict(await target.fetch(_ROWS[table], bucket))
        missing, extra = ours.keys() - theirs.keys(), theirs.keys() - ours.keys()
        other = [key for key in ours.keys() & theirs.keys() if ours[key] != theirs[key]]
        found += [f"{table}: {key} is missing on the target" for key in sorted(missing)]
        found += [f"{table}: {key} is on the target alone" for key in sorted(extra)]
        found += [f"{table}: {key} differs" for key in sorted(other)]
        if not (missing or extra or other):
            found.append(f"{table}: the rows are the same, the bucket's head or digest is not")
    return found[: limits.move_differences_max]
