"""What one append, and a group of them, must hold; at the database itself."""

from uuid import UUID

import asyncpg
import pytest

from denizen.events.appending import AppendWork, Write
from denizen.events.login_name_events import (
    LoginNameConfirmed,
    LoginNameLeaving,
    LoginNameReleased,
    LoginNameReserved,
    LoginNameRestored,
)
from denizen.events.reading import read_bucket, read_stream
from denizen.events.records import Append, NameAction, Outcome, Result
from denizen.events.store import ShardStore
from denizen.sharding.ids import Bucket, Epoch, UserId, mint_user_id
from denizen.users.state import User

from .appends import EPOCH, command_id, email, name_step, registration, rename

DIGEST = "select coalesce(bit_xor(denizen.event_hash(e)), 0) from denizen.events e where bucket = $1"


async def group(connection: asyncpg.Connection, *appends: Append) -> list[Outcome]:
    return await AppendWork().perform(connection, [Write(append, EPOCH) for append in appends])


async def count(connection: asyncpg.Connection) -> int:
    total: int = await connection.fetchval("select count(*) from denizen.events")
    return total


async def test_events_state_and_login_name_are_written_together(
    store: ShardStore, connection: asyncpg.Connection
) -> None:
    append = registration("ann@example.com", events=3)
    outcome = await store.append(append, EPOCH)
    assert (outcome.result, outcome.stream, outcome.version, outcome.sequence) == (Result.DONE, append.stream, 3, 3)
    events = await read_stream(connection, append.stream, limit=10)
    assert [event.event for event in events] == list(append.events)
    assert [(event.version, event.position.sequence) for event in events] == [(1, 1), (2, 2), (3, 3)]
    assert {(event.command_id, event.actor, event.recorded_at) for event in events} == {
        (append.command_id, "key:test", outcome.recorded_at)
    }
    stored = await store.user(UserId(append.stream))
    assert stored is not None
    assert (stored.version, stored.user, stored.created_at) == (3, append.state, outcome.recorded_at)
    record = await store.name(append.bucket, email("ann@example.com"))
    assert record is not None
    assert (record.user_id, record.state, record.reservation) == (append.stream, "held", None)


async def test_an_append_that_fails_leaves_nothing_of_its_events(connection: asyncpg.Connection) -> None:
    first = registration("ann@example.com")
    await group(connection, first)
    again = registration("ann@example.com", events=5, key=b"k")
    (outcome,) = await group(connection, again)
    assert (outcome.result, outcome.version) == (Result.NAME_TAKEN, 1)
    assert await count(connection) == 1
    assert await connection.fetchval("select count(*) from denizen.users") == 1
    assert await connection.fetchval("select count(*) from denizen.login_names") == 1
    assert await connection.fetchval("select count(*) from denizen.idempotency") == 0


async def test_one_bad_command_in_a_group_fails_alone(connection: asyncpg.Connection) -> None:
    old, keyed = registration("old@example.com"), registration("keyed@example.com", key=b"k")
    await group(connection, old, keyed)
    await connection.execute("update denizen.buckets set state = 'moved' where bucket = 8")
    await connection.execute("update denizen.buckets set state = 'fenced' where bucket = 9")
    outcomes = await group(
        connection,
        registration("a@example.com"),
        registration("old@example.com"),
        rename(old, 5, "wrong version"),
        registration("moved@example.com", bucket=8),
        registration("fenced@example.com", bucket=9),
        registration("other@example.com", bucket=keyed.bucket, key=b"k", fingerprint=b"other"),
        rename(keyed, 1, "right"),
        registration("b@example.com"),
    )
    assert [outcome.result for outcome in outcomes] == [
        Result.DONE,
        Result.NAME_TAKEN,
        Result.VERSION_CONFLICT,
        Result.MOVED,
        Result.FENCED,
        Result.KEY_REUSED,
        Result.DONE,
        Result.DONE,
    ]
    assert outcomes[2].version == 1
    assert await count(connection) == 5


async def test_many_events_of_one_bucket_in_a_group_are_numbered_in_order(connection: asyncpg.Connection) -> None:
    appends = [registration(f"u{number}@example.com", bucket=number % 3, events=number % 4 + 1) for number in range(60)]
    outcomes = await group(connection, *appends)
    for bucket in range(3):
        mine = [(o, a) for o, a in zip(outcomes, appends, strict=True) if a.bucket == bucket]
        ends = [sum(len(append.events) for _, append in mine[: place + 1]) for place in range(len(mine))]
        assert [outcome.sequence for outcome, _ in mine] == ends
        events = await read_bucket(connection, Bucket(bucket), after=0, limit=1000)
        assert [event.position.sequence for event in events] == list(range(1, ends[-1] + 1))
        assert [event.stream for event in events] == [a.stream for _, a in mine for _ in a.events]


