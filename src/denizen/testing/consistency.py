"""The invariants of the data, checked straight from the tables: whatever the service believes, this is what is stored.

    await assert_consistent(gateway)

It reads everything: for deployments of tests. Nothing may be written meanwhile.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any
from uuid import UUID

import asyncpg

from denizen.events.codec import LOGIN_NAME_EVENTS_FROM, RESERVED
from denizen.events.reading import decoded
from denizen.events.records import decode_state
from denizen.service.gateway import Gateway
from denizen.sharding.hashing import bucket_of_login_name, stream_of_login_name
from denizen.sharding.ids import bucket_of
from denizen.users.evolve import fold
from denizen.users.login_names import LoginName, LoginNameKind
from denizen.users.state import User, login_names

_SERVED = "bucket in (select bucket from denizen.buckets where state in ('open', 'fenced'))"
_TABLES = {
    "buckets": "select bucket, epoch, head, digest from denizen.buckets where state in ('open', 'fenced')",
    "events": f"""select e.bucket, e.sequence, e.stream, e.version, e.type, e.schema, e.recorded_at, e.data,
                  denizen.event_hash(e) as hash,
                  case when e.version = 1 or e.type > 100 then e.secret else (
                      select f.secret from denizen.events f where f.stream = e.stream and f.version = 1) end as secret
                  from denizen.events e where {_SERVED} order by e.stream, e.version""",  # noqa: S608
    "users": f"select * from denizen.users where {_SERVED}",  # noqa: S608
    "names": f"""select l.*, coalesce(s.state, 'held') as state from denizen.login_names l
                 left join denizen.login_names_unsettled s using (bucket, kind, value)
                 where {_SERVED}""",  # noqa: S608
    "unsettled": f"select * from denizen.login_names_unsettled where {_SERVED}",  # noqa: S608
    "keys": f"select * from denizen.idempotency where {_SERVED}",  # noqa: S608
}
_STATE_AFTER = {"Reserved": "reserved", "Confirmed": "held", "Leaving": "leaving", "Restored": "held"}

Rows = dict[str, list[asyncpg.Record]]


async def assert_consistent(gateway: Gateway, *, settled: bool = True) -> None:
    """Raise `AssertionError` naming what is wrong; `settled`: no change of a login name may be under way."""
    problems = [problem async for problem in _problems(gateway, settled)]
    assert not problems, "\n".join(problems[:20])  # noqa: S101


async def _problems(gateway: Gateway, settled: bool) -> Any:
    rows = await _read(gateway)
    for check in (
        _buckets(rows),
        _streams(rows),
        _states(rows),
        _names(rows, gateway, settled),
        _name_streams(rows, gateway.router.hash_seed),
        _keys(rows),
    ):
        for problem in check:
            yield problem


async def _read(gateway: Gateway) -> Rows:
    async def ask(connection: asyncpg.Connection) -> Rows:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            return {table: await connection.fetch(query) for table, query in _TABLES.items()}

    rows: Rows = defaultdict(list)
    for store in gateway.router.stores.values():
        for table, found in (await store.read(ask)).items():
            rows[table] += found
    return rows


def _buckets(rows: Rows) -> Iterator[str]:
    """One owner each; sequences 1 to head without holes or duplicates; the digest is that of the events."""
    for bucket, owners in Counter(row["bucket"] for row in rows["buckets"]).items():
        if owners > 1:
            yield f"bucket {bucket} is served by {owners} shards"
    sequences, digests = defaultdict(list), Counter[int]()
    for event in rows["events"]:
        sequences[event["bucket"]].append(event["sequence"])
        digests[event["bucket"]] ^= event["hash"]
    for row in rows["buckets"]:
        found = sorted(sequences.pop(row["bucket"], []))
        if found != list(range(1, row["head"] + 1)):
            yield f"bucket {row['bucket']} has head {row['head']} and the sequences {found[:20]}"
        if row["digest"] != digests[row["bucket"]]:
            yield f"the digest of bucket {row['bucket']} is not that of its events"


def _streams(rows: Rows) -> Iterator[str]:
    """Versions 1, 2, 3 …, in the bucket that the stream's id names, in the order of their sequences."""
    for stream, events in _by_stream(rows["events"]).items():
        if [event["version"] for event in events] != list(range(1, len(events) + 1)):
            yield f"the versions of stream {stream} have holes"
        if any(event["bucket"] != bucket_of(stream) for event in events):
            yield f"stream {stream} has events outside of its bucket"
        sequences = [event["sequence"] for event in events]
        if sequences != sorted(sequences):
            yield f"the versions of stream {stream} are not in the order of their sequences"


