"""An erasure waits for whoever parks the user."""

import asyncio
from datetime import UTC, datetime

from denizen.deployment.scrubbing import _waiting
from denizen.projections.catalogue import SHIPPED
from denizen.projections.database import connect_writer, migrate_read
from denizen.service.gateway import Gateway
from denizen.sharding.ids import bucket_of
from denizen.testing.postgres import ThrowawayServer
from denizen.testing.read_models import projecting

from .people import BY, somebody

REACHED = "select count(*) from denizen_read.projections where denizen_read.checkpoint(projection, version, $1) >= $2"
PARK = """
    insert into denizen_read.parked (projection, version, stream, stream_version, bucket, sequence, type, error)
    values ('directory', 1, $1, 1, $2, 1, 'UserRegistered', 'ValueError')
"""


async def test_an_erasure_is_not_scrubbed_while_the_user_is_parked(
    gateway: Gateway, postgres_server: ThrowawayServer
) -> None:
    person = await somebody(gateway)
    database = postgres_server.create_database()
    await migrate_read(database.connect_args)
    read = await connect_writer(database.connect_args)
    bucket = bucket_of(person.id)
    certificate = await gateway.erasures.erase(person.id, BY)

    async def waiting() -> int:
        moment = datetime.now(UTC)
        return await gateway.router.read(bucket, lambda connection: _waiting(connection, read, moment))

    try:
        assert await waiting() == 1, "no read model has it yet"
        async with projecting(database, gateway.router):
            async with asyncio.timeout(30):
                while await read.fetchval(REACHED, bucket, int(certificate.position.sequence)) < len(SHIPPED):
                    await asyncio.sleep(0.05)
        assert await waiting() == 0
        await read.execute(PARK, person.id, bucket)
        assert await waiting() == 1
    finally:
        await read.close()
        postgres_server.drop_database(database)
