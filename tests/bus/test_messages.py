"""The messages: what goes in comes out, in the form that docs/bus.md promises."""

from datetime import UTC, datetime
from uuid import UUID

import msgspec
import pytest

from denizen.bus.messages import (
    BadMessage,
    HeadsMessage,
    Hint,
    decode_events,
    decode_heads,
    decode_hint,
    encode_events,
    encode_heads,
    encode_hint,
    split_rows,
)
from denizen.events.codec import UnknownEvent, codec
from denizen.sharding.ids import Bucket, ShardId
from denizen.users.events import UserRegistered

EVENT = UserRegistered(email="zoë@example.com", attributes={"plan": "pro"})
RECORDED_AT = datetime(2026, 11, 22, 23, 59, 59, 999_999, tzinfo=UTC)
RECORDED_AT_US = 1_795_391_999_999_999


def row(sequence: int, *, number: int | None = None, correlation_id: UUID | None = None) -> tuple[object, ...]:
    stored, schema, data = codec.encode(EVENT)
    kind = stored if number is None else number
    correlation = correlation_id.bytes if correlation_id else None
    head = (5, sequence, UUID(int=1).bytes, 1, kind, schema, RECORDED_AT_US)
    return (*head, UUID(int=2).bytes, "key:x", correlation, data, None)


def test_an_event_comes_out_as_it_went_in() -> None:
    message = decode_events(encode_events(ShardId("s1"), [row(1), row(2, correlation_id=UUID(int=9))]))
    assert message.shard == "s1"
    first, second = (event.record() for event in message.events)
    assert first.event == second.event == EVENT
    assert first.recorded_at == RECORDED_AT
    assert (first.stream, first.command_id, first.correlation_id) == (UUID(int=1), UUID(int=2), None)
    assert (second.position.sequence, second.correlation_id) == (2, UUID(int=9))


def test_any_messagepack_library_reads_it_as_the_documentation_says() -> None:
    message = msgspec.msgpack.decode(encode_events(ShardId("s1"), [row(7)]))
    envelope = (5, 7, UUID(int=1).bytes, 1, "UserRegistered", 1, RECORDED_AT_US, UUID(int=2).bytes, "key:x")
    assert message == {
        "v": 1,
        "shard": "s1",
        "events": [[*envelope, None, {"email": "zoë@example.com", "attributes": {"plan": "pro"}}]],
    }


def test_additions_of_a_newer_program_are_passed_over() -> None:
    message = msgspec.msgpack.decode(encode_events(ShardId("s1"), [row(7)]))
    message["new"] = True
    message["events"][0].append("new")
    assert decode_events(msgspec.msgpack.encode(message)).events[0].record().event == EVENT


def test_an_event_type_of_a_newer_program_is_known_by_its_place() -> None:
    message = msgspec.msgpack.decode(encode_events(ShardId("s1"), [row(7)]))
    message["events"][0][4] = "UserTeleported"
    event = decode_events(msgspec.msgpack.encode(message)).events[0]
    assert (event.bucket, event.sequence) == (5, 7)
    with pytest.raises(UnknownEvent, match="UserTeleported"):
        event.record()


@pytest.mark.parametrize("payload", [b"", b"\xc1", b"\x81\xa1v\x02", b"\x81\xa1v\x01", b"\x93\x01\x02\x03", b"\x80"])
def test_what_cannot_be_read_is_a_bad_message(payload: bytes) -> None:
    for decode in (decode_events, decode_heads):
        with pytest.raises(BadMessage):
            decode(payload)


def test_heads_and_hints_come_out_as_they_went_in() -> None:
    heads = HeadsMessage(1, "s1", 5, {Bucket(1): 7, Bucket(4095): 9}, {Bucket(1): 6}, "made then", 33)
    assert decode_heads(encode_heads(heads)) == heads
    assert heads.published_of() == {1: 6, 4095: 9}
    hint = Hint({ShardId("s1"): {Bucket(4095): 1 << 40}}, 2.5)
    assert decode_hint(encode_hint(hint)) == hint


def test_a_batch_is_split_by_size_in_order() -> None:
    rows = [row(sequence) for sequence in range(1, 11)]
    parts = split_rows(rows, 500)
    assert [entry for part in parts for entry in part] == rows
    assert len(parts) > 1
    assert all(len(encode_events(ShardId("s1"), part)) <= 600 for part in parts)
    assert split_rows(rows, 1) == [[entry] for entry in rows]
    assert split_rows([], 1) == []
