"""--dry-run: everything is read, validated and looked up, nothing is written.

Duplicates within the file are found over all workers in bounded memory: each accepted row leaves the 128-bit hashes of
its login names in one of 256 scratch files, chosen by the hash; at the end they are sorted, one file at a time.
"""

import asyncio
import os
from collections.abc import Iterator, Sequence
from itertools import groupby
from operator import attrgetter, itemgetter
from pathlib import Path
from struct import Struct
from typing import IO, Any, Final

import xxhash

from denizen.bulk.imports.people import Name, Person
from denizen.bulk.imports.steps import Append, Reserve
from denizen.bulk.shards import Shards

_PARTS: Final = 256
_record: Final = Struct(">16sQ")


class DryRun:
    """One worker's part: looks people up, and notes their names in its own scratch files."""

    def __init__(self, shards: Shards, scratch: Path) -> None:
        self._shards = shards
        self._directory = scratch / f"worker-{os.getpid()}"
        self._files: list[IO[bytes]] = []

    async def look(self, people: Sequence[Person], names: Sequence[Name]) -> None:
        """Give each a fate as an import would; people without conflict are imported, so to say."""
        await asyncio.gather(
            *(self._look(Reserve(), shard, items) for shard, items in self._by_shard(names).items()),
        )
        await asyncio.gather(*(self._look(Append(), shard, items) for shard, items in self._by_shard(people).items()))
        elsewhere: dict[Person, list[tuple[int, bytes]]] = {}
        for name in names:
            elsewhere.setdefault(name.person, []).append((name.kind, name.value))
        for person in people:
            if person.fate is None:
                self._note(person.line, [*person.home, *elsewhere.get(person, ())])
        Append().done([person for person in people if person.fate is None])

    def close(self) -> None:
        """Write out what was noted."""
        for file in self._files:
            file.close()

    async def _look(self, step: Any, shard: Any, items: list[Any]) -> None:
        await step.look(await self._shards[shard].connection(), items)

    def _by_shard(self, items: Sequence[Any]) -> dict[Any, list[Any]]:
        groups: dict[Any, list[Any]] = {}
        for item in sorted(items, key=attrgetter("bucket")):
            groups.setdefault(self._shards.map.shard_of(item.bucket), []).append(item)
        return groups

    def _note(self, line: int, names: list[tuple[int, bytes]]) -> None:
        if not self._files:
            self._directory.mkdir(parents=True)
            self._files = [(self._directory / f"{part:03}").open("wb") for part in range(_PARTS)]
        for kind, value in names:
            digest = xxhash.xxh3_128_digest(b"%d\0%b" % (kind, value))
            self._files[digest[0] % _PARTS].write(_record.pack(digest, line))


def duplicates(scratch: Path) -> Iterator[tuple[int, int]]:
    """Lines that have a login name of an earlier line which would be imported, with that line.

    Names that occur once are dropped at once; only lines that share a name with another are kept in memory.
    """
    shared: dict[int, list[bytes]] = {}
    for part in range(_PARTS):
        content = b"".join(path.read_bytes() for path in scratch.glob(f"*/{part:03}"))
        for digest, group in groupby(sorted(_record.iter_unpack(content)), key=itemgetter(0)):
            lines = [line for _, line in group]
            if len(lines) > 1:
                for line in lines:
                    shared.setdefault(line, []).append(digest)
    taken: dict[bytes, int] = {}
    for line, digests in sorted(shared.items()):
        earlier = next((taken[digest] for digest in digests if digest in taken), None)
        if earlier is not None:
            yield line, earlier
        else:
            taken.update(dict.fromkeys(digests, line))
