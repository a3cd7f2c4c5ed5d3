"""Erasures: erase a user, look at the certificate, list what was erased."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

from denizen.api.erasures import CertificateDocument, ErasureDocument, ErasurePage
from denizen.errors import DenizenError, Unavailable
from denizen.http.refusals import InvalidParameter
from denizen.http.replies import Reply, json_reply
from denizen.http.requests import Request
from denizen.http.search_cursors import cursor_at, place_of
from denizen.http.services import Services
from denizen.limits import page_users_default, page_users_max
from denizen.projections.reached import all_have
from denizen.service.erasures import Certificate, Erasures


async def erase_user(services: Services, request: Request) -> Reply:
    """POST /v1/users/{id}:erase"""
    certificate = await _erasures(services).erase(request.user_id(), request.context())
    return await _certificate(services, certificate)


async def get_erasure(services: Services, request: Request) -> Reply:
    """GET /v1/erasures/{id}"""
    return await _certificate(services, await _erasures(services).certificate(request.user_id()))


async def list_erasures(services: Services, request: Request) -> Reply:
    """GET /v1/erasures"""
    limit = request.integer("limit", page_users_default, 1, page_users_max)
    place = place_of(request)
    before = None if place is None else _place(*place)
    found = await _erasures(services).newest(before=before, limit=limit + 1)
    items = [ErasureDocument(each.user_id, each.erased_at, each.settled_at, each.scrubbed_at) for each in found[:limit]]
    cursor = cursor_at((items[-1].erased_at,), items[-1].user_id, request) if len(found) > limit else None
    return json_reply(ErasurePage(items, cursor))


async def _certificate(services: Services, certificate: Certificate) -> Reply:
    bus = services.bus
    queue_empty_at = None if bus is None else certificate.erased_at + timedelta(seconds=bus.retention_s)
    empty = await _read_models_empty(services, certificate)
    past = queue_empty_at is None or queue_empty_at < datetime.now(UTC)
    document = CertificateDocument(
        certificate.user_id,
        certificate.erased_at,
        certificate.actor,
        certificate.correlation_id,
        certificate.position.token(),
        certificate.events,
        certificate.login_names,
        certificate.settled_at,
        empty,
        queue_empty_at,
        certificate.scrubbed_at,
        None not in (certificate.settled_at, certificate.scrubbed_at) and bool(empty) and past,
    )
    return json_reply(document)


async def _read_models_empty(services: Services, certificate: Certificate) -> bool | None:
    if services.reads is None:
        return None
    try:
        async with services.reads.reader() as connection:
            return await all_have(connection, certificate.user_id, certificate.position)
    except DenizenError:
        return None


def _erasures(services: Services) -> Erasures:
    if services.erasures is None:
        raise Unavailable("this gateway does not erase users")
    return services.erasures


def _place(key: tuple[str | datetime | int, ...], user_id: UUID) -> tuple[datetime, UUID]:
    if len(key) != 1 or not isinstance(key[0], datetime):
        raise InvalidParameter("cursor", "cursor", "`cursor` is not one that this route gave")
    return key[0], user_id
