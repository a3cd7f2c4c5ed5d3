"""Who works behind the gateways hears their hints over one connection: one message tells of all shards."""

import asyncio
from collections.abc import Callable, Mapping

from nats.aio.msg import Msg

from denizen import limits
from denizen.bus.connection import TROUBLE, connected
from denizen.bus.messages import BadMessage, decode_hint
from denizen.bus.rush import Rush
from denizen.bus.settings import HINT_SUBJECT, BusSettings
from denizen.sharding.ids import Bucket, ShardId

Hear = Callable[[Mapping[Bucket, int]], None]


async def listen_for_hints(bus: BusSettings, rush: Rush, hearers: Mapping[ShardId, Hear]) -> None:
    """Pass hints on to the relays of their shards, and to `rush`; never returns. Without a bus nobody hears anything.

    `hearers` may change meanwhile.
    """

    async def hear(message: Msg) -> None:
        try:
            hint = decode_hint(message.data)
        except BadMessage:
            return
        rush.hear(hint.group)
        for shard, heads in hint.heads.items():
            if shard in hearers:
                hearers[shard](heads)

    pause = limits.bus_retry_s_min
    while True:
        try:
            async with connected(bus, "hints") as connection:
                await connection.client.subscribe(HINT_SUBJECT, cb=hear)
                pause = limits.bus_retry_s_min
                await connection.lost.wait()
        except TROUBLE:
            pass  # relays look by themselves meanwhile
        await asyncio.sleep(pause)
        pause = min(pause * 2, limits.bus_retry_s_max)
