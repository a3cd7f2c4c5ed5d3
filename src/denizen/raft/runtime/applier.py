"""Applying committed entries: the user's state machine, and the little state that the runtime replicates beside it.

A snapshot holds both: `length u32 | sessions and addresses in MessagePack | the user's snapshot`.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from denizen.raft.errors import CommandFailed, RaftError
from denizen.raft.machine import StateMachine
from denizen.raft.runtime import envelope
from denizen.raft.runtime.envelope import Envelope
from denizen.raft.runtime.sessions import SessionTable
from denizen.raft.types import Entry

_LENGTH_BYTES = 4


class Applier:
    """Applies entries one by one; an outcome is a result, or a `RaftError` as a value."""

    def __init__(self, machine: StateMachine) -> None:
        self._machine = machine
        self._sessions = SessionTable()
        self.addresses: dict[int, str] = {}
        """Where members listen, as the log says."""
        self.addresses_changed = False

    def apply(self, entry: Entry) -> Any:
        """Carry out a committed COMMAND entry and return its outcome."""
        data = entry.data
        kind = data[0]
        if kind == Envelope.COMMAND:
            return self._run(entry.index, data[1:])
        if kind == Envelope.SESSION_COMMAND:
            return self._run_once(entry.index, data)
        if kind == Envelope.OPEN_SESSION:
            return self._sessions.open(entry.index)
        node, address = envelope.address_of(data)
        self.addresses[node] = address
        self.addresses_changed = True
        return None

    def snapshot(self) -> Iterable[bytes]:
        """The state now, as parts that later changes do not touch."""
        own = msgspec.msgpack.encode({"sessions": self._sessions.dump(), "addresses": self.addresses})
        users = self._machine.snapshot()
        return self._parts(own, (users,) if isinstance(users, bytes) else users)

    def restore(self, data: bytes) -> None:
        """Become the state of a snapshot."""
        end = _LENGTH_BYTES + int.from_bytes(data[:_LENGTH_BYTES], "big")
        own = msgspec.msgpack.decode(data[_LENGTH_BYTES:end], strict=False)
        self._sessions.load(own["sessions"])
        self.addresses = dict(own["addresses"])
        self.addresses_changed = True
        self._machine.restore(data[end:])

    def _run(self, index: int, command: bytes) -> Any:
        try:
            return self._machine.apply(index, command)
        except MemoryError:
            raise  # not the command's doing, so not the same on every node: this node stops
        except Exception as error:  # noqa: BLE001 - a user's state machine refuses a command by any exception
            return CommandFailed(str(error) or type(error).__name__)

    def _run_once(self, index: int, data: bytes) -> Any:
        request = envelope.request_of(data)
        try:
            kept = self._sessions.kept_result(request)
        except RaftError as error:
            return error
        if kept is not None:
            return kept[0]
        outcome = self._run(index, data[envelope.REQUEST_BYTES :])
        try:
            self._sessions.keep(request, outcome)
        except TypeError as error:
            outcome = CommandFailed(f"the result is not one that MessagePack can hold: {error}")
            self._sessions.keep(request, outcome)
        return outcome

    @staticmethod
    def _parts(own: bytes, users: Iterable[bytes]) -> Iterator[bytes]:
        yield len(own).to_bytes(_LENGTH_BYTES, "big") + own
        yield from users
