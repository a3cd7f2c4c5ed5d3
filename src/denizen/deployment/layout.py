"""The data directory: what lies where, and what a process must know to reach the shards.

    denizen.toml      configuration, optional, written by people
    deployment.json   what was decided at birth, and where each shard is; written again when shards come or go
    map.json          which shard owns each bucket, as far as this machine knows: a cache of the control plane's map
    control/1/ ...    the logs of the control plane's voters: its truth
    shards/s1/ ...    PostgreSQL's data directories, of the user it runs as
    read/             the same for the server of the read models; may be lost, they are made anew
    engine/           a copy of PostgreSQL's programs, only where root runs us from a closed directory
    run/              lock, state.json (ports and pids of the running servers), Unix sockets
    logs/             denizen.log, gateway.log, s1.log ...
    bus/              the NATS server's store; may be lost
    secrets/          the keyring, without which no event can be read; the passwords of the PostgreSQL servers and of
                      the bus, how to reach the bus, and the control plane's secret

`deployment.json` holds the hash seed: without it no login name is found. Lost ports are found again, a lost seed is
not; that is why the two are kept apart.
"""

import os
import secrets
import stat
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import msgspec
from msgspec import Struct, structs

from denizen.bus.settings import BusSettings
from denizen.deployment.lock import DirectoryLock
from denizen.deployment.state import RunState, ServerState, read_state
from denizen.errors import BadDeployment
from denizen.events import sealing
from denizen.events.keyring import Keyring, WrappingKey, encode_keyring
from denizen.files import sync_directory
from denizen.postgres.cluster import OWNER
from denizen.postgres.server import DATABASE, HOST
from denizen.projections.database import DATABASE as READ_DATABASE
from denizen.sharding.ids import ShardId

FORMAT = 1
NOWHERE = 1  # a port that no PostgreSQL has; the driver would take 0 for 5432, where somebody else's server may be
RECORD = "deployment.json"
BUS = "secrets/bus.json"
READ_SERVER = "read1"
READ_DIRECTORY = "read"
READ_DSN = "secrets/read-dsn"


class ShardRecord(Struct, frozen=True, omit_defaults=True):
    """Where a shard is: a data directory of ours, or the DSN of somebody's server.

    `added`: it came after the birth. `joining`: it is being made, so that missing data are no loss yet. `removed`: it
    was drained and its server stopped; the record keeps its id from being used again.
    """

    id: str
    directory: str | None = None
    dsn: str | None = None
    added: bool = False
    joining: bool = False
    removed: bool = False


class DeploymentRecord(Struct, frozen=True):
    """The content of `deployment.json`."""

    format: int
    id: UUID
    created_at: datetime
    hash_seed: int
    login_names: tuple[str, ...]
    shards: tuple[ShardRecord, ...]
    born: bool = False  # every shard has its database, and the admin key was shown


class ShardServer(Struct, frozen=True):
    """Where one shard's database is: `asyncpg.connect(**server.connect_args)`."""

    id: ShardId
    connect_args: dict[str, Any]
    data: Path | None  # None: a server given by DSN, which we do not manage

    @property
    def managed(self) -> bool:
        """Whether `denizen up` starts and stops this server."""
        return self.data is not None


