"""A deployment under measurement: who of its processes used how much, and whether its read models are level."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import asyncpg
from msgspec import Struct

from denizen.bench.cqrs.load import Target
from denizen.bench.processes import processor_seconds, processor_seconds_of_tree
from denizen.deployment.layout import READ_SERVER
from denizen.events.store import connect
from denizen.events.tailing import read_heads
from denizen.projections import registry
from denizen.projections.database import connect_writer
from denizen.testing.deployment import RunningDeployment, throwaway_deployment

PROJECTIONS = ("directory", "activity", "statistics")
CONFIGURATION = '[postgres]\nmemory = "2GB"\n'


class Used(Struct, frozen=True):
    """Seconds of processor time, by part of the deployment."""

    seconds: dict[str, float]

    def since(self, before: "Used") -> dict[str, float]:
        """What was used between the two."""
        return {part: used - before.seconds.get(part, 0.0) for part, used in self.seconds.items()}


class Plant:
    """A running deployment."""

    def __init__(self, running: RunningDeployment) -> None:
        self.running = running
        parts = urlsplit(running.url)
        self.target = Target(parts.hostname or "127.0.0.1", parts.port or 80, running.admin_key)

    def pids(self, *names: str) -> list[int]:
        """The pids of these processes of the event plane: relay, projector."""
        processes = self.running.deployment.state().processes
        return [pid for name in names if name in processes and (pid := processes[name].pid)]

    def used(self) -> Used:
        """Processor time so far of each part, ended connections included."""
        state = self.running.deployment.state()
        found = {
            "gateway": processor_seconds(state.gateway.pid if state.gateway else None),
            "relay": processor_seconds(*self.pids("relay")),
            "projector": processor_seconds(*self.pids("projector")),
            "NATS": processor_seconds(state.bus.pid if state.bus else None),
        }
        for name, server in state.shards.items():
            part = "read database" if name == READ_SERVER else "shards"
            found[part] = found.get(part, 0.0) + processor_seconds_of_tree(server.pid)
        return Used(found)

    async def behind(self) -> int:
        """How many events the live read models have not applied, all together."""
        heads: dict[int, int] = {}
        for shard in self.running.deployment.shards.values():
            connection = await connect(shard.connect_args)
            for bucket, head in (await read_heads(connection)).items():
                heads[bucket] = max(head, heads.get(bucket, 0))
            await connection.close()
        reads = await connect_writer(self.running.deployment.read_connect_args)
        try:
            behind = 0
            for name in PROJECTIONS:
                known = await registry.checkpoints(reads, name, 1)
                behind += not known  # the projector has not begun
                behind += sum(head - known.get(bucket, 0) for bucket, head in heads.items())  # type: ignore[call-overload]
            return behind
        finally:
            await reads.close()

    async def until_level(self, seconds: float = 60.0) -> float:
        """Wait until the read models have everything; how long that took."""
        began = time.monotonic()
        while True:
            try:
                if not await self.behind():
                    return time.monotonic() - began
            except (OSError, asyncpg.PostgresError):
                pass  # still starting
            if time.monotonic() - began > seconds:
                raise TimeoutError(f"the read models are not level after {seconds:.0f} s")
            await asyncio.sleep(0.05)


@contextmanager
def plant(shards: int = 2, configuration: str = "") -> Iterator[Plant]:
    """A deployment for the length of a `with` block, its read models made; `configuration`: more of it, TOML."""
    with throwaway_deployment(shards=shards, configuration=CONFIGURATION + configuration) as running:
        made = Plant(running)
        asyncio.run(made.until_level())
        yield made
