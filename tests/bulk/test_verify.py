"""Verify sees every kind of damage, names it, and is silent about a deployment that is merely busy."""

# ruff: noqa: S608 - the statements are put together from constants of this file

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import pytest

from denizen.bench.people import people, write_people
from denizen.bulk.verification.differences import KINDS
from denizen.deployment.layout import Deployment
from denizen.service.context import Context
from denizen.users.commands import Registration, UserPatch
from denizen.users.validate import registration_from

from .conftest import Do, assert_agrees, on_each, verified
from .test_resume import gateway_of

A_USER = "(select id from denizen.users order by id limit 1)"
A_NAME = "(select value from denizen.login_names where kind = {kind} order by value limit 1)"
HOME, ELSEWHERE = A_NAME.format(kind=1), A_NAME.format(kind=2)
BUSY = "(select bucket from denizen.events order by bucket limit 1)"

MUTATIONS = [
    (f"update denizen.users set document = document || ''::bytea || '\\x00' where id = {A_USER}", "user_differs"),
    (f"update denizen.users set status = 2 where id = {A_USER}", "user_differs"),
    (f"update denizen.users set version = 7 where id = {A_USER}", "user_differs"),
    (f"update denizen.users set updated_at = updated_at + interval '1 us' where id = {A_USER}", "user_differs"),
    (f"delete from denizen.users where id = {A_USER}", "user_missing"),
    (
        "insert into denizen.users select gen_random_uuid(), created_at, updated_at, 1, bucket, 1, document "
        f"from denizen.users where id = {A_USER}",
        "user_extra",
    ),
    (f"delete from denizen.login_names where value = {HOME}", "name_missing"),
    (f"delete from denizen.login_names where value = {ELSEWHERE}", "name_missing"),
    (
        "insert into denizen.login_names (user_id, bucket, kind, value) "
        f"select id, bucket, 2, 'intruder' from denizen.users where id = {A_USER}",
        "name_extra",
    ),
    (f"update denizen.login_names set user_id = gen_random_uuid() where value = {HOME}", "name_differs"),
    (f"update denizen.login_names set user_id = gen_random_uuid() where value = {ELSEWHERE}", "name_differs"),
    (
        "insert into denizen.login_names_unsettled select clock_timestamp(), user_id, bucket, kind, 'leaving', value "
        f"from denizen.login_names where value = {ELSEWHERE}",
        "name_differs",
    ),
    (
        "insert into denizen.login_names_unsettled "
        f"values (clock_timestamp(), gen_random_uuid(), {BUSY}, 1, 'reserved', 'nobody')",
        "unsettled_differs",
    ),
    (
        "insert into denizen.login_names_unsettled "
        f"values (now() - interval '1 hour', gen_random_uuid(), {BUSY}, 1, 'reserved', 'nobody')",
        "name_stuck",
    ),
    (f"update denizen.buckets set head = head + 1 where bucket = {BUSY}", "bucket_head"),
    (f"update denizen.buckets set digest = digest # 1 where bucket = {BUSY}", "bucket_digest"),
    (f"update denizen.buckets set epoch = 2 where bucket = {BUSY}", "bucket_missing"),
    (f"update denizen.events set sequence = 1000 where bucket = {BUSY} and sequence = 1", "position_hole"),
    (f"update denizen.events set version = version + 1 where stream = {A_USER}", "version_hole"),
    (f"update denizen.events set actor = 'somebody else' where stream = {A_USER}", "bucket_digest"),
    (f"update denizen.events set data = '\\xc1' where stream = {A_USER}", "event_unreadable"),
    (f"update denizen.events set type = 99 where stream = {A_USER}", "event_unreadable"),
    (
        "update denizen.events set bucket = (select max(bucket) from denizen.buckets), sequence = 100000 "
        f"where stream = {A_USER}",
        "stream_misplaced",
    ),
    (
        f"insert into denizen.idempotency values (clock_timestamp(), {A_USER}, 99, {BUSY}, '\\x01', '\\x01')",
        "idempotency_dangling",
    ),
]


