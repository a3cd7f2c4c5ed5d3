"""Every message between two nodes, and the packet that carries them.

A message is a MessagePack array that begins with its tag; a packet is `[version, [message, ...]]`, so that a transport
encodes everything it has for one peer in one pass. Decoding checks types and bounds, and raises `MalformedMessage` for
anything else. The core never trusts a message further than that: the transport says who sent it by authenticating the
connection and must drop messages whose `sender` is another.

`round` is the leader's count of heartbeats in its term. Every append carries the newest one, every reply gives back
the newest one seen, and that is what confirms reads, leases and the quorum: an answer to a round proves the leader led
after the round began.
"""

from typing import Annotated

from msgspec import Meta, MsgspecError, Struct
from msgspec.msgpack import Decoder, Encoder

from denizen.raft import bounds
from denizen.raft.errors import RaftError
from denizen.raft.types import Count, Entry, Index, IndexField, NodeIdField, Snapshot, TermField

WIRE_VERSION = 1


class MalformedMessage(RaftError, ValueError):
    """Bytes from the network that are no packet of this version, or one beyond its bounds."""

    code = "malformed_message"


class PreVote(Struct, frozen=True, array_like=True, tag=1, gc=False):
    """Would you vote for me in `term`, which I have not begun? (thesis, section 9.6)"""

    to: NodeIdField
    sender: NodeIdField
    term: TermField
    last_index: IndexField
    last_term: TermField


class PreVoteReply(Struct, frozen=True, array_like=True, tag=2, gc=False):
    """`term` is the one asked for when granted, else the answering node's own."""

    to: NodeIdField
    sender: NodeIdField
    term: TermField
    granted: bool


class Vote(Struct, frozen=True, array_like=True, tag=3, gc=False):
    """Vote for me in `term`. `transfer`: the leader told me to, so do not wait for its lease to run out."""

    to: NodeIdField
    sender: NodeIdField
    term: TermField
    last_index: IndexField
    last_term: TermField
    transfer: bool = False


class VoteReply(Struct, frozen=True, array_like=True, tag=4, gc=False):
    """The answer to `Vote`; a granted one leaves only after the vote is durable."""

    to: NodeIdField
    sender: NodeIdField
    term: TermField
    granted: bool


class Append(Struct, frozen=True, array_like=True, tag=5, gc=False):
    """Entries after (`prev_index`, `prev_term`); without entries it is the heartbeat, which also probes for lost
    messages.
    """

    to: NodeIdField
    sender: NodeIdField
    term: TermField
    round: Count
    commit: IndexField
    prev_index: IndexField
    prev_term: TermField
    entries: Annotated[list[Entry], Meta(max_length=bounds.append_entries_max)]


class TermRun(Struct, frozen=True, array_like=True, gc=False):
    """A stretch of one term in a log: its last index."""

    term: TermField
    last_index: IndexField


class AppendReply(Struct, frozen=True, array_like=True, tag=6, gc=False):
    """`match`: the log agrees with the leader's up to here, and it is durable. It answers every append up to `round`.

    `conflict` is set when an append was refused: its `prev_index` (0 for none, as an append after 0 always fits).
    `runs` then describes the follower's newest terms, newest first, from which the leader finds the last common entry
    in one step. `repairing`: durable entries were lost; an earlier, higher `match` no longer counts.
    """

    to: NodeIdField
    sender: NodeIdField
    term: TermField
    round: Count
    match: IndexField
    conflict: IndexField = Index(0)
    runs: Annotated[tuple[TermRun, ...], Meta(max_length=bounds.term_runs_max)] = ()
    repairing: bool = False


class ReadIndex(Struct, frozen=True, array_like=True, tag=7, gc=False):
    """A follower asks for an index that a linearizable read may be served at. `ticket` is unique over the follower's
    restarts.
    """

    to: NodeIdField
    sender: NodeIdField
    term: TermField
    ticket: Count


class ReadIndexReply(Struct, frozen=True, array_like=True, tag=8, gc=False):
    """The answer: serve when applied up to `index`. `refused`: this node does not lead, or is too busy."""

    to: NodeIdField
    sender: NodeIdField
    term: TermField
    ticket: Count
    index: IndexField
    refused: bool = False


class InstallSnapshot(Struct, frozen=True, array_like=True, tag=9, gc=False):
    """The bytes of `snapshot` from `offset`; `last` when nothing follows."""

    to: NodeIdField
    sender: NodeIdField
    term: TermField
    round: Count
    snapshot: Snapshot
    offset: Count
    data: Annotated[bytes, Meta(max_length=bounds.chunk_bytes_max)]
    last: bool


class InstallSnapshotReply(Struct, frozen=True, array_like=True, tag=10, gc=False):
    """`offset` bytes of `snapshot_index` are stored: go on from there. A transfer that broke off is resumed so.

    That the snapshot is installed is said by an `AppendReply` whose `match` is at or beyond it.
    """

    to: NodeIdField
    sender: NodeIdField
    term: TermField
    round: Count
    snapshot_index: IndexField
    offset: Count


class TimeoutNow(Struct, frozen=True, array_like=True, tag=11, gc=False):
    """Your log is complete: campaign at once (thesis, section 3.10)."""

    to: NodeIdField
    sender: NodeIdField
    term: TermField


Message = (
    PreVote
    | PreVoteReply
    | Vote
    | VoteReply
    | Append
    | AppendReply
    | ReadIndex
    | ReadIndexReply
    | InstallSnapshot
    | InstallSnapshotReply
    | TimeoutNow
)


class Packet(Struct, frozen=True, array_like=True):
    """What one frame of the transport holds."""

    version: Annotated[int, Meta(ge=WIRE_VERSION, le=WIRE_VERSION)]
    messages: Annotated[list[Message], Meta(max_length=bounds.packet_messages_max)]


_encoder = Encoder()
_decoder = Decoder(Packet)


def encode_packet(messages: list[Message]) -> bytes:
    """One packet of these messages, all of them for the same peer."""
    return _encoder.encode(Packet(WIRE_VERSION, messages))


def decode_packet(data: bytes | bytearray | memoryview) -> list[Message]:
    """The messages of a packet; raises `MalformedMessage`."""
    try:
        return _decoder.decode(data).messages
    except MsgspecError as error:
        raise MalformedMessage(f"not a packet of version {WIRE_VERSION}: {error}") from error
