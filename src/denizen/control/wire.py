"""What a control node and its clients agree on: keys, paths, shapes, and a small HTTP request.

One secret of the deployment makes two keys: what nodes prove to each other, and what clients show. Commands, states
and maps travel as MessagePack, in the encodings that the log uses; what people may want to look at with `curl` is JSON.
"""

import asyncio
import hashlib
import hmac
from typing import Final

from msgspec import Struct

from denizen import limits
from denizen.errors import Unavailable
from denizen.sharding.ids import ShardId

STATE: Final = "/v1/state"
WATCH: Final = "/v1/watch"
MAP: Final = "/v1/map"
PROPOSE: Final = "/v1/propose"
STATUS: Final = "/v1/status"
PROGRESS: Final = "/v1/progress"


class NodeStatus(Struct, frozen=True, kw_only=True):
    """One control node as it sees itself; only `id`, `address` and `problem` of one that does not answer."""

    id: int
    address: str
    role: str = "down"
    term: int = 0
    leader: int | None = None
    commit: int = 0
    applied: int = 0
    revision: int = 0
    map_version: int = 0
    voters: tuple[int, ...] = ()
    unreachable: dict[int, str] = {}
    executing: bool = False  # it leads, and carries moves out
    problem: str | None = None


class MoveProgress(Struct, frozen=True, kw_only=True):
    """How far the work of one move's stage is, as the leader knows: rows done of about how many, and at which rate."""

    move: str
    stage: str
    source: ShardId
    target: ShardId
    bucket: int
    rows: int = 0
    rows_total: int = 0
    bytes: int = 0
    rows_per_s: float = 0.0
    step: str = ""  # what is being done on the servers
    seconds: float = 0.0  # in this stage
    held_ms: float = 0.0  # for how long writes have been held, if they are
    trouble: str | None = None  # why the last try failed, while it is tried again


class Problem(Struct, frozen=True):
    """The body of an answer that is none: a stable code and a sentence."""

    code: str
    detail: str


def raft_secret(secret: bytes) -> bytes:
    """What the nodes prove to each other; clients do not know it."""
    return hmac.new(secret, b"denizen control plane: nodes", hashlib.sha256).digest()


def client_token(secret: bytes) -> str:
    """What clients show; who has it cannot speak as a node."""
    return hmac.new(secret, b"denizen control plane: clients", hashlib.sha256).hexdigest()


class Answer(Struct, frozen=True):
    """An HTTP response: its status and its body."""

    status: int
    body: bytes


async def request(
    address: str,
    method: str,
    target: str,
    token: str,
    body: bytes = b"",
    *,
    timeout_s: float = limits.control_request_s,
) -> Answer:
    """Ask one node once. `Unavailable` if it does not answer in time, or not in a way that is understood."""
    host, _, port = address.rpartition(":")
    try:
        async with asyncio.timeout(timeout_s):
            async with asyncio.timeout(limits.control_connect_s):
                reader, writer = await asyncio.open_connection(host.strip("[]"), int(port))
            try:
                writer.write(
                    f"{method} {target} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {token}\r\n"
                    f"Connection: close\r\nContent-Length: {len(body)}\r\n\r\n".encode()
                    + body
                )
                return await _answer(reader)
            finally:
                writer.close()
    except (OSError, TimeoutError, EOFError, ValueError) as error:
        raise Unavailable(f"control node {address} does not answer: {error or type(error).__name__}") from error


async def _answer(reader: asyncio.StreamReader) -> Answer:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in head[1:] if ": " in line)
    length = int(headers["content-length"]) if "content-length" in headers else 0
    if length > limits.control_answer_bytes_max:
        raise ValueError(f"an answer of {length} bytes")
    return Answer(int(head[0].split(" ")[1]), await reader.readexactly(length))
