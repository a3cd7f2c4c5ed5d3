"""The pure core of a feed, against every order in which events can come."""

from datetime import UTC, datetime
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct

from denizen import limits
from denizen.bus.feed import heads_to_come
from denizen.bus.messages import HeadsMessage
from denizen.bus.sequencer import Sequencer
from denizen.events.codec import UnknownEvent
from denizen.events.records import RecordedEvent
from denizen.sharding.ids import Bucket, Position, Sequence
from denizen.users.events import UserErased


class Offered(Struct):
    """An event as a source offers it."""

    bucket: Bucket
    sequence: int
    known: bool = True
    type: str = "UserErased"

    def record(self) -> RecordedEvent:
        if not self.known:
            raise UnknownEvent("unknown")
        return RecordedEvent(
            position=Position(self.bucket, Sequence(self.sequence)),
            stream=UUID(int=1),
            version=self.sequence,
            type=self.type,
            schema=1,
            recorded_at=datetime(2026, 1, 1, tzinfo=UTC),
            command_id=UUID(int=2),
            actor="test",
            correlation_id=None,
            event=UserErased(),
        )


def offered(*sequences: int, bucket: int = 1) -> list[Offered]:
    """Every third is of a type that some consumers do not read."""
    return [
        Offered(Bucket(bucket), sequence, type="UserErased" if sequence % 3 else "LoginNameReserved")
        for sequence in sequences
    ]


def taken(sequencer: Sequencer, most: int = 1_000) -> list[tuple[int, int]]:
    return [(event.position.bucket, event.position.sequence) for event in sequencer.take(most).events]


def everything(_: Bucket) -> bool:
    return True


HISTORY = {Bucket(1): 30, Bucket(2): 20, Bucket(3): 0}
ARRIVALS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from([1, 2]), st.integers(1, 30), st.integers(1, 8)),  # a run from the bus, or again
        st.tuples(st.just(0), st.integers(1, 5), st.just(0)),  # the consumer takes some
    ),
    max_size=60,
)


@pytest.mark.parametrize("passed", [(), ("LoginNameReserved",)])
@given(arrivals=ARRIVALS)
def test_whatever_comes_in_whatever_order_each_event_is_given_once_in_order(
    passed: tuple[str, ...], arrivals: list[tuple[int, int, int]]
) -> None:
    sequencer = Sequencer(dict.fromkeys(HISTORY, 0), passed)
    given_: list[tuple[int, int]] = []
    reached = dict.fromkeys(HISTORY, 0)

    def take(most: int = 1_000) -> None:
        batch = sequencer.take(most)
        assert batch.spans is not None
        for bucket, (before, end) in batch.spans.items():
            assert reached[bucket] == before < end
            reached[bucket] = end
        places = [(event.position.bucket, event.position.sequence) for event in batch.events]
        assert all(batch.spans[bucket][0] < sequence <= batch.spans[bucket][1] for bucket, sequence in places)
        for bucket in HISTORY:
            known = {sequence for found, sequence in [*given_, *places] if found == bucket}
            assert known == {each for each in range(1, reached[bucket] + 1) if each % 3 or not passed}
        given_.extend(places)

    for bucket, start, length in arrivals:
        if bucket == 0:
            take(start)
            continue
        end = min(start + length, HISTORY[Bucket(bucket)] + 1)
        sequencer.offer(offered(*range(start, end), bucket=bucket), now=1.0)
    # Heads are heard of, and what is due is read, a few at a time, until nothing is due.
    sequencer.note_heads(HISTORY, heal_at=2.0)
    rounds = 0
    while due := sequencer.due(3.0, everything, 2) or sequencer.due(4.0, everything, 2):
        rounds += 1
        assert rounds < 100
        for bucket, after in due.items():
            sequencer.offer(offered(*range(after + 1, min(after + 5, HISTORY[bucket] + 1)), bucket=bucket), now=3.0)
        sequencer.healed(due, again_at=9.0)
    take()
    assert reached == dict(sequencer.heads) == HISTORY
    for bucket in HISTORY:
        places = [sequence for found, sequence in given_ if found == bucket]
        assert places == sorted(set(places))


