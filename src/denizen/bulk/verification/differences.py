"""What verify can find: each difference says what is wrong, where, and what was expected."""

from typing import Any, Final
from uuid import UUID

from msgspec import Struct

KINDS: Final = {
    "bucket_missing": "the map gives a bucket to a shard that does not have it open at that epoch",
    "bucket_head": "a bucket's head is not the sequence of its last event",
    "bucket_digest": "a bucket's digest is not that of its events",
    "position_hole": "the positions of a bucket have a hole or a duplicate",
    "version_hole": "the versions of a stream have a hole",
    "stream_misplaced": "an event lies in another bucket than its stream",
    "event_unreadable": "an event cannot be decoded",
    "user_missing": "a stream has no row in users",
    "user_extra": "a row in users has no events",
    "user_differs": "a row in users is not the fold of its events",
    "name_missing": "a user's login name has no row",
    "name_extra": "a login name has a row that nothing explains",
    "name_differs": "a login name's row is not what the events say",
    "name_stuck": "a change of a login name is unsettled for too long: is a gateway running?",
    "unsettled_differs": "a change of a login name is listed as unsettled, and there is no such name",
    "idempotency_dangling": "an idempotency record points to no event",
}


class Difference(Struct, frozen=True, omit_defaults=True):
    """One thing that is not as it must be. `kind` is one of `KINDS`.

    `field` ("email" …) is given where the user and the name are on different shards: that can be mended.
    """

    kind: str
    bucket: int
    detail: str
    user_id: UUID | None = None
    login_name: str | None = None
    shard: str | None = None
    field: str | None = None


def shown(value: Any) -> str:
    """A value in a detail, bounded."""
    text = repr(value)
    return text if len(text) <= 200 else text[:200] + "…"
