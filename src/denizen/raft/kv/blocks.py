"""A snapshot as a stream of blocks: a head, then keys, then the kept past.

Each block is a MessagePack array behind its length and kind, so that writing needs memory for one block only. The size
of a block is fixed in keys and revisions, not by how the store happens to be laid out: equal states give equal bytes.
"""

import struct
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from typing import Any, TypeVar

import msgspec

from denizen.raft.kv.model import Event, KeyValue

_BLOCK = struct.Struct("<BI")
_HEAD, _KEYS, _HISTORY = 0, 1, 2
_BLOCK_KEYS = 256
_BLOCK_REVISIONS = 256

_encode = msgspec.msgpack.Encoder().encode
_decode_keys = msgspec.msgpack.Decoder(list[KeyValue]).decode
_decode_history = msgspec.msgpack.Decoder(list[tuple[Event, ...]]).decode

H = TypeVar("H")


def write_blocks(head: Any, keys: Iterable[list[KeyValue]], history: list[tuple[Event, ...]]) -> Iterator[bytes]:
    """Yield the pieces of a snapshot."""
    yield _block(_HEAD, head)
    flat = chain.from_iterable(keys)
    while block := list(islice(flat, _BLOCK_KEYS)):
        yield _block(_KEYS, block)
    for at in range(0, len(history), _BLOCK_REVISIONS):
        yield _block(_HISTORY, history[at : at + _BLOCK_REVISIONS])


def read_blocks(data: bytes, head_type: type[H]) -> tuple[H, list[KeyValue], list[tuple[Event, ...]]]:
    """Return the head, the keys and the history that `write_blocks` wrote."""
    head: H | None = None
    keys: list[KeyValue] = []
    history: list[tuple[Event, ...]] = []
    view, at = memoryview(data), 0
    while at < len(data):
        kind, size = _BLOCK.unpack_from(data, at)
        block = view[at + _BLOCK.size : at + _BLOCK.size + size]
        at += _BLOCK.size + size
        if len(block) != size:
            raise ValueError("the snapshot ends inside a block")
        if kind == _HEAD:
            head = msgspec.msgpack.decode(block, type=head_type)
        elif kind == _KEYS:
            keys += _decode_keys(block)
        else:
            history += _decode_history(block)
    if head is None:
        raise ValueError("the snapshot has no head")
    return head, keys, history


def _block(kind: int, content: Any) -> bytes:
    encoded = _encode(content)
    return _BLOCK.pack(kind, len(encoded)) + encoded
