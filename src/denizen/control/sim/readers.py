"""Readers: gateways with maps of their own, often old ones. They must see what was acknowledged before they asked.

Only a source that did not answer when it was to be closed may show, while it is fenced, what it had before the move.
"""

from random import Random
from typing import TYPE_CHECKING

from denizen.control.sim.databases import RowState
from denizen.sharding.ids import Bucket, ShardId

if TYPE_CHECKING:
    from denizen.control.sim.simulation import MovesSimulation

DELAY_US = 3_000
PAUSE_US = 4_000


class Reader:
    """Reads one bucket after the other, each where it was last seen; asks for a map only if it is not there."""

    def __init__(self, sim: "MovesSimulation", rng: Random) -> None:
        self._sim = sim
        self._rng = rng
        self._places: dict[Bucket, ShardId] = {}
        self._next()

    def _next(self) -> None:
        if not self._sim.calm:
            self._sim.at(self._sim.now + 1 + self._rng.randrange(PAUSE_US), self._send)

    def _send(self) -> None:
        bucket = self._rng.choice(self._sim.buckets)
        if bucket not in self._places:
            self._look_up(bucket)
        if (shard := self._places.get(bucket)) is None:
            self._next()
            return
        known = frozenset(self._sim.writers.acknowledged[bucket])
        self._sim.at(self._sim.now + 1 + self._rng.randrange(DELAY_US), self._arrive, bucket, shard, known)

    def _arrive(self, bucket: Bucket, shard: ShardId, known: frozenset[int]) -> None:
        database = self._sim.servers.databases[shard]
        row = database.rows.get(bucket)
        if database.up and row is not None and row.state in (RowState.OPEN, RowState.FENCED):
            self._sim.checkers.seen(bucket, database, known - set(row.writes))
        elif database.up:
            self._places.pop(bucket)
        self._next()

    def _look_up(self, bucket: Bucket) -> None:
        """Ask some node for the map; it may be one that is far behind."""
        node = self._rng.choice(list(self._sim.nodes.values()))
        bucket_map = self._sim.state_of(node).map if node.up else None
        if bucket_map is not None:
            self._places[bucket] = bucket_map.shard_of(bucket)
