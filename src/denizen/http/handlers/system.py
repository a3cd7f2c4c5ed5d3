"""The process itself: health, metrics, version, the API's description, and the pages of the problems."""

from functools import cache

import structlog

from denizen import __version__
from denizen.api.shapes import Health, ServiceVersion
from denizen.deployment.process_metrics import PROCESSES
from denizen.http.metrics import CONTENT_TYPE
from denizen.http.problems import CATALOGUE, problem_page
from denizen.http.refusals import InvalidParameter, ProcessNotHere, RouteNotFound
from denizen.http.replies import JSON, Reply, json_reply, text_reply
from denizen.http.requests import Request
from denizen.http.services import Services

_log = structlog.get_logger()
_LIVE = json_reply(Health("live"))
_VERSION = json_reply(ServiceVersion("denizen", __version__, "v1"))


async def live(services: Services, request: Request) -> Reply:
    """GET /health/live"""
    return _LIVE


async def ready(services: Services, request: Request) -> Reply:
    """GET /health/ready"""
    if services.stopping:
        return json_reply(Health("stopping"), 503)
    shards = await services.users.ready()
    if not all(shards.values()):
        _log.warning("not_ready", shards=[shard for shard, answers in shards.items() if not answers])
        return json_reply(Health("not_ready"), 503)
    return json_reply(Health("ready"))


async def metrics(services: Services, request: Request) -> Reply:
    """GET /metrics"""
    process = request.query.get("process", "gateway")
    if process in PROCESSES:
        written = services.process_metrics.read(process) if services.process_metrics else None
        if written is None:
            raise ProcessNotHere(f"no {process} runs beside this gateway")
        return text_reply(written, CONTENT_TYPE)
    if process != "gateway":
        raise InvalidParameter("process", "process", f"`process` must be one of gateway, {', '.join(PROCESSES)}")
    services.metrics.in_flight.set(services.in_flight)
    services.metrics.password_jobs.set(services.passwords.jobs)
    return text_reply(services.metrics.render(), CONTENT_TYPE)


async def version(services: Services, request: Request) -> Reply:
    """GET /v1/version"""
    return _VERSION


async def openapi(services: Services, request: Request) -> Reply:
    """GET /v1/openapi.json"""
    return Reply(200, _description(), [("content-type", JSON)])


@cache
def _description() -> bytes:
    from denizen.http.openapi import description_json  # it is made from the table of routes, which names this handler

    return description_json()


async def problem(services: Services, request: Request) -> Reply:
    """GET /problems/{code}"""
    kind = CATALOGUE.get(request.params["code"])
    if kind is None:
        raise RouteNotFound("there is no problem with this code")
    return text_reply(problem_page(kind))
