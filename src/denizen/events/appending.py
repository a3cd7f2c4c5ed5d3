"""Group append: many commands, one statement, one commit.

Everything a write must hold (fence, expected versions, idempotency, unique login names, dense sequences, state with its
events) is enforced inside the statement by the function `denizen.append` (postgres/migrations). Repeating a group after
a broken connection is safe: what was done is recognised by its command id and answered as `REPEATED`.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final
from uuid import UUID

import asyncpg
from msgspec import Struct

from denizen import limits
from denizen.errors import DenizenError, OutcomeUnknown
from denizen.events.codec import codec
from denizen.events.records import RESULTS, Append, Outcome, encode_state
from denizen.invariants import invariant
from denizen.sharding.ids import Epoch

_APPEND: Final = (
    "select outcome, stream, version, sequence, recorded_at from denizen.append("
    "$1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21) order by ordinal"
)


class Write(Struct, frozen=True, gc=False):
    """An append and the epoch at which the writer believes its bucket to be owned."""

    append: Append
    epoch: Epoch


Appended = Callable[[Sequence[Write], Sequence[Outcome]], None]


class AppendWork:
    """How a lane performs a group of writes; see `lanes.Work`."""

    group_max = limits.append_group_commands_max
    deadline_s = limits.append_deadline_s

    def __init__(self, appended: Appended | None = None) -> None:
        """`appended` is called after each group with its writes and outcomes; it must neither wait nor fail."""
        self._appended = appended

    def keys(self, request: Write) -> tuple[object, ...]:
        """Two commands on one stream, login name or idempotency key never share a group."""
        append = request.append
        names = [action.name for action in append.names]
        return (append.stream, *names) if append.key is None else (append.stream, append.key, *names)

    async def perform(self, connection: asyncpg.Connection, requests: Sequence[Write]) -> list[Outcome]:
        """Append the group in one statement, which is one transaction."""
        rows = await connection.fetch(_APPEND, *columns_of(requests))
        invariant(len(rows) == len(requests), "every append has an outcome", sent=len(requests), got=len(rows))
        outcomes = [
            Outcome(RESULTS[outcome], stream, version, sequence or 0, recorded_at)
            for outcome, stream, version, sequence, recorded_at in rows
        ]
        if self._appended is not None:
            self._appended(requests, outcomes)
        return outcomes

    def doubt(self, cause: BaseException) -> DenizenError:
        """The connection broke after the group was sent, and the server did not come back in time."""
        return OutcomeUnknown(
            "the shard broke off while it was writing: the change may or may not have happened; "
            "repeat it with the same idempotency key to learn which"
        )


def columns_of(writes: Sequence[Write]) -> tuple[list[Any], ...]:
    """The arguments of `denizen.append`: arrays of commands, of their events, of their changes of login names."""
    commands: list[tuple[Any, ...]] = []
    events: list[tuple[Any, ...]] = []
    names: list[tuple[Any, ...]] = []
    for ordinal, write in enumerate(writes, 1):
        append = write.append
        state = append.state
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
            )
        )
        events.extend((ordinal, *_encoded(event, append.actor, append.correlation_id)) for event in append.events)
        for action in append.names:
            name = action.name
            names.append((ordinal, action.action, name.kind.value, name.value, action.user_id, action.reservation))
    columns = _transposed(commands, 9)
    if not any(columns[5]):
        columns[5] = columns[6] = []
    return (*columns, *_transposed(events, 6), *_transposed(names, 6))


def _encoded(event: Any, actor: str, correlation_id: UUID | None) -> tuple[int, int, str, UUID | None, bytes]:
    number, schema, data = codec.encode(event)
    return number, schema, actor, correlation_id, data


def _transposed(rows: list[tuple[Any, ...]], width: int) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)] if rows else [[] for _ in range(width)]