class Deployment:
    """A deployment's data directory, opened."""

    def __init__(self, directory: Path, record: DeploymentRecord) -> None:
        self.directory = directory
        self.record = record
        self.map_path = directory / "map.json"
        self.lock_path = directory / "run" / "lock"
        self.state_path = directory / "run" / "state.json"
        self.logs = directory / "logs"
        self.password_path = directory / "secrets" / "postgres-password"
        self.keyring_path = directory / "secrets" / "keyring.json"

    @property
    def id(self) -> UUID:
        """The deployment's id, also written into each shard's database."""
        return self.record.id

    @property
    def hash_seed(self) -> int:
        """The seed of the hash of login names, drawn at birth, the same for ever."""
        return self.record.hash_seed

    @property
    def login_names(self) -> tuple[str, ...]:
        """Which fields are login names: some of "email", "username", "phone"."""
        return self.record.login_names

    @property
    def shard_ids(self) -> tuple[ShardId, ...]:
        """The ids of the shards that there are, in order: s1, s2 …"""
        return tuple(ShardId(shard.id) for shard in self.present)

    @property
    def present(self) -> tuple[ShardRecord, ...]:
        """The records of the shards that there are: those that joined too, without the removed ones."""
        return tuple(shard for shard in self.record.shards if not shard.removed)

    def joins(self, shard: ShardId) -> bool:
        """Whether the shard is still being made: it owns no bucket, and may be lost."""
        return any(record.joining for record in self.record.shards if record.id == shard)

    @property
    def shards(self) -> dict[ShardId, ShardServer]:
        """Where each shard's database is now; our own servers' ports are known once they have been started."""
        state = self.state()
        return {ShardId(shard.id): self._server(shard, state) for shard in self.present}

    def places(self) -> dict[ShardId, dict[str, Any]]:
        """How to connect to each shard, read anew from the data directory: shards that came since are in it."""
        return {shard: server.connect_args for shard, server in Deployment.load(self.directory).shards.items()}

    def control_addresses(self) -> dict[int, str]:
        """Where the control plane's nodes listen for clients, as the supervisor last wrote it."""
        return {int(node): f"{HOST}:{process.port}" for node, process in self.state().control.items()}

    @property
    def read_connect_args(self) -> dict[str, Any]:
        """Where the read models are: arguments of `asyncpg.connect`; the port is known once the server was started."""
        dsn = self.read_dsn
        if dsn is not None:
            return {"dsn": dsn}
        return self._arguments(self.state().shards.get(READ_SERVER), READ_DATABASE)

    @property
    def gateway_url(self) -> str | None:
        """Where the HTTP API is, or was when it last ran."""
        gateway = self.state().gateway
        return gateway.url if gateway else None

    def state(self) -> RunState:
        """Return what the supervisor last wrote about the running servers."""
        return read_state(self.state_path)

    def password(self) -> str:
        """Return the password of our own PostgreSQL servers. Raises `BadDeployment` if it cannot be read."""
        try:
            return self.password_path.read_text().strip()
        except OSError as error:
            raise BadDeployment(
                f"the password of the PostgreSQL servers, {self.password_path}, cannot be read: {error.strerror}"
            ) from error

    def use_keyring(self) -> None:
        """Read and write events with this deployment's keys from now on. Raises `BadDeployment` if they are lost."""
        sealing.use(Keyring.load(self.keyring_path))

    @property
    def bus(self) -> BusSettings | None:
        """How to reach the bus, as the supervisor last wrote it; None if the deployment has none."""
        try:
            return msgspec.json.decode((self.directory / BUS).read_bytes(), type=BusSettings)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.DecodeError) as error:
            raise BadDeployment(f"{self.directory / BUS} cannot be read ({error}); the next start makes it") from error

    def write_bus(self, settings: BusSettings | None) -> None:
        """Write down how to reach the bus, or that there is none."""
        if settings is None:
            (self.directory / BUS).unlink(missing_ok=True)
        else:
            write_private(self.directory / BUS, msgspec.json.encode(settings))

    def bus_password(self) -> str:
        """Return the password of our own NATS server; drawn when it is first asked for."""
        path = self.directory / "secrets" / "nats-password"
        if not path.exists():
            write_private(path, secrets.token_urlsafe(24).encode() + b"\n")
        return path.read_text().strip()

    @property
    def read_dsn(self) -> str | None:
        """The read database of somebody else's server, as the supervisor last wrote it; None: a server of our own."""
        try:
            return (self.directory / READ_DSN).read_text().strip() or None
        except FileNotFoundError:
            return None
        except OSError as error:
            raise BadDeployment(f"{self.directory / READ_DSN} cannot be read: {error.strerror}") from error

    def write_read_dsn(self, dsn: str | None) -> None:
        """Write down which read database is used; None: one on a server of our own."""
        if dsn is None:
            (self.directory / READ_DSN).unlink(missing_ok=True)
        else:
            write_private(self.directory / READ_DSN, dsn.encode() + b"\n")

    def control_secret(self, *, make: bool = False) -> bytes:
        """Return the secret of the control plane; with `make` it is drawn if there is none yet."""
        path = self.directory / "secrets" / "control-secret"
        if make and not path.exists():
            write_private(path, secrets.token_urlsafe(32).encode() + b"\n")
        try:
            return path.read_bytes().strip()
        except OSError as error:
            raise BadDeployment(f"the control plane's secret, {path}, cannot be read: {error.strerror}") from error

    def record_shard(self, shard: ShardRecord) -> None:
        """Write down a shard's record, a new one or instead of the one with the same id."""
        records = {known.id: known for known in self.record.shards} | {shard.id: shard}
        self.record = structs.replace(self.record, shards=tuple(records.values()))
        self._save()

    def _server(self, shard: ShardRecord, state: RunState) -> ShardServer:
        if shard.dsn is not None:
            return ShardServer(id=ShardId(shard.id), connect_args={"dsn": shard.dsn}, data=None)
        arguments = self._arguments(state.shards.get(shard.id), DATABASE)
        return ShardServer(id=ShardId(shard.id), connect_args=arguments, data=self.directory / (shard.directory or ""))

    def _arguments(self, running: ServerState | None, database: str) -> dict[str, Any]:
        return {
            "host": running.socket_directory if running and running.socket_directory else HOST,
            "port": running.port if running else NOWHERE,
            "user": OWNER,
            "password": self.password(),
            "database": database,
            "ssl": False,
        }

    @classmethod
    def exists(cls, directory: Path) -> bool:
        """Say whether a deployment was created in this directory."""
        return (directory / RECORD).exists()

    @classmethod
    def load(cls, directory: Path) -> "Deployment":
        """Open the deployment in `directory`.

        Raises `BadDeployment` if there is none, if it is another user's, or if its record is damaged or newer.
        """
        directory = directory.expanduser().absolute()
        path = directory / RECORD
        try:
            record = msgspec.json.decode(path.read_bytes(), type=DeploymentRecord)
        except FileNotFoundError:
            raise BadDeployment(
                f"no deployment in {directory}: start one with `denizen up --data {directory}`"
            ) from None
        except PermissionError as error:
            raise BadDeployment(f"{path} belongs to another user; use the account that started it") from error
        except (OSError, msgspec.DecodeError) as error:
            raise BadDeployment(f"{path} cannot be read ({error}); restore it from a backup") from error
        if record.format > FORMAT:
            raise BadDeployment(f"{path} was written by a newer Denizen (format {record.format}, known {FORMAT})")
        return cls(directory, record)

    @classmethod
    def create(
        cls,
        directory: Path,
        *,
        shards: int,
        dsns: Sequence[str] = (),
        login_names: Sequence[str] = ("email", "username"),
    ) -> "Deployment":
        """Decide a new deployment and write it down: `shards` servers of our own, then one shard for each DSN.

        Raises `BadDeployment` if the directory cannot be used or holds something else.
        """
        directory = directory.expanduser().absolute()
        _take_directory(directory)
        _make_subdirectories(directory)
        record = DeploymentRecord(
            format=FORMAT,
            id=uuid4(),
            created_at=datetime.now(UTC),
            hash_seed=secrets.randbits(63),
            login_names=tuple(login_names),
            shards=_first_shards(shards, dsns),
        )
        deployment = cls(directory, record)
        lock = DirectoryLock(deployment.lock_path)
        lock.acquire()
        try:
            if cls.exists(directory):  # another start at the same moment was first
                return cls.load(directory)
            write_private(deployment.password_path, secrets.token_urlsafe(24).encode() + b"\n")
            write_private(deployment.keyring_path, encode_keyring([WrappingKey.new()]))
            deployment._save()
            return deployment
        finally:
            lock.release()

    @property
    def decided(self) -> bool:
        """Whether a shard may have been made: from then on the shards and the login names stay as they are."""
        made = (self.directory / shard.directory for shard in self.record.shards if shard.directory is not None)
        return self.record.born or self.map_path.exists() or any(path.exists() for path in made)

    def decide_anew(self, *, shards: int, dsns: Sequence[str], login_names: Sequence[str]) -> None:
        """Decide otherwise than `create` did, unless the deployment is `decided`. Raises `BadDeployment` if it runs."""
        decision = {"shards": _first_shards(shards, dsns), "login_names": tuple(login_names)}
        if self.decided or structs.replace(self.record, **decision) == self.record:
            return
        lock = DirectoryLock(self.lock_path)
        lock.acquire()
        try:
            self.refresh()
            if not self.decided:
                self.record = structs.replace(self.record, **decision)
                self._save()
        finally:
            lock.release()

    def refresh(self) -> None:
        """Read the record anew: another process may have written it. Raises `BadDeployment`."""
        self.record = Deployment.load(self.directory).record

    def make_directories(self) -> None:
        """Make what is missing in the data directory and holds no data, as after a restore; `BadDeployment`."""
        _make_subdirectories(self.directory)

    def mark_born(self) -> None:
        """Remember that the birth is complete: from now on missing data are an error, never made anew."""
        self.record = structs.replace(self.record, born=True)
        self._save()

    def _save(self) -> None:
        text = msgspec.json.format(msgspec.json.encode(self.record), indent=2)
        write_private(self.directory / RECORD, text + b"\n")


