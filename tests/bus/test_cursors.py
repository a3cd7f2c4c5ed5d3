"""A relay's place in its buckets."""

from denizen.bus.cursors import Cursors
from denizen.sharding.ids import Bucket

ONE, TWO, THREE = Bucket(1), Bucket(2), Bucket(3)


def test_a_bucket_met_for_the_first_time_starts_at_a_recent_point() -> None:
    cursors = Cursors({ONE: 40}, restart_events=10)
    cursors.see({ONE: 50, TWO: 50, THREE: 5})
    assert cursors.next(10) == {ONE: 40, TWO: 40, THREE: 0}


def test_a_hint_is_news_only_for_a_bucket_of_this_shard_that_is_not_so_far() -> None:
    cursors = Cursors({ONE: 5}, restart_events=10)
    cursors.see({ONE: 5})
    assert not cursors.hear({ONE: 5, TWO: 9})
    assert cursors.hear({ONE: 6})
    assert cursors.next(10) == {ONE: 5}


def test_a_hint_that_was_wrong_is_forgotten_after_a_read_to_the_end() -> None:
    cursors = Cursors({ONE: 5}, restart_events=10)
    cursors.see({ONE: 5})
    cursors.hear({ONE: 100})
    cursors.next(10)
    cursors.advance([(ONE, 6)])
    cursors.settle()
    assert cursors.behind == 0
    assert cursors.heads == {ONE: 6}


def test_a_hint_that_comes_during_a_read_is_kept() -> None:
    cursors = Cursors({ONE: 5}, restart_events=10)
    cursors.see({ONE: 6})
    cursors.next(10)
    cursors.hear({ONE: 7})
    cursors.advance([(ONE, 6)])
    cursors.settle()
    assert cursors.next(10) == {ONE: 6}


def test_a_head_that_was_read_before_a_hint_came_does_not_hide_it() -> None:
    cursors = Cursors({ONE: 5}, restart_events=10)
    cursors.see({ONE: 5})
    cursors.hear({ONE: 6})
    cursors.see({ONE: 5})
    assert cursors.next(10) == {ONE: 5}


def test_a_bucket_far_behind_does_not_keep_the_others_waiting() -> None:
    cursors = Cursors({ONE: 0, TWO: 0}, restart_events=10)
    cursors.see({ONE: 1_000, TWO: 1})
    assert list(cursors.next(1)) == [ONE]
    cursors.advance([(ONE, 1)])
    assert list(cursors.next(1)) == [TWO]
