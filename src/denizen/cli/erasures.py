"""`denizen erasures`: what was erased, its certificates, and the cleaning of the servers' files."""

import asyncio
import sys
from typing import Annotated

from cyclopts import App, Parameter
from rich.console import Console

from denizen.api.erasures import ErasureDocument
from denizen.cli.connection import HERE, Connection
from denizen.cli.documents import print_certificate, print_json, print_table
from denizen.cli.options import DataOption, JsonOption, UserId, data_directory
from denizen.client import Client
from denizen.deployment.layout import Deployment

app = App(
    name="erasures",
    help="Users that were erased: list them, show a certificate, clean the servers' files.",
    help_epilogue="""
`denizen users erase ID` erases a user; docs/erasure.md says what that destroys,
and when. `scrub` is for the machine of the deployment.

Examples:

    denizen erasures list
    denizen erasures show 01890a5d-ac96-8b2f-8d0a-3c1f2e4d5b6a
    denizen erasures scrub
    denizen erasures scrub --online
""",
    help_format="plaintext",
)


@app.command(name="list")
def list_erasures(
    *,
    limit: Annotated[int, Parameter(help="Erasures at most; 0 for all.")] = 50,
    connection: Connection = HERE,
) -> None:
    """List the users that were erased, the newest first."""

    async def work(client: Client) -> list[ErasureDocument]:
        found = []
        async for erasure in client.erasures():
            found.append(erasure)
            if limit and len(found) == limit:
                break
        return found

    erasures = connection.run(work)
    if connection.json:
        for erasure in erasures:
            print_json(erasure)
        return
    rows = [(each.user_id, each.erased_at, each.settled_at, each.scrubbed_at) for each in erasures]
    print_table(("id", "erased", "login names gone", "files scrubbed"), rows)


@app.command
def show(user_id: UserId, /, *, connection: Connection = HERE) -> None:
    """Show the certificate of an erasure: what was destroyed, when, on whose word."""
    print_certificate(connection.run(lambda client: client.get_erasure(user_id)), json=connection.json)


@app.command
def scrub(
    *,
    online: Annotated[
        bool, Parameter(negative="", help="Lock no table; bytes may stay in free space until they are overwritten.")
    ] = False,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Remove what the database servers keep of erased users in their files: dead rows, old logs, samples.

    Each table is written anew, and locked for as long as that takes. Exit code 1 if something is left for later.
    """
    from denizen.deployment.scrubbing import scrub as clean

    deployment = Deployment.load(data_directory(data))
    with Console(stderr=True).status("scrubbing") as status:
        report = asyncio.run(clean(deployment, online=online, tell=status.update))
    if json:
        print_json(report)
    else:
        print(f"{report.scrubbed} erasures are scrubbed")
        if report.waiting:
            print(f"{report.waiting} wait for login names or read models: scrub again in a moment")
        if online:
            print("online: dead rows and old logs are gone; free space within pages was not overwritten")
        if not report.log_cycled:
            print("the log of a server could not be cycled: it has archives, standbys, or another owner")
    sys.exit(1 if report.waiting or not report.log_cycled else 0)