def default_data_directory() -> Path:
    """Return where the data are if nobody says: `$DENIZEN_DATA`, /var/lib/denizen for root, else the user's own."""
    return Path(os.environ.get("DENIZEN_DATA") or usual_data_directory())


def usual_data_directory() -> Path:
    """Where every terminal looks, whatever its variables: /var/lib/denizen for root, else the user's own."""
    if os.geteuid() == 0:
        return Path("/var/lib/denizen")
    home = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(home) / "denizen"


def _first_shards(servers: int, dsns: Sequence[str]) -> tuple[ShardRecord, ...]:
    """The records of so many servers of our own, then of one shard for each DSN."""
    managed = [ShardRecord(id=f"s{number}", directory=f"shards/s{number}") for number in range(1, servers + 1)]
    given = [ShardRecord(id=f"s{number}", dsn=dsn) for number, dsn in enumerate(dsns, start=servers + 1)]
    return (*managed, *given)


def _take_directory(directory: Path) -> None:
    """Make the directory of a new deployment, or see that there is nothing else in it."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        known = {RECORD, "denizen.toml", "run", "logs", "secrets", "shards", "engine", "control", READ_DIRECTORY}
        strange = sorted({path.name for path in directory.iterdir() if not path.name.startswith(f".{RECORD}")} - known)
        if strange or any((directory / "shards").glob("*/PG_VERSION")):
            what = strange[0] if strange else "shards with data but no deployment.json"
            raise BadDeployment(f"{directory} holds something else ({what}): choose an empty or a new directory")
    except OSError as error:
        raise unusable(directory, error) from error


def _make_subdirectories(directory: Path) -> None:
    try:
        # Root's servers run as another user, who must be able to pass through (not to list) these.
        for path, mode in ((directory, 0o711), (directory / "shards", 0o711), (directory / "run", 0o711)):
            path.mkdir(exist_ok=True)
            path.chmod(mode)
        for name in ("logs", "secrets"):
            (directory / name).mkdir(exist_ok=True)
            (directory / name).chmod(stat.S_IRWXU)
    except OSError as error:
        raise unusable(directory, error) from error


def unusable(directory: Path, error: OSError) -> BadDeployment:
    """Return the error of a data directory that the operating system does not let us use."""
    return BadDeployment(f"the data directory {directory} cannot be used: {error.strerror}; choose another (--data)")


def write_private(path: Path, content: bytes) -> None:
    """Replace a file that only its owner may read, durably: a reader sees the old one or the new one, whole."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    sync_directory(path.parent)
