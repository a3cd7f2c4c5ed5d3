"""Is the target what the source is? Counts and digests of whole rows, from both servers, at one head.

The digest of the events is computed from the rows that are on the target, and compared with the one that the source
kept while it wrote them. Users and login names, which the target folded for itself, are compared with the source's
rows. Equal means that each of these is equal; what differs is looked for row by row.
"""

from collections.abc import Mapping
from typing import Any, Final

import asyncpg

from denizen import limits

DIGEST: Final = "select (denizen.move_digest($1)).*"
EVENTS: Final = "select rows, digest from denizen.move_events($1, $2)"
# Key and hash of every row, by table; the keys as text.
_ROWS: Final = {
    "events": """
        select sequence::text, denizen.event_hash(e) from denizen.events e where bucket = $1 and sequence > $2
        order by sequence
    """,
    "users": """
        select id::text, hash_record_extended(u, 0) from denizen.users u where bucket = $1 and $2::bigint >= 0
    """,
    "login names": """
        select kind || ':' || value, hash_record_extended(l, 0) from denizen.login_names l
        where bucket = $1 and $2::bigint >= 0
    """,
    "unsettled login names": """
        select kind || ':' || value, hash_record_extended(l, 0) from denizen.login_names_unsettled l
        where bucket = $1 and $2::bigint >= 0
    """,
    "idempotency records": """
        select encode(key, 'hex'), hash_record_extended(i, 0) from denizen.idempotency i
        where bucket = $1 and $2::bigint >= 0
    """,
    "cancelled commands": """
        select command_id::text, hash_record_extended(c, 0) from denizen.cancelled_commands c
        where bucket = $1 and $2::bigint >= 0
    """,
}
_FIELDS: Final = {
    "users": ("users", "users_digest"),
    "login names": ("names", "names_digest"),
    "unsettled login names": ("unsettled", "unsettled_digest"),
    "idempotency records": ("keys", "keys_digest"),
    "cancelled commands": ("cancelled", "cancelled_digest"),
}


def unequal(source: Mapping[str, Any], target: Mapping[str, Any], events: tuple[int, int], after: int) -> list[str]:
    """The tables that differ, by the digests of both servers; `events`: number and digest of the target's own rows.

    `after`: events up to there were not counted.
    """
    rows, digest = events
    differ = []
    if (
        source["head"] != target["head"]
        or source["digest"] != target["digest"]
        or rows != source["head"] - after
        or (after == 0 and digest != source["digest"])
    ):
        differ.append("events")
    for table, fields in _FIELDS.items():
        if any(source[field] != target[field] for field in fields):
            differ.append(table)
    return differ


async def differences(
    source: asyncpg.Connection, target: asyncpg.Connection, bucket: int, tables: list[str], after: int = 0
) -> list[str]:
    """What differs in these tables, row by row, in words; a bounded number."""
    found: list[str] = []
    for table in tables:
        ours = dict(await source.fetch(_ROWS[table], bucket, after))
        theirs = dict(await target.fetch(_ROWS[table], bucket, after))
        missing, extra = ours.keys() - theirs.keys(), theirs.keys() - ours.keys()
        other = [key for key in ours.keys() & theirs.keys() if ours[key] != theirs[key]]
        found += [f"{table}: {key} is missing on the target" for key in sorted(missing)]
        found += [f"{table}: {key} is on the target alone" for key in sorted(extra)]
        found += [f"{table}: {key} differs" for key in sorted(other)]
        if not (missing or extra or other):
            found.append(f"{table}: the rows are the same, the bucket's head or digest is not")
    return found[: limits.move_differences_max]
