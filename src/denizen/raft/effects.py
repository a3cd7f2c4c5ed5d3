"""What a step asks of the caller, as data. The duties that go with it are numbered at the top of `core.py`."""

from enum import StrEnum

from msgspec import Struct, field

from denizen.raft.messages import Message
from denizen.raft.types import Configuration, Entry, HardState, Index, NodeId, Role, Snapshot, Term


class Write(Struct, frozen=True):
    """Make this durable, in the order of `number`, then report `Persisted(number)`; one fsync may serve many writes.

    In this order: adopt `snapshot`, if any: the staged file becomes the node's snapshot, atomically; the log loses
    everything up to its index if `keep_log`, else everything. Store `hard_state`, if any. Store `entries`: the log is
    first cut to end right before `entries[0].index`, so they may replace a tail that a former leader left.
    """

    number: int
    hard_state: HardState | None = None
    entries: list[Entry] = []
    snapshot: Snapshot | None = None
    keep_log: bool = False


class Accepted(Struct, frozen=True, gc=False):
    """Proposal `key` has the places `first_index` .. `first_index + count - 1` in `term`.

    That is no outcome yet. An entry applied at such an index with this term is it; with another term: the proposal was
    not carried out. If the leadership is lost first, the outcome is unknown until one of the two is seen.
    """

    key: int
    first_index: Index
    count: int
    term: Term


class Refusal(StrEnum):
    """Why a request was not carried out. None of these ever hides a request that may still take effect, except
    `LEADERSHIP_LOST`.
    """

    NOT_LEADER = "not_leader"
    """Ask `Refused.leader`, if it is known."""
    BUSY = "busy"
    """Too much is waiting; try again later."""
    TOO_LARGE = "too_large"
    TRANSFERRING = "transferring"
    """The leadership is being handed over."""
    LEADERSHIP_LOST = "leadership_lost"
    """Of a read: not served. Of a membership change: its outcome is unknown."""
    TIMED_OUT = "timed_out"
    CHANGE_PENDING = "change_pending"
    """Another membership change is not finished yet."""
    TERM_NOT_COMMITTED = "term_not_committed"
    """This leader has not committed an entry of its own term yet; soon."""
    INVALID_CHANGE = "invalid_change"
    """The change names wrong members, changes nothing, or would leave no voter."""
    NOT_A_VOTER = "not_a_voter"
    """The target of a transfer does not vote, or is this node itself."""


class Refused(Struct, frozen=True, gc=False):
    """Request `key` is not carried out."""

    key: int
    reason: Refusal
    leader: NodeId


class ReadReady(Struct, frozen=True, gc=False):
    """Read `key` may be served now: every entry up to `index` was in `apply` of this or an earlier step."""

    key: int
    index: Index


class Leadership(Struct, frozen=True, gc=False):
    """The node's role, term or known leader (`NO_NODE`: none) changed to this."""

    role: Role
    term: Term
    leader: NodeId


class ReadChunk(Struct, frozen=True):
    """Read up to `bytes_max` bytes of the own snapshot from `offset` and report `ChunkRead`."""

    to: NodeId
    snapshot: Snapshot
    offset: int
    bytes_max: int


class WriteChunk(Struct, frozen=True):
    """Store received bytes in the staging file of this snapshot and report `ChunkWritten`.

    Bytes are stored only if `offset` is where the stored ones end (else nothing is, and the report says where that
    is). Bytes of another snapshot that were staged may be thrown away. With `last` check size and digest, and make the
    file durable.
    """

    sender: NodeId
    snapshot: Snapshot
    offset: int
    data: bytes
    last: bool


class Effects(Struct):
    """Everything that follows from one step; each field empty or None when there is nothing."""

    write: Write | None = None
    send: list[Message] = field(default_factory=list)
    restore: Snapshot | None = None
    apply: list[Entry] = field(default_factory=list)
    reads: list[ReadReady] = field(default_factory=list)
    accepted: list[Accepted] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)
    completed: list[int] = field(default_factory=list)
    leadership: Leadership | None = None
    configuration: Configuration | None = None
    read_chunks: list[ReadChunk] = field(default_factory=list)
    write_chunks: list[WriteChunk] = field(default_factory=list)
    compact: Index | None = None
    """The log may forget everything up to this index (the entry at it included)."""
    repaired: bool = False
    """The repair mark on the disk may go: this node votes again."""
