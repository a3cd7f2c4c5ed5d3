"""`denizen keys`: create, list and revoke API keys.

With an admin key they go through the API. Without one, on the machine of the deployment and with access to its data
directory, they go straight to the database: whoever can read that directory owns the deployment anyway, and a lost
admin key can so be replaced.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Annotated, Literal, TypeVar

from cyclopts import App, Parameter
from cyclopts.validators import Number
from rich.console import Console
from rich.markup import escape

from denizen.api.shapes import CreatedKey, KeyDocument
from denizen.cli.connection import HERE, Connection
from denizen.cli.documents import print_json, print_table
from denizen.cli.options import data_directory
from denizen.client.errors import KeyNotFound
from denizen.deployment.layout import Deployment
from denizen.deployment.lock import holder
from denizen.errors import BadDeployment
from denizen.limits import key_refresh_interval_s
from denizen.service.keys import KeyRing

T = TypeVar("T")

app = App(
    name="keys",
    help="""Create, list and revoke API keys.

With an admin key through the API; without one, on the deployment's own machine, from its data directory.

Examples:

    denizen keys create shop --scope users:read --scope users:write --rate 500
    denizen keys create admin --scope admin
    denizen keys list
    denizen keys revoke 3f9a1c22d0e4
""",
    help_format="plaintext",
)

Scope = Literal["users:read", "users:write", "metrics:read", "admin"]


@app.command
def create(
    name: str,
    /,
    *,
    scope: Annotated[list[Scope], Parameter(help="What the key may do; may be repeated. `admin` implies all.")],
    rate: Annotated[
        int | None, Parameter(validator=Number(gte=1), help="Requests per second; without it, no limit.")
    ] = None,
    connection: Connection = HERE,
) -> None:
    """Create a key and show its secret, this once."""

    async def directly(keys: KeyRing) -> CreatedKey:
        from denizen.http.views import key_document

        info, secret = await keys.create(name, list(scope), rate)
        await asyncio.sleep(1.2 * key_refresh_interval_s)  # then every gateway knows it
        return CreatedKey(key_document(info), secret)

    if connection.given_key is not None:
        created = connection.run(lambda client: client.create_key(name, list(scope), rate))
    else:
        created = on_this_machine(connection, directly)
    if connection.json:
        print_json(created)
        return
    print(created.secret)
    Console(stderr=True, highlight=False).print(
        f"[dim]Key {created.key.id} ({escape(name)}: {', '.join(created.key.scopes)}). Shown only now.[/]"
    )


@app.command(name="list")
def list_keys(*, connection: Connection = HERE) -> None:
    """List the keys, revoked ones too; never their secrets."""

    async def directly(keys: KeyRing) -> list[KeyDocument]:
        from denizen.http.views import key_document

        return [key_document(info) for info in await keys.list()]

    if connection.given_key is not None:
        keys = connection.run(lambda client: client.list_keys())
    else:
        keys = on_this_machine(connection, directly)
    if connection.json:
        for key in keys:
            print_json(key)
    else:
        rows = [(key.id, key.name, key.scopes, key.rate_per_s, key.created_at, key.revoked_at) for key in keys]
        print_table(("id", "name", "scopes", "rate/s", "created", "revoked"), rows)


@app.command
def revoke(key_id: Annotated[str, Parameter(name="ID", help="Key id.")], /, *, connection: Connection = HERE) -> None:
    """Revoke a key for good, everywhere within a second."""

    async def directly(keys: KeyRing) -> None:
        if await keys.revoke(key_id) is None:
            raise KeyNotFound("there is no API key with this id")

    if connection.given_key is not None:
        connection.run(lambda client: client.revoke_key(key_id))
    else:
        on_this_machine(connection, directly)
    if connection.json:
        print_json({"revoked": key_id})
    else:
        print(f"Key {key_id} is revoked.")


def on_this_machine(connection: Connection, work: Callable[[KeyRing], Awaitable[T]]) -> T:
    """Do `work` with the keys of the running deployment in the data directory."""
    from denizen.events.stores import ShardStores

    deployment = Deployment.load(data_directory(connection.data))
    if holder(deployment.lock_path) is None:
        raise BadDeployment(
            f"the deployment in {deployment.directory} does not run: start it with `denizen up`, "
            "or give an admin key with --key"
        )

    async def do() -> T:
        async with ShardStores(deployment.places) as stores:
            await stores.open(deployment.shard_ids)
            return await work(KeyRing(stores))

    return asyncio.run(do())
