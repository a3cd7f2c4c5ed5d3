"""The snapshots of one node on its disk: whole or not there, checked by a digest, the last two kept.

A file is `magic | length of the description u32 | description | data | digest of 8 bytes`; its name holds index and
term. It is written under another name, synced, renamed, and its directory synced, so that a crash at any step leaves
the snapshots that were there before. A snapshot received from the leader is collected in a staging file named by its
digest, so that a transfer goes on where it stopped, even after a restart.
All methods block; the node calls them from its disk thread.
"""

import re
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

import msgspec
from xxhash import xxh3_64

from denizen.raft import limits
from denizen.raft.errors import LogDamaged, WrongDirectory
from denizen.raft.types import Snapshot
from denizen.raft.wal.files import Disk

MAGIC = b"DZNSNAP\x01"
_LENGTH_BYTES = 4
_DIGEST_BYTES = 8
_HEAD_BYTES = len(MAGIC) + _LENGTH_BYTES
_NAME = re.compile(r"[0-9]{20}-[0-9]{20}\.snap")


class SnapshotStore:
    """The snapshots in one directory, newest last."""

    def __init__(self, directory: Path, disk: Disk | None = None) -> None:
        self._directory = directory
        self._disk = disk or Disk()
        self._decode = msgspec.msgpack.Decoder(Snapshot).decode

    def open(self) -> tuple[Snapshot, bytes] | None:
        """The newest whole snapshot and its data, None if there never was one; rests of broken saves are removed.

        Raises `LogDamaged` when snapshots exist and none is whole, `WrongDirectory` for a file with a foreign name.
        """
        self._directory.mkdir(parents=True, exist_ok=True)
        for rest in self._directory.glob("*.tmp"):
            self._disk.remove(rest)
        files = self._files()
        for path in files:
            if not _NAME.fullmatch(path.name):
                raise WrongDirectory(
                    f"{path} has no name that a snapshot is given: move it out of this directory, which is the node's "
                    "alone, then start the node again"
                )
        for path in reversed(files):
            found = self._read(path)
            if found is not None:
                return found
        if files:
            raise LogDamaged(
                f"no snapshot in {self._directory} is whole. {LogDamaged.remedy}",
                path=str(self._directory),
            )
        return None

    def indexes(self) -> list[int]:
        """The indexes of the snapshots that are kept, oldest first."""
        return [int(path.stem.split("-")[0]) for path in self._files()]

    def save(self, snapshot: Snapshot, parts: Iterable[bytes]) -> Snapshot:
        """Store a snapshot of the own state machine; durable when this returns. Its size and digest are filled in."""
        digest = xxh3_64()
        size = 0

        def contents() -> Iterator[bytes]:
            nonlocal size
            description = msgspec.msgpack.encode(msgspec.structs.replace(snapshot, size=0, digest=b""))
            head = MAGIC + len(description).to_bytes(_LENGTH_BYTES, "little") + description
            for part in chain((head,), (parts,) if isinstance(parts, bytes) else parts):
                digest.update(part)
                size += len(part)
                yield part
            yield digest.digest()

        self._disk.write_file(self._path(snapshot), contents())
        self._prune()
        return msgspec.structs.replace(snapshot, size=size + _DIGEST_BYTES, digest=digest.digest())

    def read_chunk(self, snapshot: Snapshot, offset: int, bytes_max: int) -> tuple[bytes, bool] | None:
        """Bytes of the file from `offset`, and whether they are the last; None when it is gone or another."""
        try:
            with self._path(snapshot).open("rb") as file:
                file.seek(offset)
                data = file.read(bytes_max)
                size = file.seek(0, 2)
        except FileNotFoundError:
            return None
        if size != snapshot.size:
            return None
        return data, offset + len(data) >= size

    def write_chunk(self, snapshot: Snapshot, offset: int, data: bytes, last: bool) -> tuple[int, bool]:
        """Stage received bytes; return how many are staged, and whether the file is whole, right and durable."""
        path = self._staging(snapshot)
        for other in self._directory.glob("*.part"):
            if other != path:
                self._disk.remove(other)
        stored = path.stat().st_size if path.exists() else 0
        if offset != stored or stored + len(data) > snapshot.size:
            return stored, False
        fd = self._disk.open(path)
        try:
            self._disk.write(fd, data, offset)
            if last:
                self._disk.sync(fd)
        finally:
            self._disk.close(fd)
        stored += len(data)
        if not last:
            return stored, False
        if stored != snapshot.size or self._read(path) is None:
            self._disk.remove(path)
            return 0, False
        self._disk.sync_directory(self._directory)
        return stored, True

    def adopt(self, snapshot: Snapshot) -> None:
        """Make the staged file the newest snapshot, in one step; durable when this returns."""
        self._disk.rename(self._staging(snapshot), self._path(snapshot))
        self._disk.sync_directory(self._directory)
        self._prune()

    def read(self, snapshot: Snapshot) -> bytes:
        """The data of a snapshot that is there. Raises `LogDamaged` when it is not whole."""
        found = self._read(self._path(snapshot))
        if found is None:
            raise LogDamaged(f"{self._path(snapshot)} is damaged or missing", path=str(self._path(snapshot)))
        return found[1]

    def _prune(self) -> None:
        for path in self._files()[: -limits.snapshots_kept]:
            self._disk.remove(path)

    def _files(self) -> list[Path]:
        return sorted(self._directory.glob("*.snap"))

    def _path(self, snapshot: Snapshot) -> Path:
        return self._directory / f"{snapshot.index:020d}-{snapshot.term:020d}.snap"

    def _staging(self, snapshot: Snapshot) -> Path:
        return self._directory / f"{snapshot.index:020d}-{snapshot.term:020d}-{snapshot.digest.hex()}.part"

    def _read(self, path: Path) -> tuple[Snapshot, bytes] | None:
        """The description and data of a file, None when it is not whole."""
        try:
            file = self._disk.read(path)
        except FileNotFoundError:
            return None
        body, digest = memoryview(file)[:-_DIGEST_BYTES], file[-_DIGEST_BYTES:]
        if len(file) < _HEAD_BYTES + _DIGEST_BYTES or file[: len(MAGIC)] != MAGIC or xxh3_64(body).digest() != digest:
            return None
        end = _HEAD_BYTES + int.from_bytes(file[len(MAGIC) : _HEAD_BYTES], "little")
        try:
            snapshot = self._decode(file[_HEAD_BYTES:end])
        except msgspec.MsgspecError:
            return None
        return msgspec.structs.replace(snapshot, size=len(file), digest=digest), bytes(body[end:])
