"""The rows of an import are the very rows that the online path would write."""

from uuid import UUID, uuid4

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from denizen.bulk.imports.people import Maker
from denizen.events.codec import codec
from denizen.events.login_name_events import LoginNameReserved
from denizen.events.sealing import open_name
from denizen.sharding.hashing import bucket_of_login_name, stream_of_login_name
from denizen.sharding.ids import bucket_of, user_id
from denizen.sharding.names_of import LoginNamesOf
from denizen.users.commands import Registration
from denizen.users.login_names import LoginName, LoginNameKind
from denizen.users.rejections import Rejected
from denizen.users.state import Status, User, login_names
from denizen.users.validate import registration_from

SEED = 99
KINDS = frozenset(LoginNameKind)
KEY = b"k" * 16


def maker() -> Maker:
    return Maker(KEY, uuid4(), 1_700_000_000_000, SEED, KINDS)


def test_names_elsewhere_have_the_stream_and_the_data_of_the_online_protocol() -> None:
    person, names = maker().person(7, Registration(email="Ada@Example.org", username="Ada", phone="+4930123456"))
    assert {name.kind for name in names} == {2, 3}
    for name in names:
        login_name = LoginName(LoginNameKind(name.kind), name.value.decode())
        assert name.stream == stream_of_login_name(login_name, SEED).bytes
        assert name.bucket == bucket_of_login_name(login_name, SEED)
        event = LoginNameReserved(name.kind, UUID(bytes=person.id), UUID(bytes=person.command))
        _, behind = name.reserving.split(codec.encode(event)[2])
        assert open_name(name.stream, behind[4:]) == login_name.value


def test_a_user_id_is_a_user_id_in_the_bucket_of_the_first_name() -> None:
    person, _ = maker().person(7, Registration(email="ada@example.org"))
    identifier = UUID(bytes=person.id)
    assert bucket_of(identifier) == bucket_of_login_name(LoginName(LoginNameKind.EMAIL, "ada@example.org"), SEED)
    assert identifier == user_id(1_700_000_000_000, person.bucket, identifier.int & ((1 << 62) - 1))


def test_the_same_line_of_the_same_import_has_the_same_ids_and_another_attempt_another_command() -> None:
    registration = Registration(email="ada@example.org")
    (one, _), (two, _), (other, _) = (maker().person(line, registration) for line in (7, 7, 8))
    assert (one.id, one.command) == (two.id, two.command)
    assert one.id != other.id
    maker().again(two, [])
    assert one.id == two.id
    assert one.command != two.command


def test_a_line_without_a_login_name_is_refused() -> None:
    with pytest.raises(Rejected) as refused:
        maker().person(1, Registration(display_name="Nobody"))
    assert refused.value.code == "login_name_required"


TEXTS = st.text(min_size=1, max_size=12) | st.sampled_from(["Ada", "ÄÖÜ", "ｆｕｌｌ", "straße", "I.İ", "x--n"])


@given(local=TEXTS, domain=st.sampled_from(["Example.ORG", "bücher.example", "xn--bcher-kva.example"]), username=TEXTS)
@settings(max_examples=300, deadline=None)
def test_the_quick_way_to_login_names_gives_what_the_domain_gives(local: str, domain: str, username: str) -> None:
    try:
        accepted = registration_from(msgspec.json.encode({"email": f"{local}@{domain}", "username": username}))
    except (Rejected, UnicodeEncodeError):
        return
    user = User(Status.ACTIVE, accepted.email, accepted.username)
    expected = [(name.kind.value, name.value, bucket_of_login_name(name, SEED)) for name in login_names(user, KINDS)]
    assert LoginNamesOf(SEED, KINDS)(user) == expected
