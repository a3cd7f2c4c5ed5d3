"""The configuration of one node of the key-value service, from a TOML file or from flags.

id = 1
data = "/var/lib/denizen-raft/1"     # the node's own directory
http = "127.0.0.1:7101"              # where clients are served
secret_file = "/etc/denizen/raft"    # shared by the nodes; 16 bytes or more
[peers]                              # every founding member, this one included: where the nodes talk to each other
1 = "10.0.0.1:7001"
2 = "10.0.0.2:7001"
3 = "10.0.0.3:7001"
"""

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from denizen.raft.errors import BadSettings
from denizen.raft.kv.limits import COMMAND_BYTES_MAX, MEMBER_URL_BYTES_MAX
from denizen.raft.settings import Settings, Tls
from denizen.raft.transport.link import split_address


class TlsFiles(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """PEM files: this node's certificate and key, and the authority that signed every node's."""

    certificate: str
    key: str
    authority: str


class Config(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """One node. `advertise` is the URL that clients reach it by, when it is not `http://` and the `http` address."""

    id: int
    data: str
    peers: dict[int, str]
    http: str = "127.0.0.1:0"
    advertise: str = ""
    secret: str = ""
    secret_file: str = ""
    cluster: str = "raft"
    join: bool = False
    election_ms: int = 150
    heartbeat_ms: int = 40
    snapshot_entries: int = 20_000
    tls: TlsFiles | None = None

    def check(self) -> None:
        """Raise `BadSettings` for what cannot work, naming the key."""
        if self.id not in self.peers:
            raise BadSettings(f"`peers` must name this node ({self.id}) and where it listens")
        for name, address in [("http", self.http), *((f"peers.{id}", address) for id, address in self.peers.items())]:
            try:
                split_address(address)
            except ValueError as error:
                raise BadSettings(f"`{name}`: {error}") from None
        if self.advertise and not _is_url(self.advertise):
            raise BadSettings(
                f"`advertise`: {self.advertise!r} is no URL such as https://kv.example:7101, of "
                f"{MEMBER_URL_BYTES_MAX} bytes at most"
            )

    def secret_bytes(self) -> bytes:
        """Return the cluster's secret."""
        if self.secret_file:
            try:
                return Path(self.secret_file).read_bytes().strip()
            except OSError as error:
                raise BadSettings(f"`secret_file` cannot be read: {error}") from None
        return self.secret.encode()

    def settings(self) -> Settings:
        """Return the settings of the Raft node."""
        settings = Settings(
            secret=self.secret_bytes(),
            tls=None if self.tls is None else Tls.from_files(self.tls.certificate, self.tls.key, self.tls.authority),
            cluster=self.cluster,
            election_ms=self.election_ms,
            heartbeat_ms=self.heartbeat_ms,
            snapshot_entries=self.snapshot_entries,
            command_bytes_max=COMMAND_BYTES_MAX,
        )
        settings.check()
        return settings


def _is_url(text: str) -> bool:
    try:
        url = urlsplit(text)
        whole = url.scheme in {"http", "https"} and url.hostname and url.port != 0
    except ValueError:  # no port, or half an address in brackets
        return False
    return (
        bool(whole)
        and not set(text) & set("?#@")
        and text.isprintable()
        and " " not in text
        and (len(text.encode()) <= MEMBER_URL_BYTES_MAX)
    )


def load(path: str | Path, **overrides: Any) -> Config:
    """Read a configuration file; raises `BadSettings` naming what is wrong and where."""
    try:
        raw: dict[str, Any] = msgspec.toml.decode(Path(path).read_bytes())
    except (OSError, ValueError, msgspec.DecodeError) as error:
        raise BadSettings(f"{path} cannot be read: {error}") from None
    return from_mapping(raw | {name: value for name, value in overrides.items() if value is not None})


def from_mapping(raw: dict[str, Any]) -> Config:
    """Check a configuration as it was read or given by flags."""
    try:
        config = msgspec.convert(raw, Config, strict=False)
    except msgspec.ValidationError as error:
        raise BadSettings(f"the configuration is wrong: {error}") from None
    config.check()
    return config
