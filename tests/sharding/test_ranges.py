"""Sets of buckets as text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from denizen.errors import Invalid
from denizen.sharding.ids import BUCKETS
from denizen.sharding.ranges import parse_buckets, write_buckets


@pytest.mark.parametrize(
    ("text", "buckets"), [("5", [5]), ("3-5", [3, 4, 5]), ("9, 1-2,2", [1, 2, 9]), ("4095", [4095]), ("0-0", [0])]
)
def test_a_text_names_each_bucket_once_in_order(text: str, buckets: list[int]) -> None:
    assert list(parse_buckets(text)) == buckets


@pytest.mark.parametrize("text", ["", "a", "1-", "-1", "5-3", "4096", "0-4096", "1;2", "1.5", "99999"])
def test_what_names_no_buckets_is_refused(text: str) -> None:
    with pytest.raises(Invalid):
        parse_buckets(text)


@given(st.sets(st.integers(0, BUCKETS - 1), min_size=1, max_size=50))
def test_what_is_written_is_read_again(buckets: set[int]) -> None:
    assert set(parse_buckets(write_buckets(buckets))) == buckets
