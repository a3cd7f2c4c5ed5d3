"""One record of the log on the disk, and the header of a segment.

A record is a header of 32 bytes and a payload:

    checksum u32 | payload bytes u32 | durable u32 | magic 3 bytes, kind u8 | term u64 | index u64 | payload

The checksum (CRC-32, seeded with the segment's number) covers everything after itself: the payload, its length, the
index and the term, so a record cannot pass for another one, nor for one of another segment. `durable` is the offset up
to which the segment was synced when the record was written. A valid record with a `durable` beyond a bad one is
the proof that the bad one was durable once, and did not come from a torn last write.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from struct import Struct
from typing import NamedTuple
from zlib import crc32

MAGIC = b"DzR"
DROP = b"drop"
"""The payload of a BASE record that drops every entry, not only those up to it."""
SEGMENT_MAGIC = b"DZNWAL\x00\x01"

_RECORD = Struct("<II3sBQQ")
_CHECKSUM = Struct("<I")
RECORD_HEADER_BYTES = _CHECKSUM.size + _RECORD.size
_SEGMENT = Struct("<8sQQ")
SEGMENT_HEADER_BYTES = _SEGMENT.size + _CHECKSUM.size + 4


class RecordKind(IntEnum):
    """What a record says. An entry of kind k is written as ENTRY + k, a hard state with its vote as index."""

    HARD_STATE = 1
    BASE = 2
    ENTRY = 16


class Record(NamedTuple):
    """A record read back: `offset` is where it begins in its segment."""

    offset: int
    kind: int
    term: int
    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody needs here
    payload: bytes


@dataclass(frozen=True, slots=True)
class SegmentHeader:
    """The first bytes of a segment: its number, and how many bytes of the segment before it were in use."""

    sequence: int
    previous_bytes: int

    def encode(self) -> bytes:
        """The header as written."""
        head = _SEGMENT.pack(SEGMENT_MAGIC, self.sequence, self.previous_bytes)
        return head + _CHECKSUM.pack(crc32(head)) + b"\x00" * 4

    @classmethod
    def decode(cls, data: bytes) -> "SegmentHeader | None":
        """The header of a segment, or None when it is not a valid one."""
        if len(data) < SEGMENT_HEADER_BYTES:
            return None
        magic, sequence, previous_bytes = _SEGMENT.unpack_from(data)
        (checksum,) = _CHECKSUM.unpack_from(data, _SEGMENT.size)
        if magic != SEGMENT_MAGIC or checksum != crc32(data[: _SEGMENT.size]):
            return None
        return cls(sequence, previous_bytes)


def encode_record(  # noqa: PLR0917 - called for every entry, and keywords would cost a tenth of it
    parts: list[bytes], seed: int, durable: int, kind: int, term: int, index: int, payload: bytes
) -> int:
    """Append a record to `parts`, which are joined and written at once; return its size."""
    head = _RECORD.pack(len(payload), durable, MAGIC, kind, term, index)
    parts.append(_CHECKSUM.pack(crc32(payload, crc32(head, seed))))
    parts.append(head)
    parts.append(payload)
    return RECORD_HEADER_BYTES + len(payload)


def decode_record(data: bytes, offset: int, seed: int) -> tuple[Record, int] | None:
    """The valid record at `offset` and its `durable`, or None."""
    body = offset + _CHECKSUM.size
    end = body + _RECORD.size
    if end > len(data):
        return None
    length, durable, magic, kind, term, index = _RECORD.unpack_from(data, body)
    if magic != MAGIC or end + length > len(data):
        return None
    (checksum,) = _CHECKSUM.unpack_from(data, offset)
    if checksum != crc32(memoryview(data)[body : end + length], seed):
        return None
    return Record(offset, kind, term, index, data[end : end + length]), durable


def read_records(data: bytes, seed: int, offset: int = SEGMENT_HEADER_BYTES) -> Iterator[Record]:
    """The records from `offset` on, up to the first that is not valid."""
    while (found := decode_record(data, offset, seed)) is not None:
        record = found[0]
        yield record
        offset += RECORD_HEADER_BYTES + len(record.payload)


def proves_durable(data: bytes, seed: int, offset: int) -> bool:
    """Whether a valid record after `offset` says that the segment was durable beyond it."""
    magic_at = _CHECKSUM.size + 8  # of a record: after its checksum, its length and its durable mark
    at = data.find(MAGIC, offset)
    while at >= 0:
        found = decode_record(data, at - magic_at, seed) if at >= magic_at else None
        if found is not None and found[0].offset >= offset and found[1] > offset:
            return True
        at = data.find(MAGIC, at + 1)
    return False
