"""The gateway process: one loop, on which connections, the user service and its lanes all run.

    start   service → password threads → access log → listen
    stop    readiness off → no new connections → requests under way finish (`drain_s`) → log → threads → service

SIGTERM and SIGINT stop; a second one stops at once. One process is one loop; more gateways are more processes.
"""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog
import uvloop

from denizen.bus.settings import BusSettings
from denizen.changes import Hub
from denizen.collecting import calm_the_collector
from denizen.deployment.control_access import map_source_of
from denizen.deployment.layout import Deployment
from denizen.deployment.process_metrics import ProcessMetrics
from denizen.deployment.replaying import Runs
from denizen.http.access_log import AccessLog
from denizen.http.gateway import Gateway
from denizen.http.idempotency import RecentKeys
from denizen.http.limiter import Limiter
from denizen.http.listener import Listener
from denizen.http.metrics import GatewayMetrics
from denizen.http.passwords import PasswordPool
from denizen.http.services import Services
from denizen.http.views import encoded_change
from denizen.limits import drain_s
from denizen.logs import configure_logs
from denizen.operators.desk import Desk
from denizen.operators.opening import desk_of
from denizen.projections.control import Control
from denizen.projections.reading import ReadModels
from denizen.service.gateway import Gateway as Engine
from denizen.users.login_names import LoginNameKind

_log = structlog.get_logger()


def serve(deployment: Deployment, host: str, port: int) -> None:
    """Serve this deployment until a signal asks to stop."""
    configure_logs()
    uvloop.run(_serve(deployment, host, port))


async def _serve(deployment: Deployment, host: str, port: int) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _asked_to_stop, stop)
    async with (
        engine_of(deployment) as engine,
        ReadModels(deployment.read_connect_args) as reads,
        listening(
            engine,
            host,
            port,
            reads=reads,
            bus=deployment.bus,
            runs=Runs(deployment),
            process_metrics=ProcessMetrics(deployment),
            desk=desk_of(deployment),
            log=True,
        ) as services,
    ):
        calm_the_collector()
        _log.info("gateway_ready", address=services.address, deployment=str(deployment.id))
        await stop.wait()
        _log.info("gateway_stopping")
    _log.info("gateway_stopped")


def _asked_to_stop(stop: asyncio.Event) -> None:
    if stop.is_set():  # asked again: whoever asks does not want to wait
        sys.exit(1)
    stop.set()


def engine_of(deployment: Deployment) -> Engine:
    """The engine that serves this deployment's users; not started."""
    deployment.use_keyring()
    return Engine(
        deployment.places,
        map_source_of(deployment),
        deployment.hash_seed,
        frozenset(LoginNameKind.from_word(word) for word in deployment.login_names),
        bus=deployment.bus,
    )


@asynccontextmanager
async def listening(
    engine: Engine,
    host: str,
    port: int,
    *,
    reads: ReadModels | None = None,
    bus: BusSettings | None = None,
    runs: Runs | None = None,
    process_metrics: ProcessMetrics | None = None,
    desk: Desk | None = None,
    log: bool = False,
) -> AsyncIterator[Services]:
    """Serve a started engine over HTTP for the length of the block; at its end requests under way are finished.

    `reads` are the read models; whoever gives them starts and stops them. With a `bus`, changes come over it,
    and with a `desk` operators are served.
    """
    metrics = GatewayMetrics()
    changes = Hub(bus, engine.router, encoded_change, engine.router.hash_seed)
    services = Services(
        engine.users, engine.keys, PasswordPool(), Limiter(), RecentKeys(), metrics, reads, changes, desk=desk
    )
    services.control = None if reads is None else Control(reads.connect_args, engine.router)
    services.runs, services.process_metrics = runs, process_metrics
    services.erasures, services.bus = engine.erasures, bus
    access_log = AccessLog(_write_line, metrics.log_lines_lost.inc) if log else None
    listener = Listener(Gateway(services, access_log).answer, host, port)
    services.address = listener.address
    await services.passwords.start()
    if access_log is not None:
        access_log.start()
    try:
        listener.start()
        yield services
    finally:
        services.stopping = True
        await changes.stop()  # streams end, so that nothing keeps us from finishing
        if not await listener.stop(drain_s):
            _log.warning("requests_cut_off", drain_s=drain_s)
        if runs is not None:
            await runs.stop()
        if access_log is not None:
            await access_log.stop()
        services.passwords.stop()


def _write_line(lines: bytes) -> None:
    sys.stderr.buffer.write(lines)
    sys.stderr.buffer.flush()
