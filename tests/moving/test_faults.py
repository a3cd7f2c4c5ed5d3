"""Servers and workers that die in the middle, disks that fill, writes that are too fast: nothing is lost or opened."""

import asyncio
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import asyncpg
import pytest

from denizen import limits
from denizen.errors import DenizenError
from denizen.moving.errors import NoRoom, Outrun
from denizen.moving.move import Copied, Move, Verdict
from denizen.moving.mover import Mover
from denizen.moving.pace import Pace
from denizen.postgres.accounts import choose_account
from denizen.processes.accounts import give
from denizen.sharding.ids import Bucket, Epoch, ShardId
from denizen.testing.consistency import assert_consistent
from denizen.testing.gateway import KINDS, SEED
from denizen.testing.postgres import reachable_directory
from denizen.testing.proxy import proxied
from denizen.users.commands import UserPatch

from .worlds import BY, S1, S2, World, nothing

BUCKET = Bucket(512)
FENCE, OPEN = Epoch(2), Epoch(3)


@pytest.fixture
def small_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies in many slices, so that a fault comes in the middle."""
    monkeypatch.setattr(limits, "move_slice_events_max", 10)
    monkeypatch.setattr(limits, "move_slice_events_min", 10)


async def insist(mover: Mover, move: Move) -> None:
    """Copy until it is done, as an executor would, whatever passes."""
    for _ in range(200):
        try:
            await mover.prepare(move)
            await mover.copy(move, nothing)
            await mover.tail(move)
        except DenizenError as error:
            passing(error)
            await asyncio.sleep(0.05)
        else:
            return
    raise AssertionError("the copy never came to an end")


def passing(error: DenizenError) -> None:
    """Raise it again unless the step is worth repeating."""
    if not error.retryable:
        raise error


@pytest.mark.usefixtures("small_slices")
@pytest.mark.parametrize("shard", [S1, S2])
async def test_a_server_that_restarts_in_the_copy_only_delays_it(world: World, mover: Mover, shard: ShardId) -> None:
    await world.register(BUCKET, 60)
    move = world.move(BUCKET)
    await mover.prepare(move)
    reached: list[int] = []

    def restart(copied: Copied) -> None:
        reached.append(copied.rows)
        if len(reached) == 2:
            world.servers[shard].server.restart()

    try:
        await mover.copy(move, restart)
    except DenizenError as error:
        passing(error)
    assert reached[1] < 60  # it was in the middle
    await insist(mover, move)
    await world.commit(mover, move)
    await mover.clean(move)
    await assert_consistent(world.gateway)


@pytest.mark.usefixtures("small_slices")
@pytest.mark.parametrize("shard", [S1, S2])
async def test_a_server_that_crashes_in_the_copy_only_delays_it(world: World, mover: Mover, shard: ShardId) -> None:
    await world.register(BUCKET, 40)
    move = world.move(BUCKET)
    await mover.prepare(move)
    copying = asyncio.create_task(mover.copy(move, nothing))
    await asyncio.sleep(0.05)
    crash(world, shard)
    await asyncio.gather(copying, return_exceptions=True)
    await insist(mover, move)
    await world.commit(mover, move)
    await assert_consistent(world.gateway)


async def test_a_finish_that_is_cut_off_waits_for_no_server_that_stands_still(world: World) -> None:
    await world.register(BUCKET, 5)
    move = world.move(BUCKET)
    async with proxied(world.databases[S2]) as (proxy, through_proxy), world.sql(S2) as other:
        places = {S1: world.connect_args(S1), S2: through_proxy}
        async with Mover(places.__getitem__, SEED, KINDS, workers=1) as mover:
            await world.to_fence(mover, move)
            await mover.fence(move, FENCE)
            async with other.transaction():
                await other.execute("lock table denizen.bucket_moves")
                finishing = asyncio.create_task(mover.finish(move, FENCE))
                async with asyncio.timeout(30):
                    while not await world.execute(S2, "select count(*) from pg_locks where not granted"):
                        await asyncio.sleep(0.01)
                proxy.flowing.clear()
                finishing.cancel()
                done, _ = await asyncio.wait({finishing}, timeout=10)
            proxy.flowing.set()
            assert done
            await world.commit(mover, move)
    await assert_consistent(world.gateway)


def crash(world: World, shard: ShardId) -> None:
    """Kill every process of the server at once, and start it again."""
    server = world.servers[shard].server
    assert server.pid is not None
    children = subprocess.run(["pgrep", "-P", str(server.pid)], capture_output=True, text=True, check=False).stdout
    for pid in (str(server.pid), *children.split()):
        with suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)
    server.restart()


async def test_a_source_that_crashes_right_after_the_fence_is_still_fenced(world: World, mover: Mover) -> None:
    await world.register(BUCKET, 5)
    move = world.move(BUCKET)
    await world.to_fence(mover, move)
    head = await mover.fence(move, FENCE)
    crash(world, S1)
    assert await world.state(S1, BUCKET) == ("fenced", 2)
    verification = await again(lambda: mover.finish(move, FENCE))
    assert (verification.verdict, verification.head) == (Verdict.EQUAL, head)
    await mover.open(move, OPEN)
    world.maps.publish(BUCKET, S2, OPEN)
    await again(lambda: mover.close(move, OPEN))
    await assert_consistent(world.gateway)


async def again(step):  # type: ignore[no-untyped-def]
    """Repeat a step while its servers are coming back."""
    for _ in range(100):
        try:
            return await step()
        except DenizenError as error:
            passing(error)
            await asyncio.sleep(0.05)
    raise AssertionError("the servers did not come back")


async def test_what_a_failed_move_left_on_the_target_is_removed_first(world: World, mover: Mover) -> None:
    """Events that are not the source's, state and names of nobody: rows of an attempt that went wrong."""
    people = await world.register(BUCKET, 10)
    failed = world.move(BUCKET)
    await world.to_fence(mover, failed)
    async with world.sql(S2) as connection:
        await connection.execute("update denizen.events set actor = 'wrong' where bucket = $1", BUCKET)
        await connection.execute(
            "insert into denizen.login_names (user_id, bucket, kind, value) values ($1, $2, 1, 'nobody@example.com')",
            people[0].user.id,
            BUCKET,
        )
        # the move has ended, and its copy could not be removed
        await connection.execute("update denizen.bucket_moves set state = 'aborted' where move = $1", failed.id)
    await world.execute(S1, "update denizen.bucket_moves set state = 'aborted' where move = $1", failed.id)
    await world.run(mover, world.move(BUCKET))
    await assert_consistent(world.gateway)


