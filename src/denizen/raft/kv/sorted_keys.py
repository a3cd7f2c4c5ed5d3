"""An ordered set of keys, kept in chunks so that adding one moves a few hundred neighbours and not a million.

`bisect` finds the chunk by its first key and the place inside it. A chunk splits in two when it has grown to
`CHUNK_KEYS_MAX`, and goes away when it is empty.
"""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Iterator

from denizen.raft.kv.model import NO_END, TO_THE_LAST_KEY

CHUNK_KEYS_MAX = 1_024


class SortedKeys:
    """Distinct keys in byte order."""

    __slots__ = ("_chunks", "_firsts")

    def __init__(self, keys: Iterable[bytes] = ()) -> None:
        ordered = sorted(keys)
        half = CHUNK_KEYS_MAX // 2
        self._chunks = [ordered[at : at + half] for at in range(0, len(ordered), half)]
        self._firsts = [chunk[0] for chunk in self._chunks]

    def add(self, key: bytes) -> None:
        """Add a key that is not in the set."""
        if not self._chunks:
            self._chunks.append([key])
            self._firsts.append(key)
            return
        at = max(0, bisect_right(self._firsts, key) - 1)
        chunk = self._chunks[at]
        insort(chunk, key)
        self._firsts[at] = chunk[0]
        if len(chunk) >= CHUNK_KEYS_MAX:
            self._split(at)

    def remove(self, key: bytes) -> None:
        """Remove a key that is in the set."""
        at = bisect_right(self._firsts, key) - 1
        chunk = self._chunks[at]
        del chunk[bisect_left(chunk, key)]
        if chunk:
            self._firsts[at] = chunk[0]
        else:
            del self._chunks[at]
            del self._firsts[at]

    def between(self, key: bytes, end: bytes) -> Iterator[bytes]:
        """Yield the keys of `[key, end)` in order; the set must not change meanwhile."""
        for chunk, start, stop in self._slices(key, end):
            yield from chunk[start:stop] if stop - start < len(chunk) else chunk

    def count(self, key: bytes, end: bytes) -> int:
        return sum(stop - start for _, start, stop in self._slices(key, end))

    def capture(self) -> list[list[bytes]]:
        """Return all keys in order, in lists that do not change any more."""
        return [chunk.copy() for chunk in self._chunks]

    def _slices(self, key: bytes, end: bytes) -> Iterator[tuple[list[bytes], int, int]]:
        at = max(0, bisect_right(self._firsts, key) - 1)
        for chunk in self._chunks[at:]:
            start = bisect_left(chunk, key)
            stop = len(chunk) if end == TO_THE_LAST_KEY else bisect_left(chunk, end)
            if stop > start:
                yield chunk, start, stop
            if stop < len(chunk):
                return

    def _split(self, at: int) -> None:
        chunk = self._chunks[at]
        half = len(chunk) // 2
        self._chunks[at : at + 1] = [chunk[:half], chunk[half:]]
        self._firsts[at : at + 1] = [chunk[0], chunk[half]]


def in_range(candidate: bytes, key: bytes, end: bytes) -> bool:
    """Tell whether a key lies in `[key, end)` (see `model.py` for the two special ends)."""
    if end == NO_END:
        return candidate == key
    return candidate >= key and (end == TO_THE_LAST_KEY or candidate < end)
