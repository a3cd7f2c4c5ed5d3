"""Appends as the service makes them, for the tests of the store."""

import random
from uuid import UUID

from denizen.events.login_name_events import LoginNameReserved
from denizen.events.records import NO_STREAM, Append, NameAction
from denizen.sharding.hashing import bucket_of_login_name, stream_of_login_name
from denizen.sharding.ids import Bucket, Epoch, bucket_of, mint_user_id
from denizen.users.events import ProfileChanged, UserRegistered
from denizen.users.login_names import LoginName, LoginNameKind
from denizen.users.state import Status, User

EPOCH = Epoch(1)
SEED = 7


def command_id() -> UUID:
    return UUID(int=random.getrandbits(128))


def email(value: str) -> LoginName:
    return LoginName(LoginNameKind.EMAIL, value)


def registration(
    value: str, *, bucket: int | None = None, key: bytes | None = None, fingerprint: bytes = b"f", events: int = 1
) -> Append:
    """A new user with this email; in the bucket given, as if the email's hash led there."""
    name = email(value)
    home = Bucket(bucket_of_login_name(name, SEED) if bucket is None else bucket)
    user_id = mint_user_id(home, 1_700_000_000_000)
    more = tuple(ProfileChanged(display_name=f"n{number}") for number in range(events - 1))
    return Append(
        bucket=home,
        stream=user_id,
        expected=NO_STREAM,
        command_id=command_id(),
        events=(UserRegistered(email=value), *more),
        actor="key:test",
        state=User(Status.ACTIVE, email=value, display_name=f"n{events - 2}" if more else None),
        names=(NameAction("claim", name, user_id),),
        key=key,
        fingerprint=None if key is None else fingerprint,
    )


def rename(user: Append, version: int, display_name: str, *, key: bytes | None = None) -> Append:
    """A change of the display name of the user whose registration is given."""
    assert user.state is not None
    return Append(
        bucket=bucket_of(user.stream),
        stream=user.stream,
        expected=version,
        command_id=command_id(),
        events=(ProfileChanged(display_name=display_name),),
        actor="key:test",
        state=User(Status.ACTIVE, email=user.state.email, display_name=display_name),
        key=key,
        fingerprint=None if key is None else b"f",
    )


def name_step(action: str, value: str, user: UUID, reservation: UUID, event: type) -> Append:
    """One step of the protocol of login names."""
    from denizen.sharding.ids import UserId

    name = email(value)
    return Append(
        bucket=bucket_of_login_name(name, SEED),
        stream=stream_of_login_name(name, SEED),
        expected=-1,
        command_id=command_id(),
        events=(event(name.kind.value, user, reservation, *([value] if event is LoginNameReserved else [])),),
        actor="key:test",
        names=(NameAction(action, name, UserId(user), reservation),),
    )
