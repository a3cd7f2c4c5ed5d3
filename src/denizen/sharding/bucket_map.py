"""The map: which shard owns each bucket, at which epoch.

Keys hash only to buckets; buckets to shards is this explicit table, so that moving one bucket moves nothing else. The
map is immutable; a change makes a new one with a higher version. Its source is a port (`MapSource`): a local file for
a deployment without a control plane, the Raft log with one.
"""

import asyncio
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import msgspec
from msgspec import Struct

from denizen.errors import BadDeployment
from denizen.sharding.ids import BUCKETS, Bucket, Epoch, ShardId

_PIECE = 64  # buckets compared at a time


class BucketMap(Struct, frozen=True):
    """Buckets to shards. `owners[bucket]` is an index into `shards`; `epochs[bucket]` its ownership number."""

    version: int
    shards: tuple[ShardId, ...]
    owners: tuple[int, ...]
    epochs: tuple[int, ...]

    def __post_init__(self) -> None:
        if self.version < 1 or len(set(self.shards)) != len(self.shards):
            raise ValueError("a map has a version from 1, and names each shard once")
        if len(self.owners) != BUCKETS or len(self.epochs) != BUCKETS:
            raise ValueError(f"a map has {BUCKETS} owners and epochs")
        if min(self.owners) < 0 or max(self.owners) >= len(self.shards):
            raise ValueError("a bucket's owner is not one of the map's shards")
        if min(self.epochs) < 1:
            raise ValueError("an epoch starts at 1")

    def shard_of(self, bucket: Bucket) -> ShardId:
        """The shard that owns `bucket`."""
        return self.shards[self.owners[bucket]]

    def epoch_of(self, bucket: Bucket) -> Epoch:
        """The epoch at which its shard owns `bucket`."""
        return Epoch(self.epochs[bucket])

    def buckets_of(self, shard: ShardId) -> list[Bucket]:
        """The buckets that `shard` owns, in order; none of a shard that the map does not name."""
        index = self.shards.index(shard) if shard in self.shards else -1
        return [Bucket(bucket) for bucket, owner in enumerate(self.owners) if owner == index]

    def corrected(self, places: Mapping[Bucket, tuple[ShardId, Epoch]]) -> "BucketMap":
        """This map with what shards said of buckets, where that is newer. The version stays: a newer map wins."""
        owners, epochs, index = list(self.owners), list(self.epochs), {s: i for i, s in enumerate(self.shards)}
        for bucket, (shard, epoch) in places.items():
            if shard in index and epoch > epochs[bucket]:
                owners[bucket], epochs[bucket] = index[shard], epoch
        return BucketMap(self.version, self.shards, tuple(owners), tuple(epochs))

    def changed_from(self, other: "BucketMap") -> set[Bucket]:
        """The buckets that are elsewhere, or at another epoch, in this map than in the other one."""
        theirs = [self.shards.index(shard) if shard in self.shards else -1 for shard in other.shards]
        was = other.owners if self.shards == other.shards else tuple(theirs[owner] for owner in other.owners)
        changed: set[Bucket] = set()
        for start in range(0, BUCKETS, _PIECE):  # most pieces are the same, which is quickly seen
            piece = slice(start, start + _PIECE)
            if self.epochs[piece] != other.epochs[piece] or self.owners[piece] != was[piece]:
                changed.update(
                    Bucket(bucket)
                    for bucket in range(start, min(start + _PIECE, BUCKETS))
                    if (self.epochs[bucket], self.owners[bucket]) != (other.epochs[bucket], was[bucket])
                )
        return changed


def initial_map(shards: Sequence[ShardId]) -> BucketMap:
    """The first map of a deployment: as even as 4,096 buckets allow, each at epoch 1."""
    if not 1 <= len(shards) <= BUCKETS:
        raise ValueError(f"a deployment has 1 to {BUCKETS} shards")
    owners = tuple(bucket * len(shards) // BUCKETS for bucket in range(BUCKETS))
    return BucketMap(1, tuple(shards), owners, (1,) * BUCKETS)


class MapSource(Protocol):
    """Where routers get the map.

    Guarantees: versions never go back; a map returned once stays valid as history. Not guaranteed: that the map is the
    newest one anywhere. The shards themselves refuse a writer with an old map, so a stale map costs a retry, never
    a wrong write.
    """

    async def current(self) -> BucketMap:
        """The newest map that this source knows."""
        ...

    async def newer_than(self, version: int) -> BucketMap:
        """Wait until there is a map with a higher version, and return it."""
        ...


class LocalMapSource:
    """The map in one JSON file, written by a rename, watched by its modification time."""

    def __init__(self, path: Path, poll_s: float = 0.2) -> None:
        self._path = path
        self._poll_s = poll_s
        self._stamp = (0, 0)
        self._map: BucketMap | None = None

    async def current(self) -> BucketMap:
        """The map in the file, read again only if the file changed; `BadDeployment` if it cannot be read."""
        stamp = _stamp(self._path)
        if self._map is None or stamp != self._stamp:
            found = read_map(self._path)
            if self._map is None or found.version > self._map.version:
                self._map = found
            self._stamp = stamp
        return self._map

    async def newer_than(self, version: int) -> BucketMap:
        """Poll the file until its map has a higher version."""
        while (found := await self.current()).version <= version:  # noqa: ASYNC110 - a file rings no bell
            await asyncio.sleep(self._poll_s)
        return found


def _stamp(path: Path) -> tuple[int, int]:
    try:
        stat = path.stat()
    except OSError as error:
        raise _unreadable(path, error) from error
    return stat.st_mtime_ns, stat.st_ino


def read_map(path: Path) -> BucketMap:
    """The map in the file at `path`; `BadDeployment` if it is missing or damaged."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=BucketMap)
    except (OSError, msgspec.DecodeError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> BadDeployment:
    return BadDeployment(f"the bucket map {path} cannot be read ({error}); restore it from a backup")


def write_map(path: Path, bucket_map: BucketMap) -> None:
    """Replace the file at `path` by this map, durably: a reader sees the old map or the new one, whole."""
    temporary = path.with_name(path.name + ".new")
    with temporary.open("wb") as file:
        file.write(msgspec.json.encode(bucket_map))
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def counts(bucket_map: BucketMap) -> Mapping[ShardId, int]:
    """How many buckets each shard owns."""
    return {shard: len(bucket_map.buckets_of(shard)) for shard in bucket_map.shards}
