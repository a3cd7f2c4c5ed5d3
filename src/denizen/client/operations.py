"""The operators' part of the API as methods: shards, rebalances, buckets. It needs a key with the scope `admin`.

plan = await client.operations.plan("users")
await client.operations.run(plan)
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeVar
from urllib.parse import quote

import msgspec

from denizen.api.operations import (
    BucketDocument,
    BucketList,
    Cleaning,
    MapDocument,
    MeasuredBalance,
    PlanDocument,
    RebalanceDocument,
    RebalanceSettings,
    RebalanceStatusDocument,
    ShardDocument,
    ShardList,
)
from denizen.client.transport import Call, Transport

T = TypeVar("T")


class Operations:
    """What operators do. `client.operations` is one.

    Orders may be sent again when a connection breaks off, for they change nothing the second time; only `add_shard` is
    not, since it would add another one.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    # Shards

    async def shards(self) -> list[ShardDocument]:
        """All shards, removed ones too."""
        return (await self._send(ShardList, "GET", "/v1/shards")).items

    async def shard(self, name: str) -> ShardDocument:
        """One shard. `ShardNotFound`."""
        return await self._send(ShardDocument, "GET", _shard(name))

    async def add_shard(self, dsn: str | None = None, *, weight: float = 1.0) -> ShardDocument:
        """Add a shard, on a server that is made for it or in a database of yours; it joins a moment later."""
        body = {"weight": weight} | ({} if dsn is None else {"dsn": dsn})
        return await self._send(ShardDocument, "POST", "/v1/shards", body, repeatable=False)

    async def set_weight(self, name: str, weight: float) -> ShardDocument:
        """Set the part that a shard is to take, relative to the others."""
        return await self._send(ShardDocument, "PATCH", _shard(name), {"weight": weight})

    async def drain_shard(self, name: str, *, purge: bool = False) -> ShardDocument:
        """Let a shard take nothing more; the next rebalance empties it, and then its server stops."""
        return await self._send(ShardDocument, "POST", f"{_shard(name)}:drain", {"purge": purge})

    async def keep_shard(self, name: str) -> ShardDocument:
        """Keep a draining shard after all."""
        return await self._send(ShardDocument, "POST", f"{_shard(name)}:keep")

    # Rebalances

    async def balance(self) -> MeasuredBalance:
        """How even the shards are, measured now."""
        return await self._send(MeasuredBalance, "GET", "/v1/rebalance/balance")

    async def plan(self, by: Literal["users", "bytes", "requests"] = "users") -> PlanDocument:
        """What a rebalance would do, move by move. `run` takes it."""
        return await self._send(PlanDocument, "POST", "/v1/rebalance:plan", {"by": by})

    async def run(self, plan: PlanDocument) -> RebalanceDocument:
        """Carry out this plan. `Refused` if it does not fit any more."""
        return await self._send(RebalanceDocument, "POST", "/v1/rebalance", plan)

    async def status(self) -> RebalanceStatusDocument:
        """How far the rebalance is, and every move under way."""
        return await self._send(RebalanceStatusDocument, "GET", "/v1/rebalance")

    async def pause(self) -> RebalanceDocument:
        """Begin nothing more and stop at the next safe place."""
        return await self._send(RebalanceDocument, "POST", "/v1/rebalance:pause")

    async def resume(self) -> RebalanceDocument:
        """Go on."""
        return await self._send(RebalanceDocument, "POST", "/v1/rebalance:resume")

    async def cancel(self) -> RebalanceDocument:
        """Undo what is not committed, and begin nothing more."""
        return await self._send(RebalanceDocument, "POST", "/v1/rebalance:cancel")

    async def clean(self) -> int:
        """Remove what sources keep of moved buckets now; of how many moves."""
        return (await self._send(Cleaning, "POST", "/v1/rebalance:clean")).moves

    async def settings(self) -> RebalanceSettings:
        """How gently buckets are moved."""
        return await self._send(RebalanceSettings, "GET", "/v1/rebalance/settings")

    async def change_settings(self, **changes: int) -> RebalanceSettings:
        """Change some settings: `grace_s=10`, `moves_per_server=1` …"""
        return await self._send(RebalanceSettings, "PATCH", "/v1/rebalance/settings", changes)

    # Buckets

    async def map(self) -> MapDocument:
        """Which shard owns each bucket."""
        return await self._send(MapDocument, "GET", "/v1/map")

    async def buckets(self, shard: str | None = None) -> list[BucketDocument]:
        """All buckets, or those of one shard, with their moves."""
        query = {} if shard is None else {"shard": shard}
        return (await self._send(BucketList, "GET", "/v1/buckets", query=query)).items

    async def move_buckets(self, buckets: Sequence[int], to: str) -> RebalanceDocument:
        """Move buckets to a shard, whatever that does to the balance."""
        return await self._send(RebalanceDocument, "POST", "/v1/buckets:move", {"buckets": list(buckets), "to": to})

    async def _send(
        self,
        shape: type[T],
        method: str,
        path: str,
        body: Any = None,
        *,
        query: Mapping[str, str] = {},
        repeatable: bool = True,
    ) -> T:
        answer = await self._transport.send(Call(method, path, body, query=query, repeatable=repeatable))
        return msgspec.json.decode(answer.raw, type=shape)


def _shard(name: str) -> str:
    return f"/v1/shards/{quote(name, safe='')}"
