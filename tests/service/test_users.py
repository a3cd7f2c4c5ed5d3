"""Users over one, two and four shards: every command and query."""

from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from msgspec.structs import replace

from denizen.errors import (
    IdempotencyKeyReused,
    LoginNameTaken,
    UserDeleted,
    UserNotFound,
    VersionConflict,
    WrongStatus,
)
from denizen.service import Context, UserService, Written
from denizen.service.gateway import Gateway
from denizen.sharding.ids import UserId, bucket_of, mint_user_id
from denizen.testing.consistency import assert_consistent
from denizen.testing.gateway import KINDS
from denizen.users.commands import Registration, UserPatch
from denizen.users.events import EmailChanged, ProfileChanged, UserRegistered
from denizen.users.login_names import LoginNameKind, login_name
from denizen.users.rejections import Rejected
from denizen.users.state import Status

from .worlds import BY, World, ann, email, sweep, username

every_world = pytest.mark.parametrize("world", [1, 2, 4], indirect=True, ids="{} shards".format)


@every_world
async def test_the_life_of_a_user(gateway: Gateway) -> None:
    users = gateway.users
    written = await ann(gateway, display_name="Ann")
    user_id = written.user.id
    assert (written.user.version, written.replayed) == (1, False)
    assert await users.get(user_id) == written.user
    assert (await users.find(email("ANN@Example.com"))).id == user_id
    assert (await users.find(username("Ann"))).id == user_id

    changed = await users.change(
        user_id, UserPatch(email="lee@example.com", display_name="Lee"), if_version=1, context=BY
    )
    assert (changed.user.version, changed.user.user.display_name) == (3, "Lee")
    assert changed.user.created_at == written.user.created_at
    assert await users.get(user_id) == changed.user
    assert (await users.find(email("lee@example.com"))).id == user_id
    with pytest.raises(UserNotFound):
        await users.find(email("ann@example.com"))

    suspended = await users.suspend(user_id, "spam", context=BY)
    assert suspended.user.user.status is Status.SUSPENDED
    with pytest.raises(WrongStatus):
        await users.suspend(user_id, context=BY)
    await users.reactivate(user_id, "sorry", if_version=4, context=BY)
    await users.set_password(user_id, "$2b$12$" + "a" * 53, context=BY)

    deleted = await users.delete(user_id, "asked", context=Context("key:other", correlation_id=UUID(int=9)))
    assert (deleted.user.version, deleted.user.user.status) == (7, Status.DELETED)
    with pytest.raises(UserDeleted):
        await users.get(user_id)
    for name in (email("lee@example.com"), username("ann")):
        with pytest.raises(UserNotFound):
            await users.find(name)
    with pytest.raises(UserDeleted):
        await users.change(user_id, UserPatch(display_name="X"), context=BY)

    history = await users.history(user_id)
    assert [event.version for event in history] == [1, 2, 3, 4, 5, 6, 7]
    assert [type(event.event) for event in history[:3]] == [UserRegistered, EmailChanged, ProfileChanged]
    assert (history[-1].type, history[-1].actor, history[-1].correlation_id) == (
        "UserDeleted",
        "key:other",
        UUID(int=9),
    )
    assert history[-1].position == deleted.position
    assert await users.history(user_id, after_version=5, limit=1) == history[5:6]
    await gateway.names.drain()
    await assert_consistent(gateway)


@every_world
async def test_every_kind_of_first_and_second_login_name(world: World) -> None:
    async with world.gateway(kinds=frozenset(LoginNameKind)) as gateway:
        for number, registration in enumerate(
            [
                Registration(email="a@example.com"),
                Registration(username="b"),
                Registration(phone="+15550000001"),
                Registration(email="c@example.com", phone="+15550000002"),
                Registration(username="d", phone="+15550000003"),
                Registration(email="e@example.com", username="e", phone="+15550000004"),
            ]
        ):
            written = await gateway.users.register(registration, BY)
            for kind in LoginNameKind:
                value = getattr(registration, kind.word)
                if value is not None:
                    assert (await gateway.users.find(login_name(kind, value))).id == written.user.id, number
        await gateway.names.drain()
        await assert_consistent(gateway)


async def test_names_of_a_kind_that_is_no_login_name_are_shared_freely(gateway: Gateway) -> None:
    assert LoginNameKind.PHONE not in KINDS
    for name in ("a", "b"):
        await gateway.users.register(Registration(username=name, phone="+15550000001"), BY)
    with pytest.raises(UserNotFound):
        await gateway.users.find(login_name(LoginNameKind.PHONE, "+15550000001"))
    with pytest.raises(Rejected):
        await gateway.users.register(Registration(phone="+15550000001"), BY)


