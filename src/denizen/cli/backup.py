"""`denizen backup`: a copy of everything while it serves; on the machine of the deployment."""

import asyncio
import sys
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from denizen.cli.documents import print_json
from denizen.cli.operating import size_text
from denizen.cli.options import DataOption, JsonOption, data_directory
from denizen.cli.up import config_file
from denizen.deployment.layout import Deployment

app = App(
    name="backup",
    help="Write a backup of the deployment to a new directory, while it serves.",
    help_epilogue="""
The backup is a data directory: to restore it, put it where it is to stay and
start it with `denizen up --data`, then run `denizen verify --repair`. It holds
secrets, and with the keyring everybody's data: keep it as you keep those.

Examples:

    denizen backup /backups/2026-11-23
    denizen backup /backups/2026-11-23 --no-keyring
    cp -a /backups/2026-11-23 /var/lib/denizen && denizen up
""",
    help_format="plaintext",
)


@app.default
def backup(
    directory: Annotated[Path, Parameter(help="A directory that does not exist yet.")],
    /,
    *,
    keyring: Annotated[
        bool,
        Parameter(
            help="Whether the keyring is in it; leave it out if you keep a copy elsewhere.", negative="--no-keyring"
        ),
    ] = True,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Back up the deployment that runs on this machine."""
    from denizen.deployment.backup import back_up
    from denizen.deployment.config import load_config
    from denizen.postgres.accounts import choose_account
    from denizen.postgres.binaries import find_binaries

    place = data_directory(data)
    deployment = Deployment.load(place)
    settings = load_config(config_file(place, None), flags={}).postgres
    console = Console(stderr=True)
    columns = (TextColumn("Backing up"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=json or not console.is_terminal, transient=True) as progress:
        task = progress.add_task("", total=None)
        done = asyncio.run(
            back_up(
                deployment,
                directory.expanduser().absolute(),
                binaries=find_binaries(Path(settings.bin) if settings.bin else None),
                account=choose_account(settings.run_as),
                keyring=keyring,
                advance=lambda written, about: progress.update(task, completed=written, total=max(written, about)),
            )
        )
    if json:
        print_json(done)
        return
    shards = "1 shard" if len(done.shards) == 1 else f"{len(done.shards)} shards"
    print(f"{done.path}: {shards}, {size_text(done.bytes)} in {done.seconds:.1f} s")
    for shard in done.elsewhere:
        print(f"not in it: {shard}, a database on a server of yours; back it up at the same time", file=sys.stderr)
    if not done.keyring:
        print("not in it: the keyring; put your copy to secrets/keyring.json before a restore", file=sys.stderr)
