"""`denizen up`: a whole deployment with one command."""

import asyncio
import os
import sys
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter

from denizen.cli.options import DataOption, JsonOption, data_directory
from denizen.deployment.config import CONFIG_FILE, Config, load_config
from denizen.deployment.layout import Deployment, unusable
from denizen.errors import BadConfiguration

SHARDS_DEFAULT = 4

app = App(
    name="up",
    help="Start a deployment on this machine: PostgreSQL servers, the event bus and the HTTP API.",
    help_epilogue="""
The first start makes everything and shows an admin key, once. Later starts
go on with the data. Ctrl-C stops everything in order. Settings come from
flags, else environment variables (such as DENIZEN_GATEWAY_LISTEN), else
denizen.toml in the data directory.

Examples:

    denizen up
    denizen up --shards 2 --data ./people --listen 127.0.0.1:8080
    denizen up --detach
    denizen up --shard-dsn postgresql://me:secret@db1/denizen \\
               --shard-dsn postgresql://me:secret@db2/denizen
""",
    help_format="plaintext",
)


@app.default
def up(
    *,
    data: DataOption = None,
    shards: Annotated[int | None, Parameter(help="PostgreSQL servers to make, at the first start. Default: 4.")] = None,
    shard_dsn: Annotated[
        list[str] | None,
        Parameter(help="Use this existing, empty database as a shard; may be repeated.", negative=""),
    ] = None,
    listen: Annotated[
        str | None, Parameter(help="HOST:PORT of the HTTP API. Default: 127.0.0.1 and a port found, kept later.")
    ] = None,
    pg_bin: Annotated[
        Path | None, Parameter(help="Directory of PostgreSQL's programs. Default: the ones that came with Denizen.")
    ] = None,
    nats_url: Annotated[
        list[str] | None,
        Parameter(
            help="Use this NATS server, nats://user:password@host:port, or repeat it for a cluster.", negative=""
        ),
    ] = None,
    read_dsn: Annotated[
        str | None, Parameter(help="Keep the read models in this database of yours. Default: a server of our own.")
    ] = None,
    config: Annotated[
        Path | None, Parameter(help="Configuration file. Default: denizen.toml in the data directory.")
    ] = None,
    gateway: Annotated[
        bool, Parameter(help="Serve the HTTP API and events; without it only the shards run.", negative="--no-gateway")
    ] = True,
    detach: Annotated[bool, Parameter(help="Go on in the background once everything runs.", negative="")] = False,
    json: JsonOption = False,
) -> None:
    """Start a deployment and keep it running."""
    directory = data_directory(data)
    flags = {
        "deployment.shards": shards,
        "deployment.shard_dsns": shard_dsn or None,
        "gateway.listen": listen,
        "bus.servers": nats_url or None,
        "read.dsn": read_dsn,
        "postgres.bin": str(pg_bin.expanduser().absolute()) if pg_bin else None,
    }
    settings = load_config(config_file(directory, config), flags=flags)
    deployment = open_deployment(directory, settings)
    if detach:
        from denizen.cli.detached import start_detached

        sys.exit(start_detached(deployment, _own_arguments(directory, flags, config, gateway), as_json=json))
    _run(deployment, settings, gateway=gateway, as_json=json)


def config_file(directory: Path, named: Path | None) -> Path | None:
    """Return the configuration file to read: the named one, $DENIZEN_CONFIG, or the data directory's if it is there."""
    if named or os.environ.get("DENIZEN_CONFIG"):
        return (named or Path(os.environ["DENIZEN_CONFIG"])).expanduser().absolute()
    usual = directory / CONFIG_FILE
    try:
        return usual if usual.exists() else None
    except OSError as error:
        raise unusable(directory, error) from error


def open_deployment(directory: Path, config: Config) -> Deployment:
    """Load the deployment, or create it. Raises `BadConfiguration` if it was born with other shards.

    Where a first start failed before it made a shard, the shards and login names of now hold; told no shards, those
    that it was told.
    """
    wanted = config.deployment
    told = wanted.shards is not None or bool(wanted.shard_dsns)
    shards = wanted.shards if wanted.shards is not None else (0 if wanted.shard_dsns else SHARDS_DEFAULT)
    if not Deployment.exists(directory):
        return Deployment.create(directory, shards=shards, dsns=wanted.shard_dsns, login_names=wanted.login_names)
    deployment = Deployment.load(directory)
    deployment.make_directories()
    managed, dsns = _born_with(deployment)
    deployment.decide_anew(
        shards=shards if told else managed,
        dsns=wanted.shard_dsns if told else dsns,
        login_names=wanted.login_names,
    )
    managed, dsns = _born_with(deployment)
    if wanted.shards is not None and wanted.shards != managed:
        raise BadConfiguration(
            f"deployment.shards = {wanted.shards}: the deployment in {directory} has {managed} servers since "
            "its birth; leave the number out, or choose another --data"
        )
    if wanted.shard_dsns and wanted.shard_dsns != dsns:
        raise BadConfiguration(
            f"deployment.shard_dsns: the deployment in {directory} was made with other DSNs; leave them out, "
            "or, if a server has moved, change its DSN in deployment.json"
        )
    return deployment


def _born_with(deployment: Deployment) -> tuple[int, tuple[str, ...]]:
    """How many servers of our own there are since the birth, and the DSNs of the others."""
    born = [shard for shard in deployment.record.shards if not shard.added]
    dsns = tuple(shard.dsn for shard in born if shard.dsn is not None)
    return len(born) - len(dsns), dsns


def _run(deployment: Deployment, config: Config, *, gateway: bool, as_json: bool) -> None:
    from denizen.cli.narration import ConsoleNarrator, JsonNarrator, LoggedNarrator
    from denizen.deployment.supervisor import Supervisor

    async def supervise() -> None:
        inner = JsonNarrator() if as_json else ConsoleNarrator()
        narrator = LoggedNarrator(inner, deployment.logs / "denizen.log")
        await Supervisor(deployment, config, narrator, gateway=gateway).run()

    asyncio.run(supervise())


def _own_arguments(directory: Path, flags: dict[str, Any], config: Path | None, gateway: bool) -> list[str]:
    """Return the arguments of a second `denizen up` that does the same."""
    arguments = ["--data", str(directory), *([] if gateway else ["--no-gateway"])]
    single = {
        "--shards": "deployment.shards",
        "--listen": "gateway.listen",
        "--pg-bin": "postgres.bin",
        "--read-dsn": "read.dsn",
    }
    for flag, key in single.items():
        if flags[key] is not None:
            arguments += [flag, str(flags[key])]
    for dsn in flags["deployment.shard_dsns"] or ():
        arguments += ["--shard-dsn", dsn]
    for url in flags["bus.servers"] or ():
        arguments += ["--nats-url", url]
    return [*arguments, *(["--config", str(config.expanduser().absolute())] if config else [])]
