"""The agent of a machine: what the control plane says about shards, done to servers.

    joining   make the server (or take the one that the DSN names), prepare its database, say that it is ready
    drained   say that the shard is removed, so that nobody asks it any more; then stop its server
    removed   the same, for what a crash left undone

It also says where this machine's voters listen.

It watches the state and compares it with `deployment.json`; every verb may be cut off anywhere and is done again. What
it does to servers goes through `Hands`, for the supervisor owns them.
"""

import asyncio
import shutil
import time
from collections.abc import Callable
from typing import Protocol

import asyncpg
import structlog
from msgspec import structs

from denizen import limits
from denizen.control.client import ControlClient
from denizen.control.commands import Command, Founded, JoinNode, RemoveShard, ShardReady
from denizen.control.state import ControlState, Shard, ShardStatus
from denizen.deployment.birth import prepare_shard
from denizen.deployment.layout import Deployment, ShardRecord
from denizen.errors import BadDeployment, DenizenError, Refused
from denizen.events.places import read_served
from denizen.events.store import connect
from denizen.postgres.server import HOST
from denizen.service.key_copies import copy_keys
from denizen.sharding.bucket_map import BucketMap, read_map, write_map
from denizen.sharding.ids import BUCKETS, Bucket, Epoch, ShardId

_log = structlog.get_logger()


class Hands(Protocol):
    """What is done to servers; by the supervisor, which keeps them running."""

    async def start_server(self, record: ShardRecord) -> None:
        """Have the shard's server run; made first if it has no data directory. Repeating it changes nothing."""
        ...

    async def stop_server(self, record: ShardRecord) -> None:
        """Stop the shard's server and keep it stopped. Repeating it changes nothing."""
        ...


