"""Group append: many commands, one statement, one commit.

Everything a write must hold (fence, expected versions, idempotency, unique login names, dense sequences, state with its
events) is enforced inside the statement by the function `denizen.append` (postgres/migrations). Repeating a group after
a broken connection is safe: what was done is recognised by its command id and answered as `REPEATED`.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final
from uuid import UUID

import asyncpg
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from msgspec import Struct

from denizen import limits
from denizen.errors import DenizenError, OutcomeUnknown
from denizen.events.codec import codec
from denizen.events.login_name_events import LoginNameReserved
from denizen.events.records import NO_STREAM, RESULTS, Append, Outcome, encode_state
from denizen.events.sealing import cipher_to_seal_with, new_key, seal, seal_name
from denizen.invariants import invariant
from denizen.recent import Recent
from denizen.sharding.ids import Epoch

_ARGUMENTS: Final = ", ".join(f"${number}" for number in range(1, 23))
_APPEND: Final = (
    f"select outcome, stream, version, sequence, recorded_at from denizen.append({_ARGUMENTS}) order by ordinal"  # noqa: S608
)
_SECRETS: Final = "select stream, secret from denizen.events where stream = any ($1) and version = 1"


class Write(Struct, frozen=True, gc=False):
    """An append and the epoch at which the writer believes its bucket to be owned."""

    append: Append
    epoch: Epoch


Appended = Callable[[Sequence[Write], Sequence[Outcome]], None]

# Of streams that were written to lately, so that not every change must ask for its stream's secret first. A stream's
# key is the same for its whole life, so none is ever out of date; that a user was erased is noticed by the version.
Ciphers = Recent[UUID, AESGCM]


class AppendWork:
    """How a lane performs a group of writes; see `lanes.Work`."""

    group_max = limits.append_group_commands_max
    deadline_s = limits.append_deadline_s

    def __init__(self, appended: Appended | None = None) -> None:
        """`appended` is called after each group with its writes and outcomes; it must neither wait nor fail."""
        self._appended = appended
        self._ciphers = Ciphers(limits.stream_ciphers_max)

    def keys(self, request: Write) -> tuple[object, ...]:
        """Two commands on one stream, login name or idempotency key never share a group."""
        append = request.append
        names = [action.name for action in append.names]
        return (append.stream, *names) if append.key is None else (append.stream, append.key, *names)

    async def perform(self, connection: asyncpg.Connection, requests: Sequence[Write]) -> list[Outcome]:
        """Append the group in one statement, which is one transaction."""
        await self._learn_keys(connection, requests)
        rows = await connection.fetch(_APPEND, *columns_of(requests, self._ciphers))
        invariant(len(rows) == len(requests), "every append has an outcome", sent=len(requests), got=len(rows))
        outcomes = [
            Outcome(RESULTS[outcome], stream, version, sequence or 0, recorded_at)
            for outcome, stream, version, sequence, recorded_at in rows
        ]
        if self._appended is not None:
            self._appended(requests, outcomes)
        return outcomes

    async def _learn_keys(self, connection: asyncpg.Connection, requests: Sequence[Write]) -> None:
        """Ask for the keys of users that are about to change, unless they were changed a moment ago."""
        streams = [each.append.stream for each in requests if each.append.expected > 0 and _seals(each.append)]
        unknown = [stream for stream in streams if self._ciphers.get(stream) is None]
        if unknown:
            found = {stream: secret for stream, secret in await connection.fetch(_SECRETS, unknown)}  # noqa: C416
            for stream in unknown:
                self._ciphers.put(stream, cipher_to_seal_with(stream.bytes, found.get(stream)))

    def doubt(self, cause: BaseException) -> DenizenError:
        """The connection broke after the group was sent, and the server did not come back in time."""
        return OutcomeUnknown(
            "the shard broke off while it was writing: the change may or may not have happened; "
            "repeat it with the same idempotency key to learn which"
        )


def columns_of(writes: Sequence[Write], ciphers: Ciphers) -> tuple[list[Any], ...]:
    """The arguments of `denizen.append`: arrays of commands, of their events, of their changes of login names."""
    commands: list[tuple[Any, ...]] = []
    events: list[tuple[Any, ...]] = []
    names: list[tuple[Any, ...]] = []
    for ordinal, write in enumerate(writes, 1):
        append = write.append
        state = append.state
        secret, encoded = _encoded(append, ciphers)
        commands.append(
            (
                append.bucket,
                write.epoch,
                append.stream,
                append.expected,
                append.command_id,
                append.key,
                append.fingerprint,
                None if state is None else state.status.value,
                None if state is None else encode_state(state),
                secret,
            )
        )
        events.extend(
            (ordinal, number, schema, append.actor, append.correlation_id, data) for number, schema, data in encoded
        )
        for action in append.names:
            name = action.name
            names.append((ordinal, action.action, name.kind.value, name.value, action.user_id, action.reservation))
    columns = _transposed(commands, 10)
    if not any(columns[5]):
        columns[5] = columns[6] = []
    return (*columns, *_transposed(events, 6), *_transposed(names, 6))


def _seals(append: Append) -> bool:
    return any(codec.seals(event) for event in append.events)


def _encoded(append: Append, ciphers: Ciphers) -> tuple[bytes | None, list[tuple[int, int, bytes]]]:
    """The stream's secret, if this append makes it; type, schema version and data of each event, as they are stored."""
    stream = append.stream.bytes
    first = append.events[0] if append.events else None
    if isinstance(first, LoginNameReserved):
        bare = LoginNameReserved(first.kind, first.user_id, first.reservation)
        return seal_name(stream, first.value or ""), [codec.encode(bare)]
    secret = cipher = None
    encoded = []
    for version, event in enumerate(append.events, append.expected + 1):
        number, schema, data = codec.encode(event)
        if codec.seals(event):
            if cipher is None:
                invariant(append.expected >= 0, "what is sealed is bound to its version", stream=append.stream)
                if append.expected == NO_STREAM:
                    secret, cipher = new_key(stream)
                else:
                    cipher = ciphers.get(append.stream)
            if cipher is None:
                raise KeyError(f"the key of stream {append.stream} was not asked for")
            data = seal(cipher, stream, version, number, schema, data)
        encoded.append((number, schema, data))
    return secret, encoded


def _transposed(rows: list[tuple[Any, ...]], width: int) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)] if rows else [[] for _ in range(width)]