@pytest.mark.usefixtures("small_slices")
async def test_a_slice_that_is_delivered_twice_is_taken_up_once(world: World, mover: Mover) -> None:
    """The worker that copies is killed at any moment; what it may have committed is not copied again."""
    await world.register(BUCKET, 50)
    move = world.move(BUCKET)
    await mover.prepare(move)
    lost = 0
    for kill_after in (1, 2, 3):
        seen = 0

        def kill(copied: Copied, kill_after: int = kill_after) -> None:
            nonlocal seen
            seen += 1
            if seen == kill_after:
                kill_workers()

        try:
            await mover.copy(move, kill)
        except DenizenError as error:
            passing(error)
            lost += 1
    assert lost
    await insist(mover, move)
    await world.commit(mover, move)
    await assert_consistent(world.gateway)


def workers() -> list[int]:
    """The copying processes of this one."""
    found = subprocess.run(
        ["pgrep", "-P", str(os.getpid()), "-f", "denizen.moving.worker"], capture_output=True, text=True, check=False
    )
    return [int(pid) for pid in found.stdout.split()]


def kill_workers() -> None:
    for pid in workers():
        os.kill(pid, signal.SIGKILL)


async def test_the_same_slice_from_two_workers_at_once_is_taken_up_once(world: World) -> None:
    await world.register(BUCKET, 80)
    move = world.move(BUCKET)
    async with Mover(world.connect_args, SEED, KINDS, workers=2) as one:
        await one.prepare(move)
        await asyncio.gather(*(one.copy(move, nothing) for _ in range(4)))
        await world.commit(one, move)
    await assert_consistent(world.gateway)


async def test_a_verifier_that_dies_half_way_has_found_nothing_equal(world: World, mover: Mover) -> None:
    """The target breaks off while it compares: an error, never `EQUAL`; the target stays shut until it was repeated."""
    await world.register(BUCKET, 5)
    move = world.move(BUCKET)
    await world.to_fence(mover, move)
    await mover.fence(move, FENCE)
    async with world.sql(S2) as guard, guard.transaction():
        await guard.execute("lock table denizen.cancelled_commands in access exclusive mode")  # it waits here
        finishing = asyncio.create_task(mover.finish(move, FENCE))
        waiting = "select pid from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
        while (pid := await guard.fetchval(waiting)) is None:
            await asyncio.sleep(0.01)
        await guard.execute("select pg_terminate_backend($1)", pid)
        with pytest.raises(DenizenError) as raised:
            await finishing
        assert raised.value.retryable
    with pytest.raises(DenizenError, match="not found equal"):
        await mover.open(move, OPEN)
    assert (await mover.finish(move, FENCE)).verdict is Verdict.EQUAL
    await mover.open(move, OPEN)


