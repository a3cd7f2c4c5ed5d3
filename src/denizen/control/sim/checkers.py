"""What must always hold, looked at after every transaction; and what must hold when all is calm."""

from typing import TYPE_CHECKING

from denizen.control.sim.databases import Database, RowState
from denizen.control.state import ControlState, RebalanceStatus, Stage
from denizen.raft.sim.violation import Violation
from denizen.sharding.ids import Bucket

if TYPE_CHECKING:
    from denizen.control.sim.simulation import MovesSimulation


class MoveCheckers:
    """Sees every server, all acknowledged writes, and the state in the end."""

    def __init__(self, sim: "MovesSimulation") -> None:
        self._sim = sim
        self.reads = 0
        self._open: dict[Bucket, tuple[str, int]] = {}  # where each bucket was last open, and at which epoch

    def transacted(self, database: Database) -> None:
        """A transaction on this server has committed."""
        for bucket, row in database.rows.items():
            if row.state is RowState.OPEN:
                self._opened(bucket, database, row.epoch)

    def _opened(self, bucket: Bucket, database: Database, epoch: int) -> None:
        if self._open.get(bucket) == (database.shard, epoch):
            others = [other for other in self._sim.servers.databases.values() if other is not database]
            if any(bucket in other.rows and other.rows[bucket].state is RowState.OPEN for other in others):
                raise Violation("at most one server is open", f"bucket {bucket} is, on {database.shard} and another")
            return
        _, last = self._open.get(bucket, ("", 0))
        if epoch <= last:
            raise Violation("epochs rise", f"bucket {bucket} opens on {database.shard} at {epoch}, after {last}")
        self._open[bucket] = (database.shard, epoch)
        self._opened(bucket, database, epoch)
        missing = self._sim.writers.acknowledged[bucket] - set(database.rows[bucket].writes)
        if missing:
            raise Violation("acknowledged writes are with the owner", f"{sorted(missing)} not on {database.shard}")

    def acknowledged(self, bucket: Bucket, number: int) -> None:
        """A writer was told that its write is done: it is on a server that may still be, or may become, the owner."""
        holders = [db for db in self._sim.servers.databases.values() if bucket in db.rows]
        if not any(number in db.rows[bucket].writes for db in holders):
            raise Violation("acknowledged writes are with the owner", f"write {number} of bucket {bucket} is nowhere")

    def seen(self, bucket: Bucket, database: Database, missing: frozenset[int]) -> None:
        """A reader was answered here; `missing` was acknowledged before it asked."""
        self.reads += 1
        if missing and (bucket, database.rows[bucket].epoch) not in database.unanswered:
            raise Violation(
                "readers see what was acknowledged", f"not {sorted(missing)} of {bucket} on {database.shard}"
            )

    def is_quiet(self, state: ControlState) -> bool:
        """Whether nothing is left to be done."""
        rebalance = state.rebalance
        ended = rebalance is None or rebalance.status in (RebalanceStatus.DONE, RebalanceStatus.CANCELLED)
        return ended and not state.moves and state.map is not None

    def at_end(self, state: ControlState) -> None:
        """All is calm: map and databases agree, everything acknowledged is there, nothing is left over."""
        if state.map is None:
            raise Violation("progress", "the deployment is not founded")
        for bucket in self._sim.buckets:
            owner, epoch = state.map.shard_of(bucket), state.map.epoch_of(bucket)
            for shard, database in self._sim.servers.databases.items():
                row = database.rows.get(bucket)
                if shard == owner:
                    if row is None or row.state is not RowState.OPEN or row.epoch != epoch:
                        raise Violation("map and databases agree", f"bucket {bucket}: {owner} at {epoch}, but {row}")
                    if len(set(row.writes)) != len(row.writes):
                        raise Violation("each write once", f"bucket {bucket} on {shard}: {row.writes}")
                    if missing := self._sim.writers.acknowledged[bucket] - set(row.writes):
                        raise Violation("acknowledged writes are with the owner", f"{sorted(missing)} are lost")
                elif row is not None and (row.state is not RowState.MOVED or row.writes):
                    raise Violation("nothing is left over", f"bucket {bucket} on {shard}: {row}")
        self._cancelled_left_nothing(state)

    def _cancelled_left_nothing(self, state: ControlState) -> None:
        for move in state.ended:
            database = self._sim.servers.databases[move.target]
            row = database.rows.get(move.bucket)
            if move.stage is not Stage.DONE and row is not None and row.move == move.id:
                raise Violation("a cancel leaves nothing", f"bucket {move.bucket} on {move.target}: {row}")
