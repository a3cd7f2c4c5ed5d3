"""State machines for the simulation, and the workloads that drive them.

A run takes any pair: a machine as users write it (`apply`, `snapshot`, `restore`) and a workload that makes commands
and judges results. The ledger of committed commands is the same for all nodes, so a workload's `expect` is called once
per committed command, in order, and says what the result must have been; what a client is told has to be that.
"""

from random import Random
from typing import Any, Protocol

from msgspec import Struct
from msgspec.msgpack import Decoder, Encoder


class Machine(Protocol):
    """The replicated state of one node."""

    def apply(self, index: int, command: bytes) -> Any: ...

    def snapshot(self) -> bytes: ...

    def restore(self, snapshot: bytes) -> None: ...


class Workload(Protocol):
    """Makes commands for clients, and knows what each must result in."""

    def command(self, rng: Random, client: int, number: int) -> bytes:
        """The command of a client's request `number`; a repeated request is the same bytes again."""

    def expect(self, index: int, command: bytes) -> Any:
        """The result of the next committed command. A repeated request must give the first result and change
        nothing.
        """


class Add(Struct, array_like=True, frozen=True):
    """Add one to the counter `key`; request `number` of `client`."""

    client: int
    number: int
    key: int


_encode = Encoder().encode
_decode_add = Decoder(Add).decode
_decode_state = Decoder(tuple[dict[int, int], dict[int, tuple[int, int]]]).decode


class Counters:
    """Counters with client sessions: the last request of each client and its result are part of the state."""

    def __init__(self) -> None:
        self._counters: dict[int, int] = {}
        self._sessions: dict[int, tuple[int, int]] = {}

    def apply(self, index: int, command: bytes) -> int:
        """Add, unless this request was applied before: then give the result of then."""
        add = _decode_add(command)
        number, result = self._sessions.get(add.client, (0, 0))
        if add.number > number:
            result = self._counters[add.key] = self._counters.get(add.key, 0) + 1
            self._sessions[add.client] = (add.number, result)
        return result

    def snapshot(self) -> bytes:
        """Everything, in an order that does not depend on history."""
        return _encode((dict(sorted(self._counters.items())), dict(sorted(self._sessions.items()))))

    def restore(self, snapshot: bytes) -> None:
        """The inverse."""
        self._counters, self._sessions = _decode_state(snapshot)


class AddWorkload:
    """Clients that add to a few counters. Knows the results by counting the first occurrence of each request."""

    def __init__(self) -> None:
        self._counters: dict[int, int] = {}
        self._results: dict[tuple[int, int], int] = {}

    def command(self, rng: Random, client: int, number: int) -> bytes:
        """Add to one of three counters."""
        return _encode(Add(client, number, rng.randrange(3)))

    def expect(self, index: int, command: bytes) -> int:
        """Count it, the first time it is seen."""
        add = _decode_add(command)
        request = (add.client, add.number)
        if request not in self._results:
            self._results[request] = self._counters[add.key] = self._counters.get(add.key, 0) + 1
        return self._results[request]
