"""The map from buckets to shards, and its local source."""

import asyncio
import os
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from denizen.errors import BadDeployment
from denizen.sharding.bucket_map import BucketMap, LocalMapSource, counts, initial_map, read_map, write_map
from denizen.sharding.ids import BUCKETS, Bucket, Epoch, ShardId

SHARDS = [ShardId("s1"), ShardId("s2"), ShardId("s3")]


@given(st.integers(1, 200))
def test_the_first_map_is_as_even_as_can_be_and_leaves_no_bucket_out(shards: int) -> None:
    found = initial_map([ShardId(f"s{number}") for number in range(shards)])
    sizes = counts(found).values()
    assert sum(sizes) == BUCKETS
    assert max(sizes) - min(sizes) <= 1
    assert set(found.epochs) == {1}


def test_the_map_tells_the_shard_of_each_bucket_and_the_buckets_of_each_shard() -> None:
    found = initial_map(SHARDS)
    for shard in SHARDS:
        assert all(found.shard_of(bucket) == shard for bucket in found.buckets_of(shard))
    assert sorted(b for shard in SHARDS for b in found.buckets_of(shard)) == list(range(BUCKETS))
    assert found.epoch_of(Bucket(0)) == 1


@pytest.mark.parametrize("shards", [[], [ShardId(f"s{number}") for number in range(BUCKETS + 1)]])
def test_a_deployment_has_at_least_one_shard_and_no_more_than_buckets(shards: list[ShardId]) -> None:
    with pytest.raises(ValueError, match="shards"):
        initial_map(shards)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("version", 0),
        ("owners", (0,) * (BUCKETS - 1)),
        ("owners", (3,) * BUCKETS),
        ("owners", (-1,) * BUCKETS),
        ("epochs", (0,) * BUCKETS),
        ("epochs", (1,)),
        ("shards", ()),
        ("shards", ("s1", "s1", "s3")),
    ],
)
def test_a_map_that_cannot_be_is_refused_wherever_it_comes_from(tmp_path: Path, field: str, value: object) -> None:
    damaged = msgspec.to_builtins(initial_map(SHARDS)) | {field: value}
    with pytest.raises(ValueError, match=r"map|owner|epoch"):
        BucketMap(**damaged)
    path = tmp_path / "map.json"
    path.write_bytes(msgspec.json.encode(damaged))
    with pytest.raises(BadDeployment, match=r"map\.json"):
        read_map(path)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b'{"version": "one"}'])
def test_a_damaged_map_file_is_a_clear_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "map.json"
    path.write_bytes(content)
    with pytest.raises(BadDeployment, match=r"map\.json cannot be read .* restore it from a backup"):
        read_map(path)


async def test_a_missing_map_file_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(BadDeployment, match="backup"):
        await LocalMapSource(tmp_path / "map.json").current()


def test_a_map_survives_its_file(tmp_path: Path) -> None:
    path = tmp_path / "map.json"
    write_map(path, initial_map(SHARDS))
    assert read_map(path) == initial_map(SHARDS)
    assert [entry.name for entry in tmp_path.iterdir()] == ["map.json"]


def test_a_map_is_on_disk_before_it_replaces_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "map.json"
    write_map(path, initial_map(SHARDS[:1]))
    done: list[str] = []
    sync, replace = os.fsync, Path.replace

    def noted_sync(descriptor: int) -> None:
        done.append("directory" if os.path.isdir(f"/proc/self/fd/{descriptor}") else "file")
        sync(descriptor)

    def noted_replace(source: Path, target: Path) -> Path:
        assert read_map(path).shards == ("s1",)
        assert read_map(source).shards == tuple(SHARDS)
        done.append("replace")
        return replace(source, target)

    monkeypatch.setattr(os, "fsync", noted_sync)
    monkeypatch.setattr(Path, "replace", noted_replace)
    write_map(path, initial_map(SHARDS))
    assert done == ["file", "replace", "directory"]


async def test_the_source_sees_a_new_version(tmp_path: Path) -> None:
    path = tmp_path / "map.json"
    first = initial_map(SHARDS)
    write_map(path, first)
    source = LocalMapSource(path, poll_s=0.005)
    assert await source.current() == first
    waiting = asyncio.create_task(source.newer_than(1))
    await asyncio.sleep(0)
    assert not waiting.done()
    write_map(path, msgspec.structs.replace(first, version=2))
    assert (await asyncio.wait_for(waiting, 5)).version == 2
    assert (await source.current()).version == 2


async def test_the_source_never_goes_back(tmp_path: Path) -> None:
    path = tmp_path / "map.json"
    newer = msgspec.structs.replace(initial_map(SHARDS), version=5)
    write_map(path, newer)
    source = LocalMapSource(path)
    assert await source.current() == newer
    write_map(path, initial_map(SHARDS))
    assert await source.current() == newer


def test_what_changed_between_two_maps_is_told_bucket_by_bucket() -> None:
    old = initial_map(SHARDS[:3])
    owners, epochs = list(old.owners), list(old.epochs)
    for bucket in (0, 63, 64, 4095):
        owners[bucket], epochs[bucket] = (owners[bucket] + 1) % 3, 3
    epochs[100] = 2
    new = msgspec.structs.replace(old, version=2, owners=tuple(owners), epochs=tuple(epochs))
    assert new.changed_from(old) == {0, 63, 64, 100, 4095}
    assert old.changed_from(old) == set()
    renamed = msgspec.structs.replace(new, shards=tuple(reversed(new.shards)), owners=tuple(2 - o for o in new.owners))
    assert renamed.changed_from(new) == set()
    fewer = msgspec.structs.replace(old, shards=(*old.shards[:2], ShardId("s9")))
    assert fewer.changed_from(old) == set(old.buckets_of(old.shards[2]))


def test_what_shards_say_goes_over_a_map_if_it_is_newer() -> None:
    known = initial_map(SHARDS[:2])
    first, second = known.shards
    said = {Bucket(1): (second, Epoch(3)), Bucket(2): (second, Epoch(1)), Bucket(3): (ShardId("s9"), Epoch(9))}
    corrected = known.corrected(said)
    assert corrected.version == known.version
    assert (corrected.shard_of(Bucket(1)), corrected.epoch_of(Bucket(1))) == (second, 3)
    assert corrected.changed_from(known) == {1}
    assert corrected.shard_of(Bucket(2)) == first
