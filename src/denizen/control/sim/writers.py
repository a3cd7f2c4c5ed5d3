"""Writers: gateways with maps of their own, often old ones. What they were acknowledged must never be lost."""

from random import Random
from typing import TYPE_CHECKING, Any

from denizen.control.sim.databases import Outcome
from denizen.sharding.ids import Bucket, ShardId

if TYPE_CHECKING:
    from denizen.control.sim.simulation import MovesSimulation

PATIENCE_US = 30_000


class Writers:
    """Each has one write under way at a time, and repeats it until it is acknowledged."""

    def __init__(self, sim: "MovesSimulation", count: int, rng: Random) -> None:
        self._sim = sim
        self._rng = rng
        self._number = 0
        self.acknowledged: dict[Bucket, set[int]] = {bucket: set() for bucket in sim.buckets}
        self.stopped = False
        self.waiting = count
        for _ in range(count):
            _Writer(self, sim, rng).begin()

    def next_number(self) -> int:
        """Each write is another one."""
        self._number += 1
        return self._number

    def count(self) -> int:
        """How many writes were acknowledged."""
        return sum(len(numbers) for numbers in self.acknowledged.values())


class _Writer:
    def __init__(self, writers: Writers, sim: "MovesSimulation", rng: Random) -> None:
        self._writers = writers
        self._sim = sim
        self._rng = rng
        self._places: dict[Bucket, tuple[int, ShardId, int]] = {}  # version, shard, epoch; as it believes
        self._bucket = Bucket(0)
        self._number = 0
        self._attempt = 0

    def begin(self) -> None:
        """A new write."""
        if self._writers.stopped:
            self._writers.waiting -= 1
            return
        self._bucket = self._rng.choice(self._sim.buckets)
        self._number = self._writers.next_number()
        self._later(self._rng.randrange(self._sim.wildness.think_us) * self._slower(), self._send)

    def _slower(self) -> int:
        """When it is calm, it is only to be seen that writes are still possible."""
        return 20 if self._sim.calm else 1

    def _later(self, delay: int, action: Any, *arguments: object) -> None:
        self._sim.at(self._sim.now + 1 + delay, action, *arguments)

    def _send(self) -> None:
        if self._bucket not in self._places and not self._refresh():
            self._later(5_000, self._send)
            return
        self._attempt += 1
        attempt, bucket, number = self._attempt, self._bucket, self._number
        _, shard, epoch = self._places[bucket]
        database = self._sim.servers.databases[shard]
        self._sim.servers.request(
            shard,
            f"write {number} b{bucket} epoch {epoch}",
            lambda: database.write(bucket, epoch, number),  # type: ignore[arg-type]
            lambda result: self._answered(attempt, result),
        )
        self._later(PATIENCE_US, self._impatient, attempt)

    def _answered(self, attempt: int, result: Any) -> None:
        if attempt != self._attempt:
            return
        if result is Outcome.DONE:
            self._attempt += 1
            self._writers.acknowledged[self._bucket].add(self._number)
            self._sim.checkers.acknowledged(self._bucket, self._number)
            self.begin()
            return
        self._attempt += 1
        if result is not Outcome.FENCED:
            self._refresh()
        self._later(self._rng.randrange(4_000) * self._slower(), self._send)

    def _impatient(self, attempt: int) -> None:
        """No answer: it may be done or not. The same write again."""
        if attempt == self._attempt:
            self._refresh()
            self._send()

    def _refresh(self) -> bool:
        """Ask some node for the map; it may be one that is far behind. Versions never go back."""
        node = self._rng.choice(list(self._sim.nodes.values()))
        bucket_map = self._sim.state_of(node).map if node.up else None
        if bucket_map is None:
            return self._bucket in self._places
        if self._places.get(self._bucket, (0,))[0] < bucket_map.version:
            place = (bucket_map.version, bucket_map.shard_of(self._bucket), bucket_map.epoch_of(self._bucket))
            self._places[self._bucket] = place
        return True
