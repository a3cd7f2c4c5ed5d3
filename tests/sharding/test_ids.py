"""Ids and positions: their layout is stored and given out, so it never changes."""

from uuid import RFC_4122, UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from denizen.errors import Invalid
from denizen.sharding.hashing import stream_of_login_name
from denizen.sharding.ids import (
    BUCKETS,
    Bucket,
    Position,
    Sequence,
    bucket_of,
    mint_user_id,
    parse_user_id,
    user_id,
)
from denizen.users.login_names import LoginName, LoginNameKind

buckets = st.integers(0, BUCKETS - 1)


def test_a_user_id_is_laid_out_as_pinned() -> None:
    assert str(user_id(0x0123_4567_89AB, 0xCDE, 0x3FFF_FFFF_FFFF_FFFF)) == "01234567-89ab-8cde-bfff-ffffffffffff"
    assert str(user_id(0, 0, 0)) == "00000000-0000-8000-8000-000000000000"


@given(st.integers(0, 2**48 - 1), buckets, st.integers(0, 2**62 - 1))
def test_a_user_id_is_a_uuid_of_version_8_that_carries_its_bucket(milliseconds: int, bucket: int, noise: int) -> None:
    identifier = user_id(milliseconds, bucket, noise)
    assert (identifier.version, identifier.variant) == (8, RFC_4122)
    assert bucket_of(identifier) == bucket
    assert identifier.int >> 80 == milliseconds
    assert parse_user_id(str(identifier)) == identifier


def test_minted_ids_differ_and_sort_by_time() -> None:
    ids = [mint_user_id(5, 1_700_000_000_000 + number // 10) for number in range(1000)]
    assert len(set(ids)) == 1000
    assert [i.int >> 80 for i in ids] == sorted(i.int >> 80 for i in ids)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ann",
        "01234567-89ab-4cde-bfff-ffffffffffff",  # version 4
        "01234567-89ab-8cde-ffff-ffffffffffff",  # another variant
        "0123456789ab8cdebfffffffffffffff",
        "{01234567-89ab-8cde-bfff-ffffffffffff}",
        "urn:uuid:01234567-89ab-8cde-bfff-ffffffffffff",
        "0123456-789ab-8cde-bfff-ffffffffffff",
        "01234567-89ab-8cde-bfff-fffffffffffg",
        "٠1234567-89ab-8cde-bfff-ffffffffffff",
        "01234567-89ab-8cde-bfff-ffffffffffff\n",
        "01234567-89ab-8cde-bfff-ffffffffffff" * 1000,
        str(stream_of_login_name(LoginName(LoginNameKind.EMAIL, "ann@example.com"), 7)),
    ],
)
def test_what_is_no_user_id_is_refused(text: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse_user_id(text)
    assert caught.value.facts["field"] == "id"
    assert len(caught.value.detail) < 200


def test_a_user_id_in_capitals_is_the_same_id() -> None:
    assert parse_user_id("01234567-89AB-8CDE-BFFF-FFFFFFFFFFFF") == UUID("01234567-89ab-8cde-bfff-ffffffffffff")


def test_position_tokens_are_pinned() -> None:
    assert Position(Bucket(0), Sequence(1)).token() == "000-1"
    assert Position(Bucket(4095), Sequence(2**63 - 1)).token() == "fff-7fffffffffffffff"


@given(buckets, st.integers(0, 2**63 - 1))
def test_a_position_survives_its_token(bucket: int, sequence: int) -> None:
    position = Position(Bucket(bucket), Sequence(sequence))
    assert Position.parse(position.token()) == position


@pytest.mark.parametrize(
    "token", ["", "-", "1", "001", "1-1", "000-", "-1", "000-01", "000-g", "0_0-1", "000--1", "1000-1", "FFF-1",
              "000-8000000000000000", " 000-1", "000-1 ", "000-1-1", "٠00-1", "000-" + "f" * 5000],
)  # fmt: skip
def test_a_damaged_position_token_is_refused(token: str) -> None:
    with pytest.raises(Invalid):
        Position.parse(token)


def test_positions_of_a_bucket_compare_by_sequence() -> None:
    assert Position(Bucket(3), Sequence(9)) < Position(Bucket(3), Sequence(10))