def _states(rows: Rows) -> Iterator[str]:
    """Each state row is the fold of its stream, and each user's stream has one."""
    streams = {stream: events for stream, events in _by_stream(rows["events"]).items() if _is_user(events)}
    for row in rows["users"]:
        events = streams.pop(row["id"], [])
        folded = fold(map(_decoded, events))
        if folded != decode_state(row["document"]) or folded is None or folded.status != row["status"]:
            yield f"the state of user {row['id']} is not the fold of its events"
        elif (row["version"], row["updated_at"]) != (events[-1]["version"], events[-1]["recorded_at"]):
            yield f"the state of user {row['id']} is not of its last event"
        elif row["created_at"] != events[0]["recorded_at"]:
            yield f"user {row['id']} was not created when its stream began"
    yield from (f"user {stream} has events and no state" for stream in streams)


def _names(rows: Rows, gateway: Gateway, settled: bool) -> Iterator[str]:
    """Each name at one user, in its bucket; each user's names resolve to it; no name at a user that has it not."""
    owners: dict[LoginName, UUID] = {}
    for row in rows["names"]:
        name = _name(row)
        if name in owners:
            yield f"{name} is there twice"
        if row["bucket"] != bucket_of_login_name(name, gateway.router.hash_seed):
            yield f"{name} is in the wrong bucket"
        if settled and row["state"] != "held":
            yield f"{name} is {row['state']}"
        owners[name] = row["user_id"]
    in_change = {_name(row) for row in rows["names"] if row["state"] != "held"}
    if in_change != {_name(row) for row in rows["unsettled"]}:
        yield "the list of unsettled names is not that of the names in a change"
    wanted: dict[LoginName, UUID] = {}
    for row in rows["users"]:
        state: User = decode_state(row["document"])
        for name in login_names(state, gateway.kinds):
            if wanted.setdefault(name, row["id"]) != row["id"]:
                yield f"{name} belongs to two users"
    for name, user_id in wanted.items():
        if owners.get(name) != user_id:
            yield f"{name} of user {user_id} resolves to {owners.get(name)}"
    for name in owners.keys() - wanted.keys() - in_change:
        yield f"{name} is held for {owners[name]}, who does not have it"


def _name_streams(rows: Rows, seed: int) -> Iterator[str]:
    """The last event of a name's own stream tells its row."""
    held = {stream_of_login_name(_name(row), seed): row for row in rows["names"]}
    for stream, events in _by_stream(rows["events"]).items():
        if _is_user(events):
            continue
        event = _decoded(events[-1])
        value = next((_decoded(each).value for each in reversed(events) if each["type"] == RESERVED), None)
        state = _STATE_AFTER.get(type(event).__name__.removeprefix("LoginName"))
        row = held.get(stream)
        if state is not None and (row is None or (row["user_id"], row["state"]) != (event.user_id, state)):
            yield f"{value} is {state} by its events, and {row} in the table"


def _keys(rows: Rows) -> Iterator[str]:
    """The outcome that an idempotency key stands for exists, in the key's own bucket."""
    versions = {(event["stream"], event["version"], event["bucket"]) for event in rows["events"]}
    for row in rows["keys"]:
        if (row["user_id"], row["version"], row["bucket"]) not in versions:
            yield f"an idempotency key stands for version {row['version']} of {row['user_id']}, which is not there"


def _by_stream(events: Iterable[asyncpg.Record]) -> dict[UUID, list[asyncpg.Record]]:
    streams: dict[UUID, list[asyncpg.Record]] = defaultdict(list)
    for event in events:
        streams[event["stream"]].append(event)
    return streams


def _is_user(events: Sequence[asyncpg.Record]) -> bool:
    return bool(events[0]["type"] <= LOGIN_NAME_EVENTS_FROM)


def _decoded(event: asyncpg.Record) -> Any:
    return decoded(event["stream"], event["version"], event["type"], event["schema"], event["data"], event["secret"])


def _name(row: asyncpg.Record) -> LoginName:
    return LoginName(LoginNameKind(row["kind"]), row["value"])
