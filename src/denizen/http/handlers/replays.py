"""Read models and their replays, for operators. The loading itself is a process of its own, never in this one."""

from collections.abc import Awaitable
from typing import Any, TypeVar
from uuid import UUID

from msgspec import structs

from denizen.api.read_side import (
    ChosenVersion,
    Comparison,
    NewRun,
    ParkedStream,
    ProjectionList,
    Promotion,
    ReplayDocument,
    ReplayList,
    ReplayPlan,
    RowDifference,
    VersionDocument,
    VersionDone,
)
from denizen.errors import BadDeployment, Unavailable
from denizen.http.refusals import ProjectionNotFound, ReplayRefused
from denizen.http.replies import Reply, empty_reply, json_reply
from denizen.http.requests import Request, as_document
from denizen.http.services import Services
from denizen.http.views import event_document
from denizen.limits import replay_workers_max
from denizen.projections.catalogue import UnknownProjection, projection_of
from denizen.projections.control import Control, Verified
from denizen.projections.registry import Parked
from denizen.projections.replay.work import Replay
from denizen.sharding.ids import Bucket, Position, Sequence

T = TypeVar("T")


async def list_projections(services: Services, request: Request) -> Reply:
    """GET /v1/projections"""
    versions, parked = await _answered(_control(services).overview())
    documents = [VersionDocument(*structs.astuple(each)) for each in versions]
    return json_reply(ProjectionList(documents, [parked_stream(each) for each in parked]))


async def pause_projection(services: Services, request: Request) -> Reply:
    """POST /v1/projections/{projection}:pause"""
    return await _set_paused(services, request, paused=True)


async def resume_projection(services: Services, request: Request) -> Reply:
    """POST /v1/projections/{projection}:resume"""
    return await _set_paused(services, request, paused=False)


async def retry_parked(services: Services, request: Request) -> Reply:
    """POST /v1/projections/{projection}/parked/{id}:retry"""
    return await _wish(services, request, "retry")


async def skip_parked(services: Services, request: Request) -> Reply:
    """POST /v1/projections/{projection}/parked/{id}:skip"""
    return await _wish(services, request, "skip")


async def list_replays(services: Services, request: Request) -> Reply:
    """GET /v1/replays"""
    replays, _ = await _answered(_control(services).status())
    return json_reply(ReplayList([replay_document(each) for each in replays]))


async def plan_replay(services: Services, request: Request) -> Reply:
    """GET /v1/replays/{projection}:plan"""
    workers = request.integer("workers", 0, 1, replay_workers_max) or None
    found = await _answered(_control(services).plan(_name(request), workers))
    return json_reply(ReplayPlan(*structs.astuple(found)))


async def run_replay(services: Services, request: Request) -> Reply:
    """POST /v1/replays/{projection}:run"""
    return await _start(services, request, waiting=False)


async def resume_replay(services: Services, request: Request) -> Reply:
    """POST /v1/replays/{projection}:resume"""
    return await _start(services, request, waiting=True)


async def pause_replay(services: Services, request: Request) -> Reply:
    """POST /v1/replays/{projection}:pause"""
    await _answered(_control(services).pause(_name(request)))
    return empty_reply()


async def cancel_replay(services: Services, request: Request) -> Reply:
    """POST /v1/replays/{projection}:cancel"""
    name = request.params["projection"]  # which may be of a package that is gone
    chosen = as_document(await request.optional_body(), ChosenVersion)
    return json_reply(VersionDone(name, await _answered(_control(services).cancel(name, chosen.version))))


async def verify_replay(services: Services, request: Request) -> Reply:
    """POST /v1/replays/{projection}:verify"""
    name, chosen = _name(request), as_document(await request.optional_body(), ChosenVersion)
    return json_reply(_comparison(name, await _answered(_control(services).verify(name, chosen.version))))


async def promote_replay(services: Services, request: Request) -> Reply:
    """POST /v1/replays/{projection}:promote"""
    name, asked = _name(request), as_document(await request.optional_body(), Promotion)
    done = await _answered(_control(services).promote(name, asked.version, unverified=asked.unverified))
    return json_reply(VersionDone(name, done))


async def roll_back_replay(services: Services, request: Request) -> Reply:
    """POST /v1/replays/{projection}:rollback"""
    name = _name(request)
    return json_reply(VersionDone(name, await _answered(_control(services).rollback(name))))


def parked_stream(parked: Parked) -> ParkedStream:
    """The parked stream as the API shows it."""
    position = Position(Bucket(parked.bucket), Sequence(parked.sequence)).token()
    wish: Any = parked.wish
    return ParkedStream(
        parked.projection,
        parked.version,
        parked.stream,
        parked.stream_version,
        position,
        parked.type,
        parked.error,
        parked.attempts,
        parked.parked_at,
        wish,
    )


def replay_document(replay: Replay) -> ReplayDocument:
    """The replay as the API shows it."""
    state: Any = replay.state
    return ReplayDocument(
        projection=replay.projection,
        version=replay.version,
        state=state,
        live=replay.live,
        progress=round(replay.parts_done / replay.parts, 4) if replay.parts else 1.0,
        events=replay.events,
        events_done=replay.events_done,
        rows=replay.rows,
        parts=replay.parts,
        parts_done=replay.parts_done,
        events_per_s=replay.events_per_s,
        eta_s=replay.eta_s,
        started_at=replay.started_at,
        loaded_at=replay.loaded_at,
        indexed_at=replay.indexed_at,
        verified_at=replay.verified_at,
        error=replay.error,
    )


def _comparison(name: str, found: Verified) -> Comparison:
    verdict = found.verdict
    differences = [
        RowDifference(each.table, list(each.key), each.user_id, each.one, each.other) for each in verdict.differences
    ]
    events = {str(user): [event_document(each) for each in history] for user, history in found.events.items()}
    return Comparison(
        name, found.version, found.live, verdict.equal, differences, verdict.undecided, verdict.whole, events
    )


async def _start(services: Services, request: Request, *, waiting: bool) -> Reply:
    name, asked = _name(request), as_document(await request.optional_body(), NewRun)
    if services.runs is None:
        raise ReplayRefused("this gateway has no data directory to run a replay from: `denizen replay run` does it")
    replay = await _answered(services.runs.start(_control(services), name, asked.workers, waiting=waiting))
    return json_reply(replay_document(replay), 202)


async def _set_paused(services: Services, request: Request, *, paused: bool) -> Reply:
    name = _name(request)
    if not await _answered(_control(services).set_paused(name, paused=paused)):
        raise ReplayRefused(f"{name} has no version that could be {'paused' if paused else 'resumed'}")
    return empty_reply()


async def _wish(services: Services, request: Request, what: str) -> Reply:
    stream: UUID = request.user_id()
    if not await _answered(_control(services).wish(_name(request), stream, what)):
        raise ReplayRefused("this user's stream is not parked")
    return empty_reply()


def _name(request: Request) -> str:
    try:
        return projection_of(request.params["projection"]).name
    except UnknownProjection as error:
        raise ProjectionNotFound(error.detail) from error


def _control(services: Services) -> Control:
    if services.control is None:
        raise Unavailable("this deployment runs without read models")
    return services.control


async def _answered(work: Awaitable[T]) -> T:
    """What is not possible as things are is the caller's to know, not our fault."""
    try:
        return await work
    except UnknownProjection as error:
        raise ProjectionNotFound(error.detail) from error
    except BadDeployment as error:
        raise ReplayRefused(error.detail) from error
