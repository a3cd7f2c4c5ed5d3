"""Sets of buckets as people write them: `5`, `10-20`, `3,7,100-199`. Ends are included."""

import re
from collections.abc import Iterable, Iterator

from denizen.errors import Invalid
from denizen.sharding.ids import BUCKETS, Bucket

_PART = re.compile(r"(\d{1,4})(?:-(\d{1,4}))?")


def parse_buckets(text: str) -> tuple[Bucket, ...]:
    """The buckets that the text names, each once, in order; `Invalid` says what cannot be one."""
    found: set[int] = set()
    for part in text.split(","):
        match = _PART.fullmatch(part.strip())
        if match is None:
            raise Invalid(f"{part.strip()!r} names no buckets; write 5 or 10-20, with commas between", field="buckets")
        first, last = int(match[1]), int(match[2] or match[1])
        if not first <= last < BUCKETS:
            raise Invalid(
                f"{part.strip()}: buckets are numbered 0 to {BUCKETS - 1}, the smaller first", field="buckets"
            )
        found.update(range(first, last + 1))
    return tuple(Bucket(bucket) for bucket in sorted(found))


def write_buckets(buckets: Iterable[int]) -> str:
    """The shortest text that names these buckets."""
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs(sorted(set(buckets))))


def runs(ordered: Iterable[int]) -> Iterator[tuple[int, int]]:
    """First and last of each run of consecutive numbers."""
    first = last = -2
    for number in ordered:
        if number != last + 1:
            if first >= 0:
                yield first, last
            first = number
        last = number
    if first >= 0:
        yield first, last
