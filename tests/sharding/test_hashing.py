"""The hash of login names: pinned for ever, for a change of it loses every name."""

from collections import Counter
from uuid import UUID

import pytest

from denizen.sharding.hashing import bucket_of_login_name, stream_of_login_name
from denizen.sharding.ids import BUCKETS, bucket_of, mint_user_id
from denizen.users.login_names import LoginName, LoginNameKind, login_name

EMAIL, USERNAME, PHONE = LoginNameKind.EMAIL, LoginNameKind.USERNAME, LoginNameKind.PHONE

GOLDEN = [
    (EMAIL, "ann@example.com", 0, 1672, "afa04d26-3149-8688-f9bd-ff4f6dabcfe9"),
    (EMAIL, "ann@example.com", 7, 3005, "bda6a5c9-4952-8bbd-dbbf-0d74302b8b15"),
    (EMAIL, "ann@example.com", 9223372036854775807, 3112, "4e3adec2-8785-8c28-ff62-9d1533f9838c"),
    (EMAIL, "jürgen@xn--mller-kva.de", 7, 1305, "bcbd376d-8e5b-8519-ca5e-d71b2a8634c4"),
    (USERNAME, "ann", 7, 179, "091ef308-78fb-80b3-cdcd-ad352971290e"),
    (USERNAME, "王小明", 0, 1214, "cce18c49-adb8-84be-f359-df69da9bda90"),
    (USERNAME, "王小明", 7, 2264, "555028a3-9c2e-88d8-db3e-3f8e93c056eb"),
    (USERNAME, "王小明", 9223372036854775807, 231, "090910ab-9856-80e7-e482-88952b281b1d"),
    (USERNAME, "дмитрий", 7, 3355, "82cca860-5ead-8d1b-e7c7-0c8968f7dadf"),
    (USERNAME, "عمر", 7, 2967, "f5ff6de4-453d-8b97-d96b-1d2b31c6b99e"),
    (USERNAME, "o_neill", 7, 2098, "4fac202d-821e-8832-dcfa-3d09f4e8ef97"),
    (PHONE, "+4915112345678", 7, 745, "81f127b8-6a47-82e9-e441-2882ecaf737b"),
    (USERNAME, "नीरज_१", 7, 1167, "0981845e-6078-848f-f14e-e992f2457ba5"),
    (EMAIL, "ann@example.com", -(2**63), 2651, "1b60f2ef-7171-8a5b-c6d4-5693a84f45e5"),
]


@pytest.mark.parametrize(("kind", "value", "seed", "bucket", "stream"), GOLDEN)
def test_the_hash_never_changes(kind: LoginNameKind, value: str, seed: int, bucket: int, stream: str) -> None:
    name = LoginName(kind, value)
    assert bucket_of_login_name(name, seed) == bucket
    assert stream_of_login_name(name, seed) == UUID(stream)


def test_two_spellings_of_a_name_have_one_bucket() -> None:
    one, other = login_name(EMAIL, "Ann.Lee@Example.COM"), login_name(EMAIL, " ann.lee@example.com ")
    assert bucket_of_login_name(one, 7) == bucket_of_login_name(other, 7)


def test_the_kind_is_part_of_the_hash() -> None:
    streams = {stream_of_login_name(LoginName(kind, "ann"), 7) for kind in LoginNameKind}
    assert len(streams) == len(LoginNameKind)


def test_the_stream_of_a_name_carries_the_bucket_of_the_name_and_is_no_user_id() -> None:
    for number in range(1000):
        name = LoginName(USERNAME, f"user{number}")
        stream = stream_of_login_name(name, number)
        assert bucket_of(stream) == bucket_of_login_name(name, number)
        assert stream.int >> 62 & 0b11 == 0b11
        assert mint_user_id(bucket_of(stream), 0).int >> 62 & 0b11 == 0b10


def test_names_spread_evenly_over_the_buckets() -> None:
    found = Counter(bucket_of_login_name(LoginName(EMAIL, f"u{n}@example.com"), 7) for n in range(40 * BUCKETS))
    assert len(found) == BUCKETS
    assert max(found.values()) < 80
    chi_squared = sum((count - 40) ** 2 / 40 for count in found.values())
    assert 0.9 * BUCKETS < chi_squared < 1.1 * BUCKETS


def test_another_seed_gives_other_buckets() -> None:
    names = [LoginName(EMAIL, f"u{n}@example.com") for n in range(1000)]
    assert sum(bucket_of_login_name(name, 1) == bucket_of_login_name(name, 2) for name in names) < 10