async def test_writes_that_outrun_the_copy_end_it_and_never_fence(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "move_fence_events_max", 2)
    people = await world.register(BUCKET, 20)
    stop = asyncio.Event()
    written = 0

    async def write(user: int) -> None:
        nonlocal written
        while not stop.is_set():
            patch = UserPatch(display_name=str(written))
            await world.gateway.users.change(people[user].user.id, patch, if_version=None, context=BY)
            written += 1

    clients = [asyncio.create_task(write(user)) for user in range(20)]
    try:
        async with Mover(world.connect_args, SEED, KINDS, Pace(events_per_s=20), workers=1) as mover:
            monkeypatch.setattr(limits, "move_slice_events_min", 4)
            move = world.move(BUCKET)
            await mover.prepare(move)
            with pytest.raises(Outrun) as raised:
                await tail_for_ever(mover, move)
            assert raised.value.facts["missing"] > 2
            assert await world.state(S1, BUCKET) == ("open", 1)
            await mover.abort(move)
    finally:
        stop.set()
        await asyncio.gather(*clients)
    assert written > 0
    assert await world.rows(S2, BUCKET) == {}


async def tail_for_ever(mover: Mover, move: Move) -> None:
    for _ in range(100):
        await mover.tail(move)


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A real file system of 8 MiB for the target's events."""
    with reachable_directory() as directory:
        disk = directory / "disk"
        disk.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(disk)], check=True)
        try:
            space = disk / "space"
            space.mkdir(mode=0o700)
            disk.chmod(0o755)
            give(space, choose_account())
            yield space
        finally:
            subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount the small disk")
async def test_a_target_whose_disk_fills_is_given_up_and_leaves_nothing(
    world: World, mover: Mover, small_disk: Path
) -> None:
    people = await world.register(BUCKET, 300, attributes={"noise": os.urandom(3_000).hex()})
    await world.execute(S2, f"create tablespace small location '{small_disk}'")
    try:
        await world.execute(S2, "alter table denizen.events set tablespace small")
        ballast = small_disk.parent / "ballast"
        move = world.move(BUCKET)
        await mover.prepare(move)
        free = os.statvfs(small_disk)
        ballast.write_bytes(bytes(max(free.f_bavail * free.f_frsize - 300_000, 0)))
        with pytest.raises(NoRoom):
            await mover.copy(move, nothing)
        await mover.abort(move)
        assert await world.rows(S2, BUCKET) == {}
        assert await world.state(S1, BUCKET) == ("open", 1)
        await world.gateway.users.change(people[0].user.id, UserPatch(display_name="On"), if_version=None, context=BY)
        ballast.unlink()
        await world.run(mover, world.move(BUCKET))
        await assert_consistent(world.gateway)
    finally:
        await world.execute(S2, "alter table denizen.events set tablespace pg_default")
        await world.execute(S2, "drop tablespace small")


async def test_a_target_without_room_is_refused_before_anything_is_copied(
    world: World, mover: Mover, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "move_disk_reserve_bytes", 1 << 60)
    with pytest.raises(NoRoom):
        await mover.prepare(world.move(BUCKET))
    assert await world.rows(S2, BUCKET) == {}


async def test_a_mover_that_stops_ends_its_workers_and_undoes_what_they_began(world: World) -> None:
    await world.register(BUCKET, 50)
    move = world.move(BUCKET)
    async with Mover(world.connect_args, SEED, KINDS, Pace(events_per_s=200), workers=1) as mover:
        await mover.prepare(move)
        copying = asyncio.create_task(mover.copy(move, nothing))
        await asyncio.sleep(0.5)
        copying.cancel()
        await asyncio.gather(copying, return_exceptions=True)
    assert not workers()
    connection = await asyncpg.connect(**world.connect_args(S2))
    head = await connection.fetchval("select head from denizen.buckets where bucket = $1", BUCKET)
    events = await connection.fetchval("select count(*) from denizen.events where bucket = $1", BUCKET)
    await connection.close()
    assert head == events
