"""Runs one node as a process: until SIGTERM or SIGINT, or until the node stops itself."""

import asyncio
import gc
import signal
import sys
from collections.abc import Callable

import uvloop

from denizen.raft.errors import BadSettings, RaftError
from denizen.raft.kv.config import Config
from denizen.raft.kv.server import KeyValueServer

SWITCH_INTERVAL_S = 0.0005
"""The thread that makes the log durable must not wait Python's 5 ms for the event loop's thread to let it run."""


def run(config: Config, announce: Callable[[str], None] = print) -> int:
    """Serve a node; return the exit code: 0 if it was told to stop, 1 if it could not go on, 2 for wrong settings."""
    try:
        return uvloop.run(_serve(config, announce))
    except (RaftError, OSError) as error:
        print(f"denizen raft: {error}", file=sys.stderr)
        return 2 if isinstance(error, BadSettings) else 1


async def _serve(config: Config, announce: Callable[[str], None]) -> int:
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    server = KeyValueServer(config)
    await server.start()
    _quieten_collector()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    announce(f"node {config.id} serves {server.url}")
    ending = asyncio.create_task(server.wait_stopped())
    asked = asyncio.create_task(told.wait())
    await asyncio.wait([ending, asked], return_when=asyncio.FIRST_COMPLETED)
    asked.cancel()
    cause = ending.result() if ending.done() else None
    await server.stop()
    await ending
    if cause is not None:
        print(f"denizen raft: node {config.id} stopped: {cause}", file=sys.stderr)
    return 1 if cause is not None else 0


def _quieten_collector() -> None:
    """Nearly nothing here forms cycles: look for them seldom, and never among what lives as long as the process."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 100)
