"""A model of the shards' databases: what a transaction on one server sees and does, and nothing more.

It promises exactly what `ports.Mover` says, so that what the simulation proves of stages and executor holds for
everything that keeps that contract.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from uuid import UUID

from denizen.moving.errors import MoveAborted, NotHere, StaleAttempt
from denizen.moving.move import Move
from denizen.sharding.ids import Bucket, Epoch, ShardId


class RowState(StrEnum):
    """As in the table `buckets`."""

    OPEN = "open"
    FENCED = "fenced"
    INCOMING = "incoming"
    MOVED = "moved"


class Outcome(StrEnum):
    """What a write is answered."""

    DONE = "done"
    FENCED = "fenced"
    MOVED = "moved"


@dataclass(slots=True)
class Row:
    """A bucket on a server: the row, and the writes in order. `move` is whose doing its state is."""

    state: RowState
    epoch: Epoch
    move: UUID | None = None
    writes: list[int] = field(default_factory=list)
    verified: bool = False  # found equal once; from then on the simulation lets its disk be


@dataclass(slots=True)
class MoveRow:
    """What a server remembers of a move."""

    attempt: int
    aborted: bool = False


class Database:
    """One server. Every method is one transaction; after each that changed a bucket, `changed` looks at it."""

    check_attempts = True
    """Switched off by one of the known bugs."""

    def __init__(self, shard: ShardId) -> None:
        self.shard = shard
        self.up = True
        self.rows: dict[Bucket, Row] = {}
        self.moves: dict[UUID, MoveRow] = {}
        self.unanswered: set[tuple[Bucket, Epoch]] = set()  # fences to be closed; nobody heard that they are

    # Writers

    def write(self, bucket: Bucket, epoch: Epoch, number: int) -> Outcome:
        """Append, if the bucket is open here at this epoch; a repeated write is answered as before."""
        row = self.rows.get(bucket)
        if row is None or row.state in (RowState.MOVED, RowState.INCOMING):
            return Outcome.MOVED
        if row.state is RowState.FENCED:
            return Outcome.FENCED
        if row.epoch != epoch:
            return Outcome.MOVED
        if number not in row.writes:
            row.writes.append(number)
        return Outcome.DONE

    # Moves

    def touch(self, move: Move) -> None:
        """The attempt's right to do anything here."""
        known = self.moves.setdefault(move.id, MoveRow(move.attempt))
        if known.aborted:
            raise MoveAborted(f"{self.shard}: aborted")
        if self.check_attempts and known.attempt > move.attempt:
            raise StaleAttempt(f"{self.shard}: attempt {move.attempt}, {known.attempt} was seen")
        known.attempt = max(known.attempt, move.attempt)

    def prepare_source(self, move: Move) -> int:
        """The source has the bucket, at the epoch that the move was decided at; how many writes there are."""
        self.touch(move)
        row = self._row(move)
        if row.state is not RowState.OPEN or row.epoch != move.epoch:
            raise NotHere(f"{self.shard}: {row.state} at {row.epoch}")
        return len(row.writes)

    def prepare_target(self, move: Move) -> None:
        """The row `incoming`, empty; left as it is if it is this move's already."""
        self.touch(move)
        row = self.rows.get(move.bucket)
        if row is not None and row.state is RowState.INCOMING and row.move == move.id:
            return
        if row is not None and row.state is not RowState.MOVED and row.state is not RowState.INCOMING:
            raise NotHere(f"{self.shard}: {row.state}")
        self.rows[move.bucket] = Row(RowState.INCOMING, move.epoch, move.id)

    def head(self, move: Move) -> int:
        """How far the target's copy is."""
        self.touch(move)
        return len(self._incoming(move).writes)

    def read(self, move: Move, after: int, limit: int) -> tuple[list[int], int]:
        """The source's next writes, and its head."""
        self.touch(move)
        row = self._row(move)
        return row.writes[after : after + limit], len(row.writes)

    def take_in(self, move: Move, after: int, writes: list[int]) -> int:
        """Append to the target's copy what it has not got; its head."""
        self.touch(move)
        row = self._incoming(move)
        if after > len(row.writes):
            raise NotHere(f"{self.shard}: a gap")
        row.writes.extend(writes[len(row.writes) - after :])
        return len(row.writes)

    def fence(self, move: Move, epoch: Epoch) -> None:
        """open → fenced."""
        self.touch(move)
        row = self._row(move)
        if row.state is RowState.FENCED and row.move == move.id and row.epoch == epoch:
            return
        if row.state is not RowState.OPEN or row.epoch != move.epoch:
            raise NotHere(f"{self.shard}: {row.state} at {row.epoch}")
        row.state, row.epoch, row.move = RowState.FENCED, epoch, move.id

    def fenced_writes(self, move: Move, epoch: Epoch) -> list[int]:
        """All writes, under the fence."""
        self.touch(move)
        row = self._row(move)
        if row.state is not RowState.FENCED or row.move != move.id or row.epoch != epoch:
            raise NotHere(f"{self.shard}: not fenced for this move")
        return list(row.writes)

    def equals(self, move: Move, writes: list[int]) -> bool:
        """Whether the target's copy is this."""
        self.touch(move)
        row = self._incoming(move)
        row.verified = row.writes == writes
        return row.verified

    def open(self, move: Move, epoch: Epoch) -> None:
        """incoming → open."""
        self.touch(move)
        row = self._row(move)
        if row.state is RowState.OPEN and row.move == move.id and row.epoch == epoch:
            return
        row = self._incoming(move)
        row.state, row.epoch = RowState.OPEN, epoch

    def close(self, move: Move, epoch: Epoch) -> None:
        """fenced → moved."""
        self.touch(move)
        row = self._row(move)
        if row.move != move.id or row.state not in (RowState.FENCED, RowState.MOVED):
            raise NotHere(f"{self.shard}: {row.state}")
        row.state, row.epoch = RowState.MOVED, epoch

    def bar(self, move: Move) -> bool:
        """No lower attempt opens any more; False if it is open."""
        self.touch(move)
        return not self._opened(move)

    def reopen(self, move: Move, epoch: Epoch) -> None:
        """fenced → open, or the fence had not come to pass."""
        self.touch(move)
        row = self._row(move)
        if row.state is RowState.OPEN and row.epoch == epoch:
            return
        fenced = row.state is RowState.FENCED and row.move == move.id and row.epoch == epoch - 1
        if not fenced and not (row.state is RowState.OPEN and row.epoch == move.epoch):
            raise NotHere(f"{self.shard}: {row.state} at {row.epoch}")
        row.state, row.epoch = RowState.OPEN, epoch

    def begin_abort(self, move: Move) -> bool:
        """Nothing of this move is possible here any more; False if it is open."""
        known = self.moves.setdefault(move.id, MoveRow(move.attempt))
        if known.aborted:
            return True
        self.touch(move)
        if self._opened(move):
            return False
        known.aborted = True
        return True

    def remove_aborted(self, move: Move, limit: int) -> bool:
        """Remove some of the copy of an aborted move; whether all of it is gone."""
        row = self.rows.get(move.bucket)
        if row is None or row.state is not RowState.INCOMING or row.move != move.id:
            return True
        del row.writes[:limit]
        if not row.writes:
            del self.rows[move.bucket]
        return not row.writes

    def clean(self, move: Move, limit: int) -> bool:
        """Remove some of the source's copy; whether all of it is gone."""
        self.touch(move)
        row = self._row(move)
        if row.state is not RowState.MOVED or row.move != move.id:
            raise NotHere(f"{self.shard}: {row.state}")
        del row.writes[:limit]
        return not row.writes

    def _row(self, move: Move) -> Row:
        row = self.rows.get(move.bucket)
        if row is None:
            raise NotHere(f"{self.shard}: no row")
        return row

    def _incoming(self, move: Move) -> Row:
        row = self._row(move)
        if row.state is not RowState.INCOMING or row.move != move.id:
            raise NotHere(f"{self.shard}: {row.state}, not incoming for this move")
        return row

    def _opened(self, move: Move) -> bool:
        """Whether this move has opened the bucket here (it may have been fenced or moved on since)."""
        row = self.rows.get(move.bucket)
        return row is not None and row.state is RowState.OPEN and row.move == move.id
