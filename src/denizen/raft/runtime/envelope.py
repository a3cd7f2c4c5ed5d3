"""What a command's entry holds: one byte that says who it is for, then the rest.

Besides the user's commands the runtime replicates a little state of its own by the same log: client sessions and the
addresses of members.
"""

from enum import IntEnum
from struct import Struct

import msgspec

from denizen.raft.messages import MalformedMessage


class Envelope(IntEnum):
    """The first byte of a command's entry."""

    COMMAND = 0
    SESSION_COMMAND = 1
    OPEN_SESSION = 2
    ADDRESS = 3
    CHANGE = 4
    """Never an entry: a membership change or transfer on its way to the leader."""


class ChangeKind(IntEnum):
    """What a CHANGE asks for."""

    ADD_LEARNER = 1
    ADD_VOTER = 2
    REMOVE = 3
    TRANSFER = 4


class SessionRequest(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One request of a session. Repeating a command with the same request applies it once.

    `settled`: the client has the answers of all its requests below this number, so they need not be kept for it.
    """

    session: int
    number: int
    settled: int


_REQUEST = Struct(">BQQQ")
REQUEST_BYTES = _REQUEST.size
_CHANGE = Struct(">BBQ")
_PLAIN = bytes((Envelope.COMMAND,))
OPEN_SESSION = bytes((Envelope.OPEN_SESSION,))
_decode_address = msgspec.msgpack.Decoder(tuple[int, str]).decode


def wrap(command: bytes, request: SessionRequest | None = None) -> bytes:
    """The entry of a user's command."""
    if request is None:
        return _PLAIN + command
    return _REQUEST.pack(Envelope.SESSION_COMMAND, request.session, request.number, request.settled) + command


def wrap_address(node: int, address: str) -> bytes:
    """The entry that tells every node where a member listens."""
    return bytes((Envelope.ADDRESS,)) + msgspec.msgpack.encode((node, address))


def wrap_change(kind: ChangeKind, node: int) -> bytes:
    """A membership change or transfer, for the leader."""
    return _CHANGE.pack(Envelope.CHANGE, kind, node)


def change_of(data: bytes) -> tuple[ChangeKind, int]:
    """What a CHANGE asks for, and of which node (0: the leader's choice)."""
    _, kind, node = _CHANGE.unpack(data)
    return ChangeKind(kind), node


def request_of(data: bytes) -> SessionRequest:
    """The session request of a SESSION_COMMAND."""
    _, session, number, settled = _REQUEST.unpack_from(data)
    return SessionRequest(session, number, settled)


def address_of(data: bytes) -> tuple[int, str]:
    """The member and address of an ADDRESS."""
    try:
        return _decode_address(data[1:])
    except msgspec.MsgspecError as error:
        raise MalformedMessage("not an address entry") from error


def is_whole(data: bytes) -> bool:
    """Whether `Applier` can open it; what another node sends is checked before it gets into the log."""
    kind = data[0] if data else -1
    if kind == Envelope.ADDRESS:
        try:
            address_of(data)
        except MalformedMessage:
            return False
        return True
    if kind == Envelope.CHANGE:
        return len(data) == _CHANGE.size and data[1] in _CHANGES
    return kind in _KINDS and (kind != Envelope.SESSION_COMMAND or len(data) >= REQUEST_BYTES)


_KINDS = frozenset(Envelope)
_CHANGES = frozenset(ChangeKind)
