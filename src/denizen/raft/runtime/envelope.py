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


class SessionRequest(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One request of a session. Repeating a command with the same request applies it once.

    `settled`: the client has the answers of all its requests below this number, so they need not be kept for it.
    """

    session: int
    number: int
    settled: int


_REQUEST = Struct(">BQQQ")
REQUEST_BYTES = _REQUEST.size
ENVELOPE_BYTES_MAX = _REQUEST.size
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
