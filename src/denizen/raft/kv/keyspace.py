"""The keys of the store with a bounded past: current values, and the changes that led to them.

The present is a dict and an ordered set of its keys. The past is a list of the events of each revision after
`compacted`. A read of an old revision starts from the present and takes the later events back, newest first; a watch
reads the list forward. So a change costs the same whether anybody looks at the past or not.
"""

from collections.abc import Iterator, Sequence

from denizen.raft.kv.limits import HISTORY_BYTES_MAX, HISTORY_EVENTS_MAX, HISTORY_SLACK_PERCENT
from denizen.raft.kv.model import NO_END, Event, KeyValue
from denizen.raft.kv.sorted_keys import SortedKeys, in_range

FIRST_REVISION = 1  # of the empty store
_EVENT_OVERHEAD_BYTES = 250


class Keyspace:
    """All keys at the present `revision`, and the events of the revisions `compacted + 1 … revision`.

    `put` and `delete` belong to the revision after the present one, which `commit` makes the present one. A key may
    change once in a revision.
    """

    def __init__(
        self, history_events_max: int = HISTORY_EVENTS_MAX, history_bytes_max: int = HISTORY_BYTES_MAX
    ) -> None:
        self.revision = FIRST_REVISION
        self.compacted = 0
        self.current: dict[bytes, KeyValue] = {}
        self._keys = SortedKeys()
        self._history: list[tuple[Event, ...]] = [()]
        self._history_events = 0
        self._history_bytes = 0
        self._history_events_max = history_events_max
        self._history_bytes_max = history_bytes_max
        self._pending: list[Event] = []

    @property
    def is_changing(self) -> bool:
        """Tell whether the coming revision has changes already."""
        return bool(self._pending)

    # --- the present -------------------------------------------------------------------------------------------------

    def put(self, key: bytes, value: bytes, lease: int) -> KeyValue | None:
        """Set a key in the coming revision; return what it was."""
        revision = self.revision + 1
        previous = self.current.get(key)
        if previous is None:
            self._keys.add(key)
            kv = KeyValue(key, revision, revision, 1, value, lease)
        else:
            kv = KeyValue(key, previous.create_revision, revision, previous.version + 1, value, lease)
        self.current[key] = kv
        self._pending.append(Event(kv, previous))
        return previous

    def delete(self, key: bytes) -> KeyValue:
        """Delete a key that exists, in the coming revision; return what it was."""
        previous = self.current.pop(key)
        self._keys.remove(key)
        self._pending.append(Event(KeyValue(key, 0, self.revision + 1, 0), previous))
        return previous

    def commit(self) -> None:
        """Make the coming revision the present one, unless nothing changed."""
        pending = self._pending
        if not pending:
            return
        self.revision += 1
        self._history.append(tuple(pending))
        self._history_events += len(pending)
        for event in pending:
            self._history_bytes += len(event.kv.key) + len(event.kv.value) + _EVENT_OVERHEAD_BYTES
        self._pending = []
        self._cut_history()

    def between(self, key: bytes, end: bytes) -> Iterator[KeyValue]:
        """Yield the present keys of a range in order."""
        current = self.current
        if end == NO_END:
            kv = current.get(key)
            return iter((kv,) if kv is not None else ())
        return map(current.__getitem__, self._keys.between(key, end))

    def count(self, key: bytes, end: bytes) -> int:
        """Count the present keys of a range, without visiting them."""
        return int(key in self.current) if end == NO_END else self._keys.count(key, end)

    # --- the past ----------------------------------------------------------------------------------------------------

    def as_of(self, revision: int, key: bytes, end: bytes) -> list[KeyValue]:
        """Return a range's keys in order as they were at `revision` (`compacted` ≤ revision ≤ the present)."""
        view = {kv.key: kv for kv in self.between(key, end)}
        for events in (self._pending, *reversed(self._history[revision - self.compacted :])):
            for event in events:
                if not in_range(event.kv.key, key, end):
                    continue
                if event.previous is None:
                    view.pop(event.kv.key, None)
                else:
                    view[event.kv.key] = event.previous
        return [view[name] for name in sorted(view)]

    def events_of(self, revision: int) -> tuple[Event, ...]:
        """Return the changes of one revision (`compacted` < revision ≤ the present)."""
        return self._history[revision - self.compacted - 1]

    def compact(self, revision: int) -> None:
        """Forget the events up to and with `revision`."""
        forgotten = self._history[: revision - self.compacted]
        for events in forgotten:
            self._history_events -= len(events)
            for event in events:
                self._history_bytes -= len(event.kv.key) + len(event.kv.value) + _EVENT_OVERHEAD_BYTES
        del self._history[: len(forgotten)]
        self.compacted = revision

    def _cut_history(self) -> None:
        slack = 100 + HISTORY_SLACK_PERCENT
        if (
            self._history_events * 100 <= self._history_events_max * slack
            and self._history_bytes * 100 <= self._history_bytes_max * slack
        ):
            return
        events, size, cut = self._history_events, self._history_bytes, 0
        for changes in self._history:
            if events <= self._history_events_max and size <= self._history_bytes_max:
                break
            cut += 1
            events -= len(changes)
            size -= sum(len(e.kv.key) + len(e.kv.value) + _EVENT_OVERHEAD_BYTES for e in changes)
        self.compact(self.compacted + cut)

    # --- whole -------------------------------------------------------------------------------------------------------

    def capture(self) -> Iterator[list[KeyValue]]:
        """Return the present keys in order, in lists; what changes later is not seen."""
        current = self.current.copy()
        return ([current[key] for key in chunk] for chunk in self._keys.capture())

    def history(self) -> list[tuple[Event, ...]]:
        return list(self._history)

    def load(self, compacted: int, keys: Sequence[KeyValue], history: Sequence[tuple[Event, ...]]) -> None:
        """Replace everything: the past begins after `compacted`, and its last revision is the present."""
        self.compacted = compacted
        self.revision = compacted + len(history)
        self.current = {kv.key: kv for kv in keys}
        self._keys = SortedKeys(self.current)
        self._history = list(history)
        self._history_events = sum(map(len, history))
        self._history_bytes = sum(
            len(event.kv.key) + len(event.kv.value) + _EVENT_OVERHEAD_BYTES for events in history for event in events
        )
        self._pending = []
