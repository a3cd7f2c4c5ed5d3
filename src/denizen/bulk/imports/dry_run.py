"""--dry-run: everything is read, validated and looked up, nothing is written.

Duplicates within the file are found over all workers in bounded memory: each accepted row leaves the 128-bit hashes of
its login names in one of 256 scratch files, chosen by the hash; at the end they are sorted, one file at a time.
"""

import os
from collections.abc import Iterator
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from struct import Struct
from typing import IO, Final

import xxhash

from denizen.bulk.imports.fates import IMPORTED
from denizen.bulk.imports.people import Person
from denizen.bulk.imports.rounds import Round
from denizen.bulk.imports.steps import APPEND, RESERVE
from denizen.bulk.imports.transactions import Transactions
from denizen.bulk.shards import Shards

_PARTS: Final = 256
_record: Final = Struct(">16sQ")


class DryRun:
    """One worker's part, in place of `Rounds`: looks people up, and notes their names in its own scratch files."""

    idle = True  # a round is through at once
    unsettled_s = 0.0

    def __init__(self, shards: Shards, scratch: Path) -> None:
        self._transactions = Transactions(shards)
        self._directory = scratch / f"worker-{os.getpid()}"
        self._files: list[IO[bytes]] = []

    async def push(self, made: Round | None) -> Round | None:
        """Give each a fate as an import would; people without conflict are imported, so to say."""
        if made is None:
            return None
        await self._transactions.look((RESERVE, made.names))
        await self._transactions.look((APPEND, made.people))
        elsewhere: dict[Person, list[tuple[int, bytes]]] = {}
        for name in made.names:
            elsewhere.setdefault(name.person, []).append((name.kind, name.value))
        for person in made.people:
            if person.fate is None:
                self._note(person.line, [*person.home, *elsewhere.get(person, ())])
                person.fate = IMPORTED
        return made

    def close(self) -> None:
        """Write out what was noted."""
        for file in self._files:
            file.close()

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