async def test_two_login_names_in_one_bucket_take_one_transaction(gateway: Gateway) -> None:
    home = gateway.router.bucket_of_name(email("ann@example.com"))
    near = next(n for n in range(100_000) if gateway.router.bucket_of_name(username(f"u{n}")) == home)
    written = await gateway.users.register(Registration(email="ann@example.com", username=f"u{near}"), BY)
    assert not gateway.names._late
    assert (await gateway.users.find(username(f"u{near}"))).id == written.user.id
    await gateway.users.change(written.user.id, UserPatch(username=None), context=BY)
    await assert_consistent(gateway)


@every_world
async def test_a_taken_login_name_is_refused_wherever_it_lives(gateway: Gateway) -> None:
    first = await ann(gateway)
    await ann(gateway, "bob")
    for registration, kind in (
        (Registration(email="ann@example.com"), "email"),
        (Registration(email="new@example.com", username="ann"), "username"),
        (Registration(username="ANN"), "username"),
        (Registration(email="ANN@example.com", username="new"), "email"),
    ):
        with pytest.raises(LoginNameTaken) as caught:
            await gateway.users.register(registration, BY)
        assert caught.value.facts == {"kind": kind}
    for patch in (
        UserPatch(email="bob@example.com"),
        UserPatch(username="bob"),
        UserPatch(email="x@x.org", username="bob"),
    ):
        with pytest.raises(LoginNameTaken):
            await gateway.users.change(first.user.id, patch, context=BY)
    with pytest.raises(UserNotFound):
        await gateway.users.find(email("x@x.org"))
    assert await gateway.users.get(first.user.id) == first.user
    await gateway.names.drain()
    await assert_consistent(gateway)


@every_world
async def test_a_name_given_up_can_be_taken_at_once(gateway: Gateway) -> None:
    for turn in range(5):
        one = await ann(gateway, f"ann{turn}")
        await gateway.users.change(
            one.user.id, UserPatch(email=f"x{turn}@example.com", username=f"x{turn}"), context=BY
        )
        two = await ann(gateway, f"ann{turn}")
        await gateway.users.change(two.user.id, UserPatch(email=f"y{turn}@example.com"), context=BY)
        three = await gateway.users.register(Registration(email=f"ann{turn}@example.com"), BY)
        await gateway.users.delete(two.user.id, context=BY)
        four = await gateway.users.change(three.user.id, UserPatch(username=f"ann{turn}"), context=BY)
        await gateway.users.delete(four.user.id, context=BY)
        assert (await ann(gateway, f"ann{turn}")).user.version == 1
    await gateway.names.drain()
    await assert_consistent(gateway)


async def test_a_fresh_second_name_can_be_changed_at_once_under_a_version(gateway: Gateway) -> None:
    for number in range(20):  # while its confirmation may still be on the way
        written = await ann(gateway, f"ann{number}")
        await gateway.users.change(written.user.id, UserPatch(username=f"lee{number}"), if_version=1, context=BY)
    await gateway.names.drain()
    await assert_consistent(gateway)


async def test_a_change_to_what_is_already_so_writes_nothing(gateway: Gateway) -> None:
    written = await ann(gateway, display_name="Ann")
    same = await gateway.users.change(written.user.id, UserPatch(display_name="Ann", username="ann"), context=BY)
    assert same == replace(written, position=same.position)
    assert same.position.sequence >= written.position.sequence


async def test_a_spelling_is_changed_without_changing_the_login_name(gateway: Gateway) -> None:
    written = await ann(gateway)
    changed = await gateway.users.change(written.user.id, UserPatch(email="Ann@Example.com"), context=BY)
    assert changed.user.user.email == "Ann@Example.com"
    assert (await gateway.users.find(email("ann@example.com"))).version == 2


async def test_a_version_that_is_not_the_users_is_refused(gateway: Gateway) -> None:
    written = await ann(gateway)
    with pytest.raises(VersionConflict) as caught:
        await gateway.users.change(written.user.id, UserPatch(email="b@example.com"), if_version=2, context=BY)
    assert caught.value.facts == {"expected": 2, "actual": 1}


@pytest.mark.parametrize("user_id", [UUID(int=0), uuid4(), mint_user_id(77, 0)])
async def test_who_is_not_there_is_not_found(gateway: Gateway, user_id: UserId) -> None:
    users = gateway.users
    for asked in (users.get(user_id), users.history(user_id), users.get_as_of(user_id, version=1)):
        with pytest.raises(UserNotFound):
            await asked
    with pytest.raises(UserNotFound):
        await users.delete(user_id, context=BY)


