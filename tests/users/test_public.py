"""What the outside sees of a user."""

import msgspec
from hypothesis import given

from denizen.users.passwords import DUMMY_HASH
from denizen.users.public import PublicUser, to_public
from denizen.users.state import Name, Status, User

from .strategies import users


def test_the_public_view_has_all_fields_a_status_word_and_no_hash() -> None:
    user = User(Status.SUSPENDED, "a@example.com", name=Name("Anna"), attributes={"a": 1}, password=DUMMY_HASH)
    assert msgspec.to_builtins(to_public(user)) == {
        "email": "a@example.com",
        "username": None,
        "phone": None,
        "name": {"given": "Anna", "family": None},
        "display_name": None,
        "locale": None,
        "country": None,
        "time_zone": None,
        "picture_url": None,
        "attributes": {"a": 1},
        "status": "suspended",
        "has_password": True,
    }


@given(users)
def test_every_user_has_a_public_view_in_json(user: User) -> None:
    view = to_public(user)
    assert msgspec.json.decode(msgspec.json.encode(view), type=PublicUser) == view
    assert not view.has_password or user.password is not None
