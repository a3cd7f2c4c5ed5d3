"""The configuration: one TOML file, environment variables over it, flags over both.

A key `listen` in the section `[gateway]` is the variable `DENIZEN_GATEWAY_LISTEN`; lists in variables are separated by
commas. Everything is checked before anything starts, and a message names the key, where its value came from, the value
and what is allowed. Unknown keys are refused: a misspelt key that is silently ignored is the worst kind.
"""

import difflib
import ipaddress
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct, field

from denizen.errors import BadConfiguration
from denizen.limits import rush_patience_s, shards_max
from denizen.postgres.settings import GIB, MIB, connections_default

LOGIN_NAMES = ("email", "username", "phone")
CONFIG_FILE = "denizen.toml"
PREFIX = "DENIZEN_"
OTHER_VARIABLES = frozenset({"DENIZEN_DATA", "DENIZEN_CONFIG", "DENIZEN_URL", "DENIZEN_KEY", "DENIZEN_API_KEY"})
SIZE = re.compile(r"(\d+)\s*(MB|GB)", re.IGNORECASE)
# What the program itself decides about a server; the rest of PostgreSQL's settings are the operator's.
RESERVED_SETTINGS = frozenset(
    {"port", "listen_addresses", "unix_socket_directories", "data_directory", "hba_file", "cluster_name"}
)

IN_WORDS: Mapping[Any, str] = {  # the types of keys, for people
    int: "a whole number",
    int | None: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a text in quotes",
    str | None: "a text in quotes",
    tuple[str, ...]: "a list of texts in quotes",
    dict[str, str | int | float | bool]: "a section of its own, a line for each setting",
}


class DeploymentSection(Struct, frozen=True, forbid_unknown_fields=True):
    """`[deployment]`: what is decided at a deployment's birth."""

    shards: int | None = None
    shard_dsns: tuple[str, ...] = ()
    login_names: tuple[str, ...] = ("email", "username")


class GatewaySection(Struct, frozen=True, forbid_unknown_fields=True):
    """`[gateway]`: the HTTP API."""

    listen: str = "127.0.0.1:0"


class PostgresSection(Struct, frozen=True, forbid_unknown_fields=True):
    """`[postgres]`: the servers that this machine runs."""

    bin: str | None = None
    run_as: str | None = None
    memory: str | None = None
    max_connections: int = connections_default
    settings: dict[str, str | int | float | bool] = {}

    @property
    def memory_bytes(self) -> int | None:
        """What all servers together may count on, if the operator said so."""
        return parse_size(self.memory) if self.memory else None


class BusSection(Struct, frozen=True, forbid_unknown_fields=True):
    """`[bus]`: how events reach read models and other services."""

    enabled: bool = True
    servers: tuple[str, ...] = ()  # nats://user:password@host:port of a server or cluster; none: one of our own
    retention_h: float = 24.0  # how long an event stays on the bus
    retention_size: str = "1GB"
    replicas: int = 1  # of the streams, on a cluster
    give_way_s: float = rush_patience_s  # in a rush, for so long writes come before read models; 0: never

    @property
    def retention_s(self) -> int:
        """How long an event stays on the bus."""
        return int(self.retention_h * 3600)

    @property
    def retention_bytes(self) -> int:
        """How much of the newest events stays on the bus."""
        return parse_size(self.retention_size)


class ReadSection(Struct, frozen=True, forbid_unknown_fields=True):
    """`[read]`: the database of the read models."""

    dsn: str | None = None  # of a database of yours; none: one on a server of our own


class ControlSection(Struct, frozen=True, forbid_unknown_fields=True):
    """`[control]`: the control plane, which keeps the bucket map and moves buckets."""

    voters: int = 3


class Config(Struct, frozen=True, forbid_unknown_fields=True):
    """The whole configuration, checked."""

    deployment: DeploymentSection = field(default_factory=DeploymentSection)
    gateway: GatewaySection = field(default_factory=GatewaySection)
    postgres: PostgresSection = field(default_factory=PostgresSection)
    bus: BusSection = field(default_factory=BusSection)
    read: ReadSection = field(default_factory=ReadSection)
    control: ControlSection = field(default_factory=ControlSection)


SECTIONS: dict[str, type[Struct]] = {
    "deployment": DeploymentSection,
    "gateway": GatewaySection,
    "postgres": PostgresSection,
    "bus": BusSection,
    "read": ReadSection,
    "control": ControlSection,
}


