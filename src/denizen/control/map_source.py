"""The bucket map as gateways and other processes get it: pushed by the control plane, cached in a file.

    control node ── long poll ──▶ newest map known ──▶ whoever waits in `newer_than`
    map.json ─────── looked at ──▶ while no control node answers

A process starts with the file when no node answers, and serves on with the last map when the control plane is gone.
Both may be old; the shards refuse what is wrong and tell where a bucket went (see `service.router`). The file is a
cache, never the truth: the supervisor writes it, and nothing is decided by it.
"""

import asyncio
from pathlib import Path

import structlog

from denizen import limits
from denizen.control.client import ControlClient
from denizen.errors import BadDeployment, DenizenError
from denizen.sharding.bucket_map import BucketMap, LocalMapSource

_log = structlog.get_logger()


class ControlMapSource:
    """A `MapSource`. One follower at a time is meant to wait in `newer_than`."""

    def __init__(self, client: ControlClient, cache: Path) -> None:
        self._client = client
        self._file = LocalMapSource(cache)
        self._newest: BucketMap | None = None
        self._lost = False
        self._followed = False

    async def current(self) -> BucketMap:
        """The newest map known here. If nobody follows it, a node is asked; if none answers, the file is looked at.

        `BadDeployment` if there is neither a file nor a node that answers.
        """
        if self._newest is None or not self._followed:
            await self._ask()
        elif self._lost:
            await self._look_at_file()
        if self._newest is None:
            raise BadDeployment("neither the control plane nor map.json tells the bucket map: start with `denizen up`")
        return self._newest

    async def newer_than(self, version: int) -> BucketMap:
        """Wait until there is a map with a higher version, from wherever it comes first."""
        self._followed = True
        try:
            while self._newest is None or self._newest.version <= version:
                try:
                    self._take(await self._client.watch_map(version))
                    self._tell(lost=False)
                except DenizenError:
                    self._tell(lost=True)
                    await asyncio.sleep(limits.control_map_retry_s)
                    await self._look_at_file()
        finally:
            self._followed = False
        return self._newest

    async def _ask(self) -> None:
        """The newest of what a node and the file say now, without waiting for a control plane that is not there."""
        await self._look_at_file()
        try:
            async with asyncio.timeout(limits.control_connect_s):
                state = await self._client.state()
        except (DenizenError, TimeoutError):
            self._lost = True
        else:
            if state.map is not None:
                self._take(state.map)

    async def _look_at_file(self) -> None:
        try:
            self._take(await self._file.current())
        except BadDeployment:
            return  # a cache may be missing

    def _take(self, found: BucketMap) -> None:
        if self._newest is None or found.version > self._newest.version:
            self._newest = found

    def _tell(self, *, lost: bool) -> None:
        if lost is not self._lost:
            _log.warning("control_plane_lost") if lost else _log.info("control_plane_found")
        self._lost = lost