def test_an_unknown_type_is_never_passed_over() -> None:
    sequencer = Sequencer({Bucket(1): 0}, ["LoginNameReserved"])
    sequencer.offer([*offered(1), Offered(Bucket(1), 2, known=False, type="new"), *offered(3)], now=1.0)
    batch = sequencer.take(10)
    assert (len(batch.events), batch.spans) == (1, {1: (0, 1)})
    with pytest.raises(UnknownEvent):
        sequencer.take(10)
    sequencer.seek({Bucket(1): 2}, now=1.0)
    sequencer.offer(offered(3), now=1.0)
    assert sequencer.take(10).spans == {1: (2, 3)}


def test_a_hole_is_due_at_once_and_what_came_early_is_not_read_again() -> None:
    sequencer = Sequencer({Bucket(1): 0})
    sequencer.offer(offered(1, 2, 5, 6), now=1.0)
    assert taken(sequencer) == [(1, 1), (1, 2)]
    assert sequencer.due(1.0, everything, 10) == {1: 2}
    sequencer.offer(offered(3, 4), now=1.1)
    assert taken(sequencer) == [(1, 3), (1, 4), (1, 5), (1, 6)]
    assert sequencer.due(9.0, everything, 10) == {}
    sequencer.offer(offered(1, 6), now=1.2)
    assert (sequencer.holes, sequencer.duplicates, sequencer.ready) == (1, 2, 0)


def test_a_head_that_is_not_reached_is_due_after_its_grace() -> None:
    sequencer = Sequencer({Bucket(1): 0})
    sequencer.note_heads({Bucket(1): 2}, heal_at=1.3)
    assert sequencer.due(1.2, everything, 10) == {}
    assert sequencer.due(1.3, everything, 10) == {1: 0}
    sequencer.offer(offered(1, 2), now=1.4)
    sequencer.note_heads({Bucket(1): 3}, heal_at=1.9)  # under way again: a new head, a new grace
    assert sequencer.due(1.4, everything, 10) == {}


def test_a_head_that_comes_later_is_due_later_than_one_that_should_be_here() -> None:
    sequencer = Sequencer({Bucket(1): 0})
    sequencer.note_heads({Bucket(1): 2}, heal_at=1.3)
    sequencer.note_heads({Bucket(1): 9}, heal_at=11.0)
    assert sequencer.due(1.3, everything, 10) == {1: 0}
    sequencer.offer(offered(1, 2), now=1.4)
    assert sequencer.due(10.9, everything, 10) == {}
    sequencer.note_heads({Bucket(1): 3}, heal_at=10.9)  # and comes, or is lost
    assert sequencer.due(10.9, everything, 10) == {1: 2}
    assert sequencer.heads == {1: 9}


def test_what_a_relay_has_yet_to_publish_comes_later_unless_it_was_overtaken() -> None:
    published, behind, overtaken = Bucket(1), Bucket(2), Bucket(3)
    heads = HeadsMessage(1, "s1", 0, {published: 5, behind: 50, overtaken: 50}, {behind: 40, overtaken: 40}, "", 1)
    soon, later = heads_to_come(heads, {published: 5, behind: 39, overtaken: 41})
    assert soon == {published: 5, behind: 40, overtaken: 50}
    assert later == {behind: 50}


def test_a_bucket_that_a_read_did_not_advance_waits_before_the_next() -> None:
    sequencer = Sequencer({Bucket(1): 0})
    sequencer.note_heads({Bucket(1): 2}, heal_at=1.0)
    due = sequencer.due(1.0, everything, 10)
    sequencer.healed(due, again_at=1.5)
    assert sequencer.due(1.4, everything, 10) == {}
    assert sequencer.due(1.5, everything, 10) == {1: 0}


def test_more_early_events_than_there_is_room_for_are_read_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "feed_parked_events_max", 3)
    sequencer = Sequencer({Bucket(1): 0})
    sequencer.offer(offered(*range(2, 10)), now=1.0)
    sequencer.offer(offered(1), now=1.0)
    assert taken(sequencer) == [(1, 1), (1, 2), (1, 3), (1, 4)]
    assert sequencer.due(1.0, everything, 10) == {1: 4}


def test_an_unknown_event_is_raised_once_everything_before_it_was_given() -> None:
    sequencer = Sequencer({Bucket(1): 0, Bucket(2): 0})
    sequencer.offer([*offered(1), Offered(Bucket(1), 2, known=False), *offered(1, bucket=2)], now=1.0)
    assert taken(sequencer) == [(1, 1)]
    for _ in range(2):
        with pytest.raises(UnknownEvent):
            sequencer.take(10)
    sequencer.seek({Bucket(1): 2}, now=1.0)
    assert taken(sequencer) == [(2, 1)]
