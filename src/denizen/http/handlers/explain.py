"""Why a read model's rows of a user are as they are."""

from typing import Any

import msgspec
from msgspec.structs import asdict

from denizen.api.read_side import ExplainedEvent, ExplainedRows, ExplanationDocument
from denizen.errors import Unavailable, UserNotFound
from denizen.http.handlers.directory import require_reads
from denizen.http.handlers.replays import parked_stream
from denizen.http.refusals import InvalidParameter
from denizen.http.replies import Reply, json_reply
from denizen.http.requests import Request
from denizen.http.services import Services
from denizen.http.views import event_document
from denizen.projections.catalogue import catalogue
from denizen.projections.directory.model import DIRECTORY
from denizen.projections.explaining import ExplainedTable, explain
from denizen.sharding.ids import Position, Sequence, bucket_of


async def explain_user(services: Services, request: Request) -> Reply:
    """GET /v1/users/{id}/explain"""
    user_id, reads = request.user_id(), require_reads(services)
    known = catalogue()
    name = request.query.get("projection", DIRECTORY.name)
    if name not in known:
        raise InvalidParameter("projection", "projection", f"`projection` must be one of {', '.join(sorted(known))}")
    if services.changes is None:
        raise Unavailable("this gateway cannot read events of the shards")
    async with reads.reader() as connection:
        found = await explain(connection, services.changes.shards, known[name], user_id)
    if found is None:
        raise UserNotFound("there is no user with this id")
    events = [
        ExplainedEvent(**asdict(event_document(each)), applied=number <= found.applied)
        for number, each in enumerate(found.events, 1)
    ]
    document = ExplanationDocument(
        user_id,
        found.projection,
        found.version,
        Position(bucket_of(user_id), Sequence(found.checkpoint)).token(),
        found.agrees,
        [_rows(each) for each in found.tables],
        events,
        None if found.parked is None else parked_stream(found.parked),
    )
    return json_reply(document)


def _rows(table: ExplainedTable) -> ExplainedRows:
    stored = None if table.stored is None else [_row(each) for each in table.stored]
    return ExplainedRows(table.table.name, stored, [_row(each) for each in table.expected], table.agrees)


def _row(row: Any) -> dict[str, Any]:
    return {name: _shown(value) for name, value in row._asdict().items()}


def _shown(value: Any) -> Any:
    """Documents are shown as what they hold."""
    if not isinstance(value, bytes):
        return value
    try:
        return msgspec.to_builtins(msgspec.msgpack.decode(value))
    except (msgspec.DecodeError, UnicodeDecodeError):
        return value.hex()
