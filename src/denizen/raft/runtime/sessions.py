"""Client sessions: a command that is repeated because its outcome was unknown is applied once (thesis, section 6.3).

A client opens a session, which is an entry of the log whose index is its id, and numbers its requests from 1. The
table here is part of the replicated state: per session it keeps the results of the requests whose answers the client
may still miss. A repeated request gets the kept result. The table is bounded: the session unused for longest (in the
log's order) goes first, and a request of a forgotten session is refused, never applied by guess.
"""

from collections import OrderedDict
from typing import Any

import msgspec

from denizen.raft import limits
from denizen.raft.errors import CommandFailed, Overloaded, RaftError, SessionExpired
from denizen.raft.runtime.envelope import SessionRequest


class Session:
    """The client's side: numbers requests and remembers which have no answer yet. Not to be shared by processes."""

    def __init__(self, id: int) -> None:
        self.id = id
        self._last = 0
        self._open: dict[int, None] = {}

    def request(self) -> SessionRequest:
        """The next request. Raises `Overloaded` when too many have no answer."""
        if len(self._open) >= limits.session_results_max:
            raise Overloaded(f"{len(self._open)} requests of session {self.id} have no answer yet")
        self._last += 1
        self._open[self._last] = None
        return SessionRequest(self.id, self._last, next(iter(self._open)))

    def settle(self, request: SessionRequest) -> None:
        """The answer of this request arrived."""
        self._open.pop(request.number, None)


class _Kept(msgspec.Struct, array_like=True):
    """What the table knows of one session: results by request number, and the number below which none are kept."""

    settled: int = 1
    results: dict[int, bytes] = {}


class SessionTable:
    """The replicated side."""

    def __init__(self) -> None:
        self._sessions: OrderedDict[int, _Kept] = OrderedDict()

    def open(self, index: int) -> int:
        """Begin the session with this id; the one unused for longest goes when there are too many."""
        self._sessions[index] = _Kept()
        if len(self._sessions) > limits.sessions_max:
            self._sessions.popitem(last=False)
        return index

    def kept_result(self, request: SessionRequest) -> Any | None:
        """The kept outcome of a repeated request, in a tuple of one; None when it is to be applied now.

        Raises `SessionExpired` when that cannot be known.
        """
        kept = self._sessions.get(request.session)
        if kept is None:
            raise SessionExpired(f"session {request.session} is not known (any more); open a new one")
        self._sessions.move_to_end(request.session)
        if request.number < kept.settled:
            raise SessionExpired(f"request {request.number} of session {request.session} was settled before")
        result = kept.results.get(request.number)
        return None if result is None else (decode_outcome(result),)

    def keep(self, request: SessionRequest, outcome: Any) -> None:
        """Remember the outcome of a request and forget what the client has settled."""
        kept = self._sessions[request.session]
        kept.settled = max(kept.settled, min(request.settled, request.number))
        kept.results[request.number] = encode_outcome(outcome)
        while len(kept.results) > limits.session_results_max:
            kept.settled = min(kept.results) + 1
            del kept.results[kept.settled - 1]
        while (oldest := next(iter(kept.results))) < kept.settled:
            del kept.results[oldest]

    def dump(self) -> list[tuple[int, _Kept]]:
        """The table as plain data, least recently used first."""
        return list(self._sessions.items())

    def load(self, data: Any) -> None:
        """The inverse of `dump`, after its way through MessagePack."""
        self._sessions = OrderedDict(msgspec.convert(data, list[tuple[int, _Kept]]))


def encode_outcome(outcome: Any) -> bytes:
    """A result, or the error a command was refused with, as bytes."""
    if isinstance(outcome, RaftError):
        return msgspec.msgpack.encode((False, outcome.detail))
    return msgspec.msgpack.encode((True, outcome))


def decode_outcome(data: bytes) -> Any:
    """The inverse of `encode_outcome`."""
    fine, value = msgspec.msgpack.decode(data)
    return value if fine else CommandFailed(value)