class Agent:
    """Carries out on this machine what the control plane decides. `run` it until it is cancelled."""

    def __init__(
        self, deployment: Deployment, client: ControlClient, hands: Hands, tell: Callable[[str], None]
    ) -> None:
        self._deployment = deployment
        self._client = client
        self._hands = hands
        self._tell = tell
        self._told: set[str] = set()  # problems, once each

    async def found(self) -> None:
        """Tell a new control plane what there is: the map, and the shards. A founded one knows it already."""
        state = await self._client.state(linearizable=True)
        if state.deployment is None:
            present, id = self._deployment.present, self._deployment.id
            shards = {ShardId(shard.id): shard.dsn for shard in present if not shard.joining}
            joining = {ShardId(shard.id): shard.dsn for shard in present if shard.joining}
            removed = {ShardId(shard.id): shard.dsn for shard in self._deployment.record.shards if shard.removed}
            known = await self._map_of_now(list(shards))
            await self._propose(
                Founded(at_ms=now_ms(), deployment=id, map=known, shards=shards, joining=joining, removed=removed)
            )
        elif state.deployment != self._deployment.id:
            raise BadDeployment(f"the control plane in {self._deployment.directory} is of another deployment")

    async def run(self) -> None:
        """Follow the state for ever; what fails is done again, and told once."""
        revision, founded = 0, False
        while True:
            try:
                if not founded:
                    await self.found()
                    founded = True
                revision, state = await self._client.watch(revision)
                self._keep_map(state.map)
                await self._introduce_voters(state)
                await self._carry_out(state)
                self._told.clear()
                await asyncio.sleep(limits.agent_pause_s)
            except (DenizenError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                self._complain(str(error))
                revision = 0  # nothing new need come before the next attempt
                await asyncio.sleep(limits.agent_retry_s)

    # Verbs

    async def _introduce_voters(self, state: ControlState) -> None:
        """Say where each voter listens, if that is news."""
        for name, process in self._deployment.state().control.items():
            node, raft_address, address = int(name), f"{HOST}:{process.raft_port}", f"{HOST}:{process.port}"
            known = state.nodes.get(node)
            if known is None or (known.raft_address, known.address) != (raft_address, address):
                await self._propose(JoinNode(at_ms=now_ms(), node=node, raft_address=raft_address, address=address))

    async def _carry_out(self, state: ControlState) -> None:
        """Do what each shard's status asks for. One that cannot be helped now does not keep the others waiting."""
        problems: list[str] = []
        for shard in state.shards.values():
            try:
                await self._see_to(shard, state.map)
            except (DenizenError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                problems.append(str(error))
        if problems:
            raise BadDeployment("; ".join(problems))

    async def _see_to(self, shard: Shard, known: BucketMap | None) -> None:
        match shard.status:
            case ShardStatus.JOINING:
                await self._join(shard)
            case ShardStatus.DRAINED:
                await self._let_go(shard, known)
            case ShardStatus.REMOVED:
                await self._retire(shard)
            case ShardStatus.ACTIVE | ShardStatus.DRAINING:
                self._settle(shard)

    async def _join(self, shard: Shard) -> None:
        """A new shard: its server, its database, and then the word that it is ready."""
        record = self._record(shard.id)
        if record is not None and record.removed:  # by a control plane that is lost, and this one was not told
            self._tell(f"shard {shard.id} is given up: its name was another shard's; add it again")
            await self._propose(RemoveShard(at_ms=now_ms(), shard=shard.id))
            return
        if record is None:
            directory = None if shard.dsn else f"shards/{shard.id}"
            record = ShardRecord(id=shard.id, directory=directory, dsn=shard.dsn, added=True, joining=True)
            self._deployment.record_shard(record)
        if record.directory is not None:
            await self._hands.start_server(record)
        server = self._deployment.shards[shard.id]
        await prepare_shard(self._deployment, server, read_map(self._deployment.map_path))
        self._settle(shard)  # before it may own a bucket: what joins by its record owns none
        await self._propose(ShardReady(at_ms=now_ms(), shard=shard.id))
        self._tell(f"shard {shard.id} joined")

    async def _let_go(self, shard: Shard, known: BucketMap | None) -> None:
        """A drained shard: what it has for everybody goes to the others, then nobody asks it any more."""
        places = self._deployment.places()
        if shard.id in places and known is not None:
            others = [places[other] for other in known.shards if other != shard.id and other in places]
            await copy_keys(places[shard.id], others)
        await self._propose(RemoveShard(at_ms=now_ms(), shard=shard.id))

    async def _retire(self, shard: Shard) -> None:
        """A removed shard: its server stops, as soon as the processes that used it had time to learn of it."""
        record = self._record(shard.id)
        if record is None or record.removed:
            return
        if record.directory is not None:
            await asyncio.sleep(limits.agent_farewell_s)
            await self._hands.stop_server(record)
            if shard.purge:
                await asyncio.to_thread(shutil.rmtree, self._deployment.directory / record.directory, True)
        self._deployment.record_shard(structs.replace(record, joining=False, removed=True))
        kept = "" if shard.purge or record.directory is None else f"; its data stay in {record.directory}"
        self._tell(f"shard {shard.id} is removed{kept}")

    # Inside

    async def _map_of_now(self, present: list[ShardId]) -> BucketMap:
        """The cached map; at a birth it is the first one. Later, a control plane was lost: what shards say is newer."""
        known = read_map(self._deployment.map_path)
        if not self._deployment.record.born:
            return known
        served: dict[Bucket, tuple[ShardId, Epoch]] = {}
        for shard in present:
            connection = await connect(self._deployment.shards[shard].connect_args)
            try:
                for bucket, epoch in (await read_served(connection, 0, BUCKETS - 1)).items():
                    if bucket not in served or epoch > served[bucket][1]:
                        served[bucket] = (shard, epoch)
            finally:
                await connection.close()
        lost = [bucket for bucket in range(BUCKETS) if bucket not in served]
        if lost:
            raise BadDeployment(f"no shard serves bucket {lost[0]}: restore the shard that has it, or `control/`")
        owners = tuple(present.index(served[Bucket(bucket)][0]) for bucket in range(BUCKETS))
        epochs = tuple(int(served[Bucket(bucket)][1]) for bucket in range(BUCKETS))
        same = (known.shards, known.owners, known.epochs) == (tuple(present), owners, epochs)
        return known if same else BucketMap(known.version + 1, tuple(present), owners, epochs)

    def _settle(self, shard: Shard) -> None:
        """From now on, missing data of this shard are a loss."""
        record = self._record(shard.id)
        if record is not None and record.joining:
            self._deployment.record_shard(structs.replace(record, joining=False))

    def _record(self, shard: ShardId) -> ShardRecord | None:
        return next((record for record in self._deployment.record.shards if record.id == shard), None)

    def _keep_map(self, newest: BucketMap | None) -> None:
        """Cache the map for processes that start while the control plane is away."""
        if newest is not None and newest.version > read_map(self._deployment.map_path).version:
            write_map(self._deployment.map_path, newest)

    async def _propose(self, command: Command) -> None:
        try:
            await self._client.propose(command)
        except Refused as refused:  # decided otherwise meanwhile: the next state says so
            _log.info("agent_refused", command=type(command).__name__, reason=refused.facts.get("reason"))

    def _complain(self, problem: str) -> None:
        if problem not in self._told:
            self._told.add(problem)
            self._tell(f"agent: {problem}; trying again")


def now_ms() -> int:
    """The time that goes into commands: Unix milliseconds."""
    return time.time_ns() // 1_000_000
