"""`denizen keyring`: the keys under which the users' own keys lie; on the machine of the deployment."""

import asyncio
from typing import Annotated

from cyclopts import App, Parameter
from rich.console import Console

from denizen.cli.documents import print_json, print_table
from denizen.cli.options import DataOption, JsonOption, data_directory
from denizen.deployment.layout import Deployment

app = App(
    name="keyring",
    help="The keys under which the users' own keys lie: list, rotate, drop.",
    help_epilogue="""
Keep a copy of secrets/keyring.json where no copy of the databases is: without
it nothing of any user can be read, and with it everything.

Examples:

    denizen keyring list
    denizen keyring rotate
    denizen keyring drop 3f9a21c4
""",
    help_format="plaintext",
)


@app.command(name="list")
def list_keys(*, data: DataOption = None, json: JsonOption = False) -> None:
    """List the keys, the oldest first, and how much is under each. It reads every event."""
    from denizen.deployment.keyring import key_uses

    uses = asyncio.run(key_uses(Deployment.load(data_directory(data))))
    if json:
        for use in uses:
            print_json(use)
        return
    rows = [(each.id, each.created_at, f"{each.secrets:,}", "wraps" if each.newest else "") for each in uses]
    print_table(("id", "created", "secrets", ""), rows)


@app.command
def rotate(*, data: DataOption = None, json: JsonOption = False) -> None:
    """Make a new key, and wrap everything under it, beside live traffic. The old keys stay until they are dropped."""
    from denizen.deployment.keyring import add_key

    deployment = Deployment.load(data_directory(data))
    key = add_key(deployment)
    Console(stderr=True).print(f"key {key.id} wraps from now on; if this is interrupted: denizen keyring rewrap")
    _rewrap(deployment, as_json=json)


@app.command
def rewrap(*, data: DataOption = None, json: JsonOption = False) -> None:
    """Go on with a rotation: wrap under the newest key what is under an older one."""
    _rewrap(Deployment.load(data_directory(data)), as_json=json)


@app.command
def drop(
    key: Annotated[str, Parameter(name="ID", help="The key's id.")],
    /,
    *,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Drop an old key for good; refused while anything is under it."""
    from denizen.deployment.keyring import drop_key

    asyncio.run(drop_key(Deployment.load(data_directory(data)), key))
    text = f"key {key} is dropped: what was under it in old copies can be read no more"
    print_json({"dropped": key}) if json else print(text)


def _rewrap(deployment: Deployment, *, as_json: bool) -> None:
    from denizen.deployment.keyring import rewrap as work

    with Console(stderr=True).status("wrapping") as status:
        done = asyncio.run(work(deployment, lambda count: status.update(f"{count:,} secrets wrapped anew")))
    if as_json:
        print_json({"rewrapped": done})
    else:
        print(f"{done:,} secrets are wrapped anew")
