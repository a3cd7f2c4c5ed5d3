"""The network between the nodes: it loses, repeats, delays and reorders messages, and may be cut in either
direction.
"""

from random import Random

from denizen.raft.messages import Message
from denizen.raft.sim.options import Options
from denizen.raft.types import NodeId

LATE_FACTOR = 150


class Network:
    """Says when each copy of a message arrives, if at all."""

    def __init__(self, options: Options, rng: Random) -> None:
        self._options = options
        self._random = rng.random
        self.cut: set[tuple[NodeId, NodeId]] = set()
        """Directions in which nothing passes."""
        self.calm = False

    def arrivals(self, message: Message) -> tuple[int, ...]:
        """The delays of the copies that arrive, in microseconds."""
        options = self._options
        if (message.sender, message.to) in self.cut:
            return ()
        if self.calm:
            return (min(options.delay_us // 2, 1_000),)
        if options.loss and self._random() < options.loss:
            return ()
        if options.duplication and self._random() < options.duplication:
            return (self._delay(), self._delay())
        return (self._delay(),)

    def open(self, message: Message) -> bool:
        """Whether a message that is on its way gets through at the moment it arrives."""
        return (message.sender, message.to) not in self.cut

    def _delay(self) -> int:
        options = self._options
        delay = 50 + int(self._random() * options.delay_us)
        if options.late and self._random() < options.late:
            delay = 50 + int(self._random() * max(options.delay_us, 1_000) * LATE_FACTOR)
        return delay

    def partition(self, one: list[NodeId], other: list[NodeId], *, one_way: bool = False) -> None:
        """Cut all links from one side to the other, and back unless `one_way`."""
        for a in one:
            for b in other:
                self.cut.add((a, b))
                if not one_way:
                    self.cut.add((b, a))