async def test_a_user_as_of_a_version_or_a_time(gateway: Gateway) -> None:
    users = gateway.users
    user_id = (await ann(gateway, display_name="1")).user.id
    for number in range(2, 5):
        await users.change(user_id, UserPatch(display_name=str(number)), context=BY)
    await users.delete(user_id, context=BY)
    history = await users.history(user_id)
    for event in history[:4]:
        by_version = await users.get_as_of(user_id, version=event.version)
        assert by_version.user.display_name == str(event.version)
        assert await users.get_as_of(user_id, time=event.recorded_at) == by_version
        before = event.recorded_at - timedelta(microseconds=1)
        if event.version > 1:
            assert (await users.get_as_of(user_id, time=before)).version == event.version - 1
    assert (await users.get_as_of(user_id)).user.status is Status.DELETED
    for bounds in ({"version": 6}, {"version": 0}, {"time": history[0].recorded_at - timedelta(microseconds=1)}):
        with pytest.raises(UserNotFound):
            await users.get_as_of(user_id, **bounds)  # type: ignore[arg-type]


async def test_a_clock_set_back_leaves_no_event_out_of_the_past(gateway: Gateway) -> None:
    user_id = (await ann(gateway)).user.id
    await gateway.users.change(user_id, UserPatch(display_name="later"), context=BY)
    first, second = await gateway.users.history(user_id)
    for store in gateway.router.stores.values():
        await store.read(
            lambda connection: connection.execute(
                "update denizen.events set recorded_at = recorded_at - interval '10 s'"
                " where stream = $1 and version = 2",
                user_id,
            )
        )
    with pytest.raises(UserNotFound):
        await gateway.users.get_as_of(user_id, time=first.recorded_at - timedelta(seconds=5))
    assert (await gateway.users.get_as_of(user_id, time=first.recorded_at)).version == 2
    assert second.version == 2


@every_world
async def test_many_at_once_with_a_result_each(gateway: Gateway) -> None:
    registrations = [Registration(email=f"u{n % 30}@example.com", username=f"u{n}") for n in range(40)]
    results = await gateway.users.register_many([*registrations, Registration()], [BY] * 41)
    written = [result for result in results if isinstance(result, Written)]
    assert len(written) == 30
    assert isinstance(results[-1], Rejected)
    for one, other in zip(results[:10], results[30:40], strict=True):  # the same email: one of the two
        assert {type(one), type(other)} == {Written, LoginNameTaken}
    unknown = mint_user_id(1, 0)
    found = await gateway.users.get_many([written[3].user.id, unknown, written[1].user.id])
    assert found[::2] == [written[3].user, written[1].user]
    assert isinstance(found[1], UserNotFound)
    await gateway.names.drain()
    await assert_consistent(gateway)


def keyed(key: str, fingerprint: bytes | None = b"f") -> Context:
    return Context("key:test", idempotency_key=key, fingerprint=fingerprint)


@every_world
async def test_a_registration_repeated_under_its_key_gives_the_first_outcome(gateway: Gateway) -> None:
    for registration in (
        Registration(email="one@example.com"),
        Registration(email="two@example.com", username="two"),
    ):
        assert registration.email is not None
        key = registration.email
        first = await gateway.users.register(registration, keyed(key))
        again = await gateway.users.register(registration, keyed(key))
        assert again == replace(first, replayed=True)
        await gateway.users.change(first.user.id, UserPatch(email="x" + key, username="x" + key[:3]), context=BY)
        assert await gateway.users.register(registration, keyed(key)) == replace(first, replayed=True)
        await gateway.users.delete(first.user.id, context=BY)
        assert await gateway.users.register(registration, keyed(key)) == replace(first, replayed=True)
        with pytest.raises(IdempotencyKeyReused):
            await gateway.users.register(registration, keyed(key, b"other"))
    await sweep(gateway)
    await assert_consistent(gateway)


async def test_two_attempts_under_one_key_at_once_make_one_user(gateway: Gateway) -> None:
    import asyncio

    for number in range(10):
        registration = Registration(email=f"u{number}@example.com", username=f"u{number}")
        results = await asyncio.gather(*(gateway.users.register(registration, keyed(str(number))) for _ in range(5)))
        assert len({result.user.id for result in results}) == 1
        assert sum(not result.replayed for result in results) == 1
        user_id = results[0].user.id
        patch = UserPatch(email=f"v{number}@example.com", username=f"v{number}")
        results = await asyncio.gather(
            *(gateway.users.change(user_id, patch, if_version=1, context=keyed(f"c{number}")) for _ in range(5))
        )
        assert {result.user.version for result in results} == {3}
        assert sum(not result.replayed for result in results) == 1
    await sweep(gateway)
    await assert_consistent(gateway)