def load_config(
    file: Path | None = None,
    *,
    environment: Mapping[str, str] | None = None,
    flags: Mapping[str, Any] | None = None,
) -> Config:
    """Return the configuration from `file`, then `environment`, then `flags` ("gateway.listen" → value, None: unset).

    Raises `BadConfiguration` naming the key, its origin and what is allowed.
    """
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    layers = (
        _from_file(file) if file else {},
        _from_environment(os.environ if environment is None else environment),
        {key: (value, "flag") for key, value in (flags or {}).items() if value is not None},
    )
    for layer in layers:
        for key, (value, origin) in layer.items():
            values[key], origins[key] = value, origin
    config = _convert(values, origins)
    _check(config, origins)
    return config


def _from_file(path: Path) -> dict[str, tuple[Any, str]]:
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadConfiguration(f"the configuration file {path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadConfiguration(f"the configuration file {path} is not valid TOML: {error}") from error
    found = {}
    for section, keys in document.items():
        known = SECTIONS.get(section)
        if known is None:
            raise BadConfiguration(f"{path}: unknown section [{section}]{_suggest(section, SECTIONS)}")
        if not isinstance(keys, dict):
            raise BadConfiguration(f"{path}: {section} is a section: write [{section}] and its keys below it")
        for key, value in keys.items():
            if key not in known.__struct_fields__:
                raise BadConfiguration(f"{path}: unknown key {section}.{key}{_suggest(key, known.__struct_fields__)}")
            found[f"{section}.{key}"] = (value, str(path))
    return found


def _from_environment(environment: Mapping[str, str]) -> dict[str, tuple[Any, str]]:
    variables = {
        f"{PREFIX}{section}_{key}".upper(): (f"{section}.{key}", kind)
        for section, struct in SECTIONS.items()
        for key, kind in struct.__annotations__.items()
        if key != "settings"
    }
    found = {}
    for name, value in environment.items():
        section = next((s for s in SECTIONS if name.startswith(f"{PREFIX}{s}_".upper())), None)
        if name in variables:
            key, kind = variables[name]
            parsed = [part.strip() for part in value.split(",")] if "tuple" in str(kind) else value
            found[key] = (parsed, f"environment variable {name}")
        elif section is not None and name not in OTHER_VARIABLES:
            raise BadConfiguration(f"unknown environment variable {name}{_suggest(name, variables)}")
    return found


def _suggest(wrong: str, known: Any) -> str:
    close = difflib.get_close_matches(wrong, list(known), n=1)
    return f"; did you mean {close[0]}?" if close else f"; known are: {', '.join(sorted(known))}"


def _convert(values: Mapping[str, Any], origins: Mapping[str, str]) -> Config:
    """Check each value against its key's type, one by one, so that the message can name it."""
    sections: dict[str, dict[str, Any]] = {section: {} for section in SECTIONS}
    for dotted, value in values.items():
        section, key = dotted.split(".", maxsplit=1)
        kind = SECTIONS[section].__annotations__[key]
        lax = origins[dotted].startswith("environment")
        try:
            sections[section][key] = msgspec.convert(value, kind, strict=not lax)
        except msgspec.ValidationError as error:
            raise _wrong_type(dotted, value, kind, origins) from error
    return Config(**{name: SECTIONS[name](**keys) for name, keys in sections.items()})  # type: ignore[arg-type]


def _wrong_type(key: str, value: Any, kind: Any, origins: Mapping[str, str]) -> BadConfiguration:
    """Return the error of a value of another type than its key's; in a table, of the first such value."""
    if isinstance(value, dict):
        for name, each in value.items():
            if not isinstance(each, str | int | float | bool):
                inner = f"{key}.{name}"
                return wrong(inner, each, "a text in quotes, a number, true or false", {inner: origins[key]})
    return wrong(key, value, IN_WORDS[kind], origins)


def wrong(key: str, value: Any, allowed: str, origins: Mapping[str, str]) -> BadConfiguration:
    """Return the error of one value that is not allowed."""
    return BadConfiguration(f"{key} = {value!r} ({origins.get(key, 'default')}): {allowed}", key=key)


def _check(config: Config, origins: Mapping[str, str]) -> None:
    deployment, gateway, postgres = config.deployment, config.gateway, config.postgres
    if deployment.shards is not None and not 0 <= deployment.shards <= shards_max:
        raise wrong("deployment.shards", deployment.shards, f"a number from 1 to {shards_max}", origins)
    if deployment.shards == 0 and not deployment.shard_dsns:
        raise wrong("deployment.shards", 0, f"a number from 1 to {shards_max} (0 only with DSNs of servers)", origins)
    _check_dsns("deployment.shard_dsns", deployment.shard_dsns, origins)
    if config.read.dsn is not None:
        _check_dsns("read.dsn", (config.read.dsn, *deployment.shard_dsns), origins)
    names = deployment.login_names
    if not names or len(set(names)) != len(names) or not set(names) <= set(LOGIN_NAMES):
        raise wrong(
            "deployment.login_names", list(names), f"one or more of {', '.join(LOGIN_NAMES)}, once each", origins
        )
    try:
        parse_listen(gateway.listen)
    except ValueError as error:
        raise wrong("gateway.listen", gateway.listen, str(error), origins) from None
    if postgres.memory is not None and parse_size(postgres.memory) < 128 * MIB:
        raise wrong("postgres.memory", postgres.memory, 'a size such as "512MB" or "8GB", at least 128MB', origins)
    if not 20 <= postgres.max_connections <= 10_000:
        raise wrong("postgres.max_connections", postgres.max_connections, "a number from 20 to 10000", origins)
    _check_bus(config.bus, origins)
    if config.control.voters not in (1, 3, 5):
        raise wrong("control.voters", config.control.voters, "1, 3 or 5 (3 survive the loss of one)", origins)
    for name in postgres.settings:
        if name in RESERVED_SETTINGS:
            raise wrong("postgres.settings", name, "Denizen decides this setting itself; leave it out", origins)
        if not re.fullmatch(r"[a-z_][a-z0-9_.]*", name):
            raise wrong("postgres.settings", name, "a name of a PostgreSQL setting, in lower case", origins)


def _check_bus(bus: BusSection, origins: Mapping[str, str]) -> None:
    for server in bus.servers:
        shown = hide_password(server)
        try:
            parts = urlsplit(server)
            known = parts.scheme in ("nats", "tls") and parts.hostname and (parts.port or True)
        except ValueError:
            known = False
        if not known:
            raise wrong("bus.servers", shown, "nats://user:password@host:port, or tls:// for an encrypted one", origins)
    if not 0.001 <= bus.retention_h <= 24 * 365:
        raise wrong("bus.retention_h", bus.retention_h, "hours from 0.001 to 8760", origins)
    if bus.retention_bytes < 16 * MIB:
        raise wrong("bus.retention_size", bus.retention_size, 'a size such as "512MB", at least 16MB', origins)
    if not 0 <= bus.give_way_s <= 60:
        raise wrong("bus.give_way_s", bus.give_way_s, "seconds from 0 to 60", origins)
    if bus.replicas not in (1, 3, 5):
        raise wrong("bus.replicas", bus.replicas, "1, 3 or 5", origins)


def _check_dsns(key: str, dsns: tuple[str, ...], origins: Mapping[str, str]) -> None:
    """Each must be one, and each another database."""
    seen = set()
    for dsn in dsns:
        shown = hide_password(dsn)
        try:
            place = place_of_dsn(dsn)
        except ValueError as error:
            raise wrong(key, shown, str(error), origins) from None
        if place in seen:
            raise wrong(key, shown, "each shard, and the read models, need a database of their own", origins)
        seen.add(place)


def place_of_dsn(dsn: str) -> tuple[str | None, int, str, str]:
    """Return host, port, path and query of a DSN; or `ValueError`, without any part of it, for it may be a password."""
    try:
        parts = urlsplit(dsn)
        place = (parts.hostname, parts.port or 5432, parts.path, parts.query)
    except ValueError:
        place = None
    if place is None or parts.scheme not in ("postgresql", "postgres") or len(parts.path) < 2 or "\0" in dsn:
        raise ValueError("postgresql://user:password@host:port/database")
    return place


def hide_password(dsn: str) -> str:
    """Return the DSN for people's eyes."""
    return re.sub(r"(://[^:/@]*:)[^@]*@|([?&](?:ssl)?password=)[^&]*", _hidden, dsn)


def _hidden(found: re.Match[str]) -> str:
    return f"{found[1]}***@" if found[1] else f"{found[2]}***"


def parse_size(text: str) -> int:
    """Return the bytes of "512MB" or "8GB"; 0 if it is not a size."""
    size = SIZE.fullmatch(text.strip())
    return int(size[1]) * (GIB if size[2].upper() == "GB" else MIB) if size else 0


def parse_listen(text: str) -> tuple[str, int]:
    """Return host and port of "127.0.0.1:8080", "[::1]:8080", ":0" or "8080" (port 0: find one); or `ValueError`."""
    host, _, port = text.rpartition(":")
    host = host.strip("[]") or "127.0.0.1"
    allowed = 'HOST:PORT such as "127.0.0.1:8080", port 0 to have one found'
    if not port.isascii() or not port.isdigit() or int(port) > 65_535:
        raise ValueError(allowed)
    if host != "localhost":
        try:
            ipaddress.ip_address(host)
        except ValueError:
            raise ValueError(f"{allowed}; the host is an IP address or localhost") from None
    return host, int(port)