@pytest.mark.parametrize("shared", ["stream", "name", "key"])
async def test_two_commands_that_share_a_stream_name_or_key_never_share_a_group(
    store: ShardStore, connection: asyncpg.Connection, shared: str
) -> None:
    user = registration("ann@example.com")
    if shared == "stream":
        await store.append(user, EPOCH)
        one, other = rename(user, 1, "one"), rename(user, 1, "other")
        refused = Result.VERSION_CONFLICT
    elif shared == "name":
        one, other = registration("bob@example.com"), registration("bob@example.com")
        refused = Result.NAME_TAKEN
    else:
        one, other = (registration(f"{value}@example.com", bucket=5, key=b"k") for value in ("c", "d"))
        refused = Result.REPEATED
    before = await count(connection)
    with pytest.raises(asyncpg.IntegrityConstraintViolationError):
        await group(connection, one, other)
    assert await count(connection) == before
    first, second = store.append(one, EPOCH), store.append(other, EPOCH)
    assert [(await first).result, (await second).result] == [Result.DONE, refused]


async def test_an_idempotency_key_gives_the_first_outcome_or_is_refused(connection: asyncpg.Connection) -> None:
    first = registration("ann@example.com", bucket=5, key=b"k", events=2)
    (done,) = await group(connection, first)
    await group(connection, rename(first, 2, "later"))
    again = registration("ann@example.com", bucket=5, key=b"k")
    (repeated,) = await group(connection, again)
    assert (repeated.result, repeated.stream, repeated.version, repeated.sequence) == (
        Result.REPEATED,
        first.stream,
        2,
        done.sequence,
    )
    (reused,) = await group(connection, registration("bob@example.com", bucket=5, key=b"k", fingerprint=b"other"))
    assert reused.result is Result.KEY_REUSED
    (elsewhere,) = await group(connection, registration("bob@example.com", bucket=6, key=b"k", fingerprint=b"other"))
    assert elsewhere.result is Result.DONE


async def test_a_command_that_was_done_is_answered_with_its_first_outcome_for_ever(
    connection: asyncpg.Connection,
) -> None:
    user = registration("ann@example.com", events=2)
    (first,) = await group(connection, user)
    for version in range(2, 6):
        await group(connection, rename(user, version, f"v{version}"))
    (again,) = await group(connection, user)
    assert (again.result, again.version, again.sequence) == (Result.REPEATED, first.version, first.sequence)
    assert await count(connection) == 6


FENCES = {
    "update denizen.buckets set state = 'moved' where bucket = $1": Result.MOVED,
    "update denizen.buckets set state = 'incoming' where bucket = $1": Result.MOVED,
    "update denizen.buckets set epoch = 2 where bucket = $1": Result.MOVED,
    "delete from denizen.buckets where bucket = $1": Result.MOVED,
    "update denizen.buckets set state = 'fenced' where bucket = $1": Result.FENCED,
    "update denizen.buckets set state = 'fenced', epoch = 2 where bucket = $1": Result.FENCED,
}


async def test_the_database_refuses_what_it_does_not_own_whatever_the_writer_believes(
    store: ShardStore, connection: asyncpg.Connection
) -> None:
    for bucket, (change, expected) in enumerate(FENCES.items()):
        await connection.execute(change, bucket)
        outcome = await store.append(registration("ann@example.com", bucket=bucket), EPOCH)
        assert outcome.result is expected, change
    assert await count(connection) == 0


async def test_a_writer_with_a_newer_map_than_the_shard_is_refused_too(store: ShardStore) -> None:
    assert (await store.append(registration("ann@example.com"), Epoch(2))).result is Result.MOVED


async def test_the_digest_is_that_of_the_events(connection: asyncpg.Connection) -> None:
    user = registration("ann@example.com", bucket=5, events=3)
    for appends in ([user, registration("bob@example.com", bucket=5)], [rename(user, 3, "later")]):
        await group(connection, *appends)
        row = await connection.fetchrow("select head, digest from denizen.buckets where bucket = 5")
        assert row["digest"] == await connection.fetchval(DIGEST, 5) != 0
        assert row["head"] == await connection.fetchval("select max(sequence) from denizen.events where bucket = 5")
    await connection.execute("update denizen.events set actor = 'other' where bucket = 5 and sequence = 2")
    assert row["digest"] != await connection.fetchval(DIGEST, 5)


async def test_a_missing_state_row_is_written_again_by_the_next_change(
    store: ShardStore, connection: asyncpg.Connection
) -> None:
    user = registration("ann@example.com")
    first = await store.append(user, EPOCH)
    await connection.execute("delete from denizen.users")
    await store.append(rename(user, 1, "Ann"), EPOCH)
    stored = await store.user(UserId(user.stream))
    assert stored is not None
    assert (stored.version, stored.created_at) == (2, first.recorded_at)
    assert isinstance(stored.user, User)
    assert stored.user.display_name == "Ann"


