"""Client sessions: a request repeated by its client is applied once.

A session remembers the sequence number and the answer of its last operation. A client raises the number with each new
operation and keeps it when it repeats one. Sessions are opened by a command, so that a session that was pushed out by
newer ones is known to be lost instead of being taken for a fresh one (Ongaro's thesis, section 6.3).
"""

from msgspec import Struct

from denizen.raft.kv.limits import SESSIONS_MAX
from denizen.raft.kv.model import DeleteResult, PutResult, RangeResult, Refusal, Result, TxnResult

ANSWER_BYTES_KEPT_MAX = 4 * 1024


class Session(Struct, frozen=True, array_like=True):
    id: int
    sequence: int
    answer: Result | None


class Sessions:
    """All open sessions, the one used least recently first."""

    def __init__(self, sessions_max: int = SESSIONS_MAX) -> None:
        self._sessions: dict[int, Session] = {}
        self._sessions_max = sessions_max

    def __len__(self) -> int:
        return len(self._sessions)

    def open(self, session: int) -> None:
        self._sessions[session] = Session(session, 0, None)
        if len(self._sessions) > self._sessions_max:
            del self._sessions[next(iter(self._sessions))]

    def close(self, session: int) -> None:
        self._sessions.pop(session, None)

    def answered(self, session_id: int, sequence: int, revision: int) -> Result | None:
        """Return the answer of a request that must not be applied (again), or None: apply it."""
        session = self._sessions.get(session_id)
        if session is None:
            return Refusal(
                revision,
                "lost_session",
                f"session {session_id} is not open; whether earlier tries of this request were applied cannot be told: "
                "read the keys to see, then open a new session",
            )
        if sequence > session.sequence:
            return None
        if sequence == session.sequence and session.answer is not None:
            return session.answer
        return Refusal(
            revision,
            "stale_sequence",
            f"session {session_id} is at sequence {session.sequence}: sequence numbers rise with each new request",
        )

    def remember(self, session: int, sequence: int, answer: Result) -> None:
        """Keep the answer of a request that was applied, and make its session the most recently used."""
        del self._sessions[session]
        if _weight(answer) > ANSWER_BYTES_KEPT_MAX:
            answer = Refusal(
                answer.revision,
                "answer_not_kept",
                f"the request was applied once, at revision {answer.revision}; its answer was too large to keep",
            )
        self._sessions[session] = Session(session, sequence, answer)

    def dump(self) -> tuple[Session, ...]:
        return tuple(self._sessions.values())

    def load(self, sessions: tuple[Session, ...]) -> None:
        self._sessions = {session.id: session for session in sessions}


def _weight(answer: Result) -> int:
    """Return about how many bytes an answer holds."""
    if isinstance(answer, PutResult):
        return 0 if answer.previous is None else len(answer.previous.value)
    if isinstance(answer, DeleteResult):
        return sum(len(kv.key) + len(kv.value) + 50 for kv in answer.previous)
    if isinstance(answer, RangeResult):
        return sum(len(kv.key) + len(kv.value) + 50 for kv in answer.kvs)
    if isinstance(answer, TxnResult):
        return sum(50 + _weight(result) for result in answer.results)
    return 0
