"""The record of a run: a checksum of everything that happened, and one readable line per event when somebody reads
it.
"""

from collections.abc import Iterable
from zlib import crc32

from msgspec.msgpack import Encoder

from denizen.raft.effects import Effects
from denizen.raft.events import Event
from denizen.raft.messages import Append, AppendReply, InstallSnapshot, Message
from denizen.raft.types import NodeId

_encode = Encoder().encode


class Trace:
    """Checksum and lines of one run."""

    def __init__(self, *, keep: bool) -> None:
        self.keep = keep
        self.lines: list[str] = []
        self.checksum = 0
        self.events = 0

    def step(self, at: int, node: NodeId, events: list[Event]) -> None:
        """A node takes these in."""
        self.events += len(events) or 1
        self.checksum = crc32(_encode((at, node, events)), self.checksum)
        if self.keep:
            for event in events:
                self.lines.append(f"{at / 1000:10.3f}  n{node}  < {describe(event)}")

    def effects(self, at: int, node: NodeId, effects: Effects) -> None:
        """What the step led to, as far as it is worth a line."""
        if not self.keep:
            return
        head = f"{at / 1000:10.3f}  n{node} "
        if effects.leadership is not None:
            told = effects.leadership
            self.lines.append(
                f"{head} = {told.role.name.lower()} in term {told.term}, leader {told.leader or 'unknown'}"
            )
        if effects.configuration is not None:
            known = effects.configuration
            self.lines.append(f"{head} = voters {known.voters} outgoing {known.outgoing} learners {known.learners}")
        if effects.restore is not None:
            self.lines.append(f"{head} = restored the snapshot at {effects.restore.index}")
        if effects.apply:
            self.lines.append(f"{head} = applied {effects.apply[0].index}..{effects.apply[-1].index}")
        self.lines.extend(f"{head} = refused {refused.key}: {refused.reason}" for refused in effects.refused)

    def note(self, at: int, text: str) -> None:
        """Something that the world did."""
        self.checksum = crc32(text.encode(), self.checksum ^ at & 0xFFFFFFFF)
        if self.keep:
            self.lines.append(f"{at / 1000:10.3f}  --  {text}")


def describe(event: Event) -> str:
    """One event in a few words."""
    if isinstance(event, Append):
        entries = f" +{len(event.entries)} (t{event.entries[-1].term})" if event.entries else " heartbeat"
        after = f"after {event.prev_index}/t{event.prev_term}"
        return f"Append from n{event.sender} t{event.term} r{event.round} {after}{entries} commit {event.commit}"
    if isinstance(event, AppendReply):
        fit = f" conflict at {event.conflict}" if event.conflict else ""
        return f"AppendReply from n{event.sender} t{event.term} r{event.round} match {event.match}{fit}"
    if isinstance(event, InstallSnapshot):
        end = event.offset + len(event.data)
        return f"InstallSnapshot from n{event.sender} t{event.term} at {event.snapshot.index}: {event.offset}..{end}"
    if isinstance(event, Message):
        values = ", ".join(f"{name} {getattr(event, name)}" for name in event.__struct_fields__[2:])
        return f"{type(event).__name__} from n{event.sender}: {values}"
    return repr(event)


def tail(lines: Iterable[str], count: int) -> list[str]:
    """The last lines of a record."""
    kept = list(lines)
    return kept[-count:]
