"""The memory of what was put last: bounded, and what it forgets first is what was put first."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from denizen.recent import Recent


@given(kept_max=st.integers(2, 12), keys=st.lists(st.integers(0, 15), max_size=100))
def test_it_holds_the_last_and_is_bounded(kept_max: int, keys: list[int]) -> None:
    recent: Recent[int, str] = Recent(kept_max)
    for place, key in enumerate(keys):
        recent.put(key, f"{key} at {place}")
        assert len(recent) <= kept_max
    last = {key: f"{key} at {place}" for place, key in enumerate(keys)}
    assert all(recent.get(key) in {None, value} for key, value in last.items())  # never an older one
    for key in keys[-(kept_max // 2) :]:
        assert recent.get(key) == last[key]


def test_what_was_dropped_is_forgotten_in_both_generations() -> None:
    recent: Recent[str, int] = Recent(10)
    recent.put("ann", 1)
    recent.age()
    recent.put("ann", 2)
    assert recent.get("ann") == 2
    recent.drop("ann")
    recent.drop("bob")  # who was never put
    assert recent.get("ann") is None
    assert not recent


@pytest.mark.parametrize("ages", [0, 1, 2])
def test_what_is_held_is_gone_after_two_generations(ages: int) -> None:
    recent: Recent[str, int] = Recent(10)
    recent.put("ann", 1)
    for _ in range(ages):
        recent.age()
    assert recent.get("ann") == (1 if ages < 2 else None)