async def test_a_change_repeated_under_its_key_gives_the_first_outcome(gateway: Gateway) -> None:
    user_id = (await ann(gateway)).user.id
    users = gateway.users
    first = await users.change(user_id, UserPatch(username="lee"), if_version=1, context=keyed("k"))
    await users.change(user_id, UserPatch(username="kim"), context=BY)
    assert await users.change(user_id, UserPatch(username="lee"), if_version=1, context=keyed("k")) == replace(
        first, replayed=True
    )
    with pytest.raises(IdempotencyKeyReused):
        await users.change(user_id, UserPatch(username="other"), context=keyed("k", b"other"))
    gone = await users.delete(user_id, context=keyed("d"))
    assert await users.delete(user_id, context=keyed("d")) == replace(gone, replayed=True)
    assert (await users.get_as_of(user_id, version=3)).user.username == "kim"


async def test_a_key_without_a_fingerprint_protects_too(gateway: Gateway) -> None:
    first = await gateway.users.register(Registration(email="ann@example.com"), keyed("k", None))
    again = await gateway.users.register(Registration(email="ann@example.com"), keyed("k", None))
    assert again == replace(first, replayed=True)


@every_world
async def test_the_list_has_everybody_once_and_in_order_whatever_comes_and_goes(gateway: Gateway) -> None:
    users = gateway.users
    there = [(await ann(gateway, f"u{number}")).user for number in range(50)]
    for stored in there[:10]:
        await users.delete(stored.id, context=BY)
    seen: list[UserId] = []
    after = None
    page = 0
    while stored_page := await users.list_users(after=after, limit=7):
        assert len(stored_page) <= 7
        seen += [stored.id for stored in stored_page]
        after = (bucket_of(seen[-1]), seen[-1])
        page += 1
        await ann(gateway, f"new{page}")
        await users.change(there[20 + page].id, UserPatch(email=f"moved{page}@example.com"), context=BY)
    assert seen == sorted(seen, key=lambda user_id: (bucket_of(user_id), user_id))
    assert len(seen) == len(set(seen))
    assert set(seen) >= {stored.id for stored in there[10:]}
    assert not set(seen) & {stored.id for stored in there[:10]}


async def test_what_a_shard_still_keeps_of_a_moved_bucket_is_never_shown(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    from denizen.errors import Moved, Unavailable

    monkeypatch.setattr("denizen.limits.map_lag_s", 0.1)
    monkeypatch.setattr("denizen.limits.list_settle_s", 0.1)
    here, moved = (await ann(gateway, "ann")).user, (await ann(gateway, "bob")).user
    bucket = bucket_of(moved.id)
    await gateway.names.drain()
    await gateway.router.store_of(bucket).read(
        lambda connection: connection.execute("update denizen.buckets set state = 'moved' where bucket = $1", bucket)
    )
    with pytest.raises(Unavailable):  # nobody serves that bucket: a list without its users would be a lie
        await gateway.users.list_users()
    for asked in (
        gateway.users.get(moved.id),
        gateway.users.history(moved.id),
        gateway.users.get_as_of(moved.id, version=1),
        gateway.users.find(email("bob@example.com")),
        gateway.users.delete(moved.id, context=BY),
    ):
        with pytest.raises(Moved):
            await asked
    other = next(store for store in gateway.router.stores.values() if store is not gateway.router.store_of(bucket))
    await other.read(
        lambda connection: connection.execute(
            "insert into denizen.buckets (bucket, epoch, state) values ($1, 3, 'open')", bucket
        )
    )
    assert await gateway.users.list_users() == [here]


async def test_a_user_whose_state_row_is_gone_is_read_from_its_stream_and_healed(gateway: Gateway) -> None:
    written = await ann(gateway)
    await gateway.names.drain()
    for store in gateway.router.stores.values():
        await store.read(lambda connection: connection.execute("delete from denizen.users"))
    users: UserService = gateway.users
    assert await users.get(written.user.id) == written.user
    assert await users.find(email("ann@example.com")) == written.user
    assert await users.find(username("ann")) == written.user
    await users.change(written.user.id, UserPatch(display_name="Ann"), context=BY)
    assert (await users.list_users())[0].user.display_name == "Ann"
    await assert_consistent(gateway)


async def test_all_shards_are_ready(gateway: Gateway) -> None:
    assert await gateway.users.ready() == {"s1": True, "s2": True}
