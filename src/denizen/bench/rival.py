"""The rival of the write path: `pgbench`, PostgreSQL's own load generator in C, writing the same rows.

One transaction per user with the same statements that a careful hand-written service would send: lock and advance the
bucket, insert the event, the state and the login name. The tables are copies of a shard's, with the same indexes, on
the same servers; all servers run at once, as our shards do.
"""

import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import asyncpg

from denizen.events.codec import codec
from denizen.events.records import encode_state
from denizen.postgres.binaries import find_binaries
from denizen.users import decide
from denizen.users.commands import Registration
from denizen.users.evolve import fold
from denizen.users.login_names import LoginNameKind

_SEAL_BYTES, _SECRET_BYTES = 29, 52  # what sealing adds to the data of an event, and a user's wrapped key
_TABLES = ("buckets", "events", "users", "login_names")
_SCRIPT = """
\\set bucket random({first}, {last})
begin;
update rival.buckets set head = head + 1 where bucket = :bucket and epoch = 1 and state = 'open' returning head \\gset
select gen_random_uuid()::text as id \\gset
insert into rival.events (sequence, recorded_at, stream, version, bucket, type, schema, command_id, actor, data,
                          secret)
    values (:head, clock_timestamp(), cast(:id as uuid), 1, :bucket, 1, 1, cast(:id as uuid), 'key-0123456', '{event}',
            '{secret}');
insert into rival.users (id, created_at, updated_at, version, bucket, status, document)
    values (cast(:id as uuid), now(), now(), 1, :bucket, 1, '{state}');
insert into rival.login_names (user_id, bucket, kind, value)
    values (cast(:id as uuid), :bucket, 1, substr(:id, 1, 18) || '@example.com');
commit;
"""


async def make_tables(shards: Sequence[Mapping[str, Any]]) -> None:
    """Copies of each shard's tables in a schema `rival`, with the same indexes and the same bucket rows."""
    for arguments in shards:
        connection = await asyncpg.connect(**arguments)
        try:
            await connection.execute("drop schema if exists rival cascade; create schema rival")
            for table in _TABLES:
                await connection.execute(f"create table rival.{table} (like denizen.{table} including all)")
            await connection.execute("insert into rival.buckets select bucket, 1, 'open', 0, 0 from denizen.buckets")
            await connection.execute("vacuum analyze rival.buckets")
        finally:
            await connection.close()


def write_scripts(directory: Path, buckets: Sequence[Sequence[int]]) -> list[Path]:
    """A pgbench script for each shard; its rows have the sizes that a small registration has with us."""
    registration = Registration(email="a" * 12 + "@example.com", display_name="Some One", country="DE")
    events = decide.register(registration, frozenset({LoginNameKind.EMAIL}))
    data = os.urandom(_SEAL_BYTES) + codec.encode(events[0])[2]
    user = fold(events)
    state = b"" if user is None else encode_state(user)
    paths = []
    for number, owned in enumerate(buckets, 1):
        path = directory / f"rival-{number}.sql"
        text = _SCRIPT.format(
            first=owned[0],  # a new deployment's buckets are contiguous
            last=owned[-1],
            event="\\x" + data.hex(),
            secret="\\x" + os.urandom(_SECRET_BYTES).hex(),
            state="\\x" + state.hex(),
        )
        path.write_text(text)
        paths.append(path)
    return paths


def users_per_second(
    shards: Sequence[Mapping[str, Any]], scripts: Sequence[Path], *, clients: int, seconds: int
) -> float:
    """Run pgbench on all servers at once, `clients` connections in all; the sum of their rates."""
    each = max(1, clients // len(shards))
    with ThreadPoolExecutor(len(shards)) as pool:
        return sum(pool.map(lambda pair: _run(pair[0], pair[1], each, seconds), zip(shards, scripts, strict=True)))


def _run(arguments: Mapping[str, Any], script: Path, clients: int, seconds: int) -> float:
    command = [
        find_binaries().path("pgbench"),
        *("-n", "-M", "prepared", "-c", str(clients), "-j", "1", "-T", str(seconds), "-f", str(script)),
        *("-h", str(arguments["host"]), "-p", str(arguments["port"]), "-U", str(arguments["user"])),
        str(arguments["database"]),
    ]
    environment = os.environ | {"PGPASSWORD": str(arguments.get("password") or "")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    found = re.search(r"^tps = ([0-9.]+)", done.stdout, re.MULTILINE)
    if done.returncode or found is None:
        raise RuntimeError(f"pgbench failed: {done.stderr.strip()[-500:]}")
    return float(found[1])
