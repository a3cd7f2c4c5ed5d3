"""A PostgreSQL server killed under load: what was acknowledged is there, what was not is all there or not at all."""

import asyncio
import os
import signal
from uuid import UUID

from denizen.errors import OutcomeUnknown, Overloaded, Unavailable
from denizen.service import Context, Written
from denizen.service.gateway import Gateway
from denizen.testing.consistency import assert_consistent
from denizen.testing.postgres import ThrowawayServer, throwaway_server
from denizen.users.commands import Registration

from .worlds import World, email, sweep, username

CLIENTS, EACH, KILLS = 32, 12, 2


async def test_a_server_killed_under_load_loses_nothing_and_does_nothing_twice() -> None:
    with throwaway_server() as server:
        world = World([server.create_database() for _ in range(2)])
        async with world.gateway(sweep_grace_s=1.0) as gateway:
            acknowledged: dict[tuple[int, int], Written] = {}
            clients = [asyncio.create_task(client(gateway, number, acknowledged)) for number in range(CLIENTS)]
            for kill in range(KILLS):
                while len(acknowledged) < CLIENTS * EACH * (kill + 1) // (KILLS + 2):
                    await asyncio.sleep(0.001)
                await kill_and_start(server)
            await asyncio.gather(*clients)
            await gateway.names.drain()
            await sweep(gateway)
            await assert_consistent(gateway)
            assert len(acknowledged) == CLIENTS * EACH
            everybody = await gateway.users.list_users(limit=CLIENTS * EACH + 1)
            assert {stored.id for stored in everybody} == {written.user.id for written in acknowledged.values()}
            for (number, turn), written in acknowledged.items():
                for name in (email(f"u{number}.{turn}@example.com"), username(f"u{number}.{turn}")):
                    assert (await gateway.users.find(name)).id == written.user.id


async def client(gateway: Gateway, number: int, acknowledged: dict[tuple[int, int], Written]) -> None:
    """Repeats what failed, or may have, under the same key: as a client of the API does."""
    for turn in range(EACH):
        registration = Registration(email=f"u{number}.{turn}@example.com", username=f"u{number}.{turn}")
        context = Context("key:test", UUID(int=turn), idempotency_key=f"{number}.{turn}", fingerprint=b"f")
        while True:
            try:
                acknowledged[number, turn] = await gateway.users.register(registration, context)
                break
            except (OutcomeUnknown, Unavailable, Overloaded):
                await asyncio.sleep(0.05)


async def kill_and_start(server: ThrowawayServer) -> None:
    pid = server.server.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    while server.server.pid is not None:
        await asyncio.sleep(0.005)
    server.server.start()
    while not server.server.check_ready():
        await asyncio.sleep(0.01)
