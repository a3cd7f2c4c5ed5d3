"""A follower sends its callers' commands to the leader and gets their outcomes back.

    requests: 0x02 | [[number, data], ...]          replies: 0x03 | [[number, code or None, value or detail], ...]

Numbers are the follower's own. A reply that does not come (the leader died, a link broke) leaves the outcome unknown;
a request that could not be sent was certainly not proposed.
"""

from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from denizen.raft import errors, limits
from denizen.raft.errors import NoLeader, OutcomeUnknown, Overloaded, RaftError
from denizen.raft.messages import MalformedMessage
from denizen.raft.runtime.envelope import is_whole
from denizen.raft.runtime.pending import Waiter

REQUESTS, REPLIES = b"\x02", b"\x03"

_Requests = list[tuple[int, bytes]]
_Reply = tuple[int, str | None, Any]
_Replies = list[_Reply]
_decode_requests = msgspec.msgpack.Decoder(_Requests).decode
_decode_replies = msgspec.msgpack.Decoder(_Replies).decode
_encode = msgspec.msgpack.Encoder().encode
_ERRORS: dict[str, type[RaftError]] = {
    error.code: error for error in vars(errors).values() if isinstance(error, type) and issubclass(error, RaftError)
}


class _ReplyWaiter(Waiter):
    """A caller at another node: its outcome goes into the next reply frame."""

    __slots__ = ("number", "replies")

    def __init__(self, replies: _Replies, number: int, deadline: float) -> None:
        super().__init__(deadline)
        self.replies = replies
        self.number = number

    def tell(self, outcome: Any) -> None:
        if isinstance(outcome, RaftError):
            self.replies.append((self.number, outcome.code, outcome.detail))
        else:
            self.replies.append((self.number, None, outcome))


class Forwarding:
    """Both directions: requests of this node's callers to the leader, and requests of other nodes to this one."""

    def __init__(self, send: Callable[[int, bytes], bool], requests_max: int, timeout_s: float) -> None:
        self._send = send
        self._requests_max = requests_max
        self._timeout_s = timeout_s
        self._number = 0
        self._asked: dict[int, tuple[int, Waiter]] = {}
        self._requests: dict[int, _Requests] = {}
        self._replies: dict[int, _Replies] = {}

    def ask(self, leader: int, data: bytes, waiter: Waiter) -> None:
        """Send a command to the leader with the next flush. Raises `Overloaded`."""
        if len(self._asked) >= self._requests_max:
            raise Overloaded(f"{self._requests_max} commands wait for the leader already; back off and try again")
        self._number += 1
        self._asked[self._number] = (leader, waiter)
        self._requests.setdefault(leader, []).append((self._number, data))

    def requests(self, peer: int, frame: bytes, now: float) -> list[tuple[bytes, Waiter]]:
        """The commands in a frame of requests, each with the waiter that answers it. Raises `MalformedMessage`."""
        replies = self._replies.setdefault(peer, [])
        try:
            decoded = _decode_requests(memoryview(frame)[1:])
        except msgspec.MsgspecError as error:
            raise MalformedMessage(f"not a frame of requests: {error}") from error
        if not all(is_whole(data) for _, data in decoded):
            raise MalformedMessage("a request is not a whole envelope")
        deadline = now + self._timeout_s
        return [(data, _ReplyWaiter(replies, number, deadline)) for number, data in decoded]

    def replies(self, frame: bytes) -> None:
        """Tell the callers what the leader answered. Raises `MalformedMessage`."""
        try:
            decoded = _decode_replies(memoryview(frame)[1:])
        except msgspec.MsgspecError as error:
            raise MalformedMessage(f"not a frame of replies: {error}") from error
        for number, code, value in decoded:
            asked = self._asked.pop(number, None)
            if asked is not None:
                asked[1].tell(value if code is None else _ERRORS.get(code, RaftError)(str(value)))

    def flush(self) -> None:
        """Send what gathered since the last flush, one frame a peer and direction."""
        if self._requests:
            gathered, self._requests = self._requests, {}
            for leader, requests in gathered.items():
                for part, frame in _frames(REQUESTS, requests):
                    if not self._send(leader, frame):
                        for number, _ in part:
                            self._end(number, NoLeader("the leader cannot be reached from here; try again"))
        for peer, replies in self._replies.items():
            if replies:
                for _, frame in _frames(REPLIES, [_sendable(reply) for reply in replies]):
                    self._send(peer, frame)
                replies.clear()

    def lost(self, peer: int) -> None:
        """The link to this peer broke: what it was asked has an unknown outcome."""
        for number in [number for number, (leader, _) in self._asked.items() if leader == peer]:
            self._end(number, OutcomeUnknown("the connection to the leader broke before its answer came"))

    def expire(self, now: float) -> None:
        """End what has waited too long."""
        for number in [number for number, (_, waiter) in self._asked.items() if waiter.deadline <= now]:
            self._end(number, OutcomeUnknown("the leader did not answer in time"))

    def stop(self) -> None:
        """The node stops."""
        for number in list(self._asked):
            self._end(number, OutcomeUnknown("this node stopped before the leader's answer came"))

    def _end(self, number: int, outcome: RaftError) -> None:
        asked = self._asked.pop(number, None)
        if asked is not None:
            asked[1].tell(outcome)


def _frames(kind: bytes, items: list[Any]) -> Iterator[tuple[list[Any], bytes]]:
    """The items in as few frames as the size of a frame allows, each with its items."""
    frame = kind + _encode(items)
    if len(frame) <= limits.forwarded_bytes_max or len(items) == 1:
        yield items, frame
        return
    half = len(items) // 2
    yield from _frames(kind, items[:half])
    yield from _frames(kind, items[half:])


def _sendable(reply: _Reply) -> _Reply:
    """The reply itself, or an error instead of a result that cannot be sent. The command was applied either way."""
    number, code, value = reply
    if code is not None or value is None or isinstance(value, bool | int | float):
        return reply
    try:
        size = len(value) if isinstance(value, bytes) else len(_encode(value))
    except TypeError as error:
        return number, "command_failed", f"applied, but its result cannot be sent to another node: {error}"
    if size > limits.forwarded_bytes_max:
        return number, "command_failed", f"applied, but its result of {size} bytes is too large for another node"
    return reply