@pytest.mark.parametrize(("damage", "kind"), MUTATIONS)
async def test_damage_is_seen_and_named(
    deployment: Deployment, do_import: Do, tmp_path: Path, damage: str, kind: str
) -> None:
    file = tmp_path / "people.ndjson"
    write_people(file, 40)
    await do_import(file)
    await on_each(deployment, damage)
    outcome = await verified(deployment)
    assert not outcome.ok
    assert kind in outcome.by_kind
    found = next(difference for difference in outcome.differences if difference.kind == kind)
    assert found.detail


def test_every_kind_of_difference_is_tested() -> None:
    assert {kind for _, kind in MUTATIONS} == KINDS.keys()


async def test_a_name_that_only_the_other_shard_knows_is_found(
    deployment: Deployment, do_import: Do, tmp_path: Path
) -> None:
    """Row and events of a name in another bucket are sound in themselves; only its user does not have it."""
    file = tmp_path / "people.ndjson"
    write_people(file, 40)
    await do_import(file)
    async with gateway_of(deployment, 60) as gateway:
        written = await gateway.users.register(Registration(email="new@example.org"), Context("test"))
        orphan = Registration(email="other@example.org", username="orphan")
        await gateway.users.register(orphan, Context("test"))
        await gateway.names.drain()
    await on_each(
        deployment,
        "update denizen.login_names set user_id = $1 where value = 'orphan'",
        written.user.id,
    )
    kinds = (await verified(deployment)).by_kind
    assert kinds == {"name_differs": 1, "name_missing": 1, "name_extra": 1}


async def test_live_writes_raise_no_alarm(deployment: Deployment, do_import: Do, tmp_path: Path) -> None:
    file = tmp_path / "people.ndjson"
    write_people(file, 2_000)
    await do_import(file)
    stop = asyncio.Event()
    async with gateway_of(deployment, 60) as gateway:

        async def write(lane: int) -> int:
            made = 0
            for person in people(100_000, seed=lane, first=1_000_000 * lane):
                if stop.is_set():
                    break
                registration = registration_from(json.dumps(person).encode())
                written = await gateway.users.register(registration, Context("test"))
                patch = UserPatch(username=f"changed{lane}x{made}")
                await gateway.users.change(written.user.id, patch, context=Context("test", uuid4()))
                if made % 3 == 0:
                    await gateway.users.delete(written.user.id, context=Context("test"))
                made += 1
            return made

        writers = [asyncio.create_task(write(lane)) for lane in range(1, 5)]
        outcomes = [await verified(deployment) for _ in range(3)]
        stop.set()
        made = sum(await asyncio.gather(*writers))
        await gateway.names.drain()
    assert made > 0
    assert [outcome.differences for outcome in outcomes] == [[], [], []]
    assert outcomes[0].users >= 2_000
    await assert_agrees(deployment, users=2_000 + made)


async def test_the_command_tells_the_first_differences_and_exits_with_1(
    deployment: Deployment, do_import: Do, tmp_path: Path
) -> None:
    file = tmp_path / "people.ndjson"
    write_people(file, 40)
    await do_import(file)
    command = [sys.executable, "-m", "denizen", "verify", "--data", str(deployment.directory)]
    sound = await asyncio.to_thread(subprocess.run, command, capture_output=True, check=False)
    assert sound.returncode == 0
    assert b"everything agrees: 120 events, 40 users, 80 login names" in sound.stdout
    await on_each(deployment, "delete from denizen.users")
    damaged = await asyncio.to_thread(subprocess.run, [*command, "--show", "3"], capture_output=True, check=False)
    assert damaged.returncode == 1
    assert b"40 user_missing" in damaged.stdout
    assert damaged.stdout.count(b"but no row") == 3
    listed = await asyncio.to_thread(subprocess.run, [*command, "--json"], capture_output=True, check=False)
    assert len(json.loads(listed.stdout)["differences"]) == 40