async def test_a_cancelled_command_is_refused_and_a_done_one_is_not_cancelled(connection: asyncpg.Connection) -> None:
    async def cancel(append: Append, epoch: int = 1) -> bool | None:
        found: bool | None = await connection.fetchval(
            "select denizen.cancel_command($1, $2, $3, $4)", append.bucket, epoch, append.stream, append.command_id
        )
        return found

    late, done = registration("late@example.com"), registration("done@example.com")
    assert await cancel(late) is True
    assert await cancel(late) is True
    outcomes = await group(connection, late, done)
    assert [outcome.result for outcome in outcomes] == [Result.CANCELLED, Result.DONE]
    assert await cancel(done) is False
    assert await cancel(done, epoch=2) is None
    await connection.execute("update denizen.buckets set state = 'fenced' where bucket = $1", done.bucket)
    assert await cancel(done) is None


USER, OTHER = mint_user_id(1, 0), mint_user_id(2, 0)
MINE, THEIRS = UUID(int=1), UUID(int=2)
EVENTS = {
    "reserve": LoginNameReserved,
    "confirm": LoginNameConfirmed,
    "leave": LoginNameLeaving,
    "restore": LoginNameRestored,
    "release": LoginNameReleased,
}
FREE, HELD, RESERVED, LEAVING = None, ("held", None), ("reserved", MINE), ("leaving", MINE)
TRANSITIONS = {  # the action with reservation MINE by USER, on a name in each state
    "reserve": {FREE: RESERVED, HELD: "taken", RESERVED: "taken", LEAVING: "taken"},
    "confirm": {FREE: "lost", HELD: "lost", RESERVED: HELD, LEAVING: "lost"},
    "leave": {FREE: "lost", HELD: LEAVING, RESERVED: "lost", LEAVING: "lost"},
    "restore": {FREE: "lost", HELD: "lost", RESERVED: "lost", LEAVING: HELD},
    "release": {FREE: "lost", HELD: "lost", RESERVED: FREE, LEAVING: FREE},
}


async def test_each_step_of_a_login_name_from_each_state(connection: asyncpg.Connection) -> None:
    for action, transitions in TRANSITIONS.items():
        for before, after in transitions.items():
            assert await one_step(connection, action, before, USER, MINE) == after, (action, before)
            if before is not None and not isinstance(after, str):
                assert await one_step(connection, action, before, OTHER, THEIRS) == "lost", (action, before)


async def one_step(
    connection: asyncpg.Connection, action: str, before: tuple[str, UUID | None] | None, owner: UUID, reservation: UUID
) -> object:
    """What an action by USER makes of a name that `owner` has in this state: the state after, or the refusal."""
    name = email("ann@example.com")
    step = name_step(action, name.value, USER, MINE, EVENTS[action])
    await connection.execute("truncate denizen.login_names, denizen.login_names_unsettled")
    if before is not None:
        await connection.execute(
            "insert into denizen.login_names values ($1, $2, 1, $3)", owner, step.bucket, name.value
        )
        if before[1]:
            await connection.execute(
                "insert into denizen.login_names_unsettled values (now(), $1, $2, 1, $3, $4)",
                reservation, step.bucket, before[0], name.value,
            )  # fmt: skip
    (outcome,) = await group(connection, step)
    row = await connection.fetchrow(
        "select coalesce(s.state, 'held') as state, s.reservation from denizen.login_names l"
        " left join denizen.login_names_unsettled s using (bucket, kind, value)"
    )
    unsettled = await connection.fetchval("select count(*) from denizen.login_names_unsettled")
    assert unsettled == (row is not None and row["state"] != "held")
    if outcome.result is not Result.DONE:
        assert (None if row is None else row["state"]) == (before and before[0])
        return outcome.result.name.lower().removeprefix("name_")
    return None if row is None else (row["state"], row["reservation"])


async def test_a_released_name_can_be_claimed_in_the_same_group_of_another_command(store: ShardStore) -> None:
    ann = registration("ann@example.com", bucket=5)
    await store.append(ann, EPOCH)
    leave = Append(
        bucket=Bucket(5),
        stream=ann.stream,
        expected=1,
        command_id=command_id(),
        events=ann.events,
        actor="key:test",
        state=ann.state,
        names=(NameAction("release", email("ann@example.com"), UserId(ann.stream)),),
    )
    bob = registration("ann@example.com", bucket=5)
    first, second = store.append(leave, EPOCH), store.append(bob, EPOCH)
    assert ((await first).result, (await second).result) == (Result.DONE, Result.DONE)
