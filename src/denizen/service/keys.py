"""API keys: who may ask what. Kept on every shard (see `key_copies`); the secret only as a hash.

A key reads `dk_<id>_<secret>`. The secret has 256 random bits, so one round of SHA-256 is enough to keep it (a slow
hash protects guessable secrets). Every gateway holds all keys in memory and refreshes them each second: a check
costs no query, and a revocation is everywhere within that second. A refresh also brings every shard what it lacks: one
that joined, or was away while a key was made or revoked.
"""

import asyncio
import hmac
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from hashlib import sha256
from typing import Final, TypeVar

import asyncpg
import structlog
from msgspec import Struct, structs

from denizen import limits
from denizen.errors import DenizenError, Invalid, Unavailable
from denizen.events.store import ShardStore
from denizen.service.key_copies import KeyRow, merged, missing, read_keys, write_keys
from denizen.sharding.ids import ShardId

Answer = TypeVar("Answer")

_log = structlog.get_logger()

SCOPES: Final = ("users:read", "users:write", "metrics:read", "admin")
_FORGET_REVOKED: Final = """delete from denizen.api_keys where id in (
    select id from denizen.api_keys where revoked_at is not null order by revoked_at desc offset $1)"""


class KeyInfo(Struct, frozen=True):
    """A key without its secret. `rate_per_s` None: the deployment's default."""

    id: str
    name: str
    scopes: frozenset[str]
    rate_per_s: int | None
    created_at: datetime
    revoked_at: datetime | None = None


class KeyRing:
    """The deployment's keys. Start it to have `check` answer from memory. `stores` are the shards of now, started."""

    def __init__(self, stores: Mapping[ShardId, ShardStore]) -> None:
        self._stores = stores
        self._known: dict[str, KeyRow] = {}
        self._infos: dict[str, KeyInfo] = {}  # the same, as `check` gives them
        self._loading = asyncio.Lock()  # an older answer never overwrites a newer one
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Load the keys and keep them fresh; `Unavailable` if no shard answers."""
        await self._load()
        self._task = asyncio.get_running_loop().create_task(self._refresh())

    async def stop(self) -> None:
        """Stop refreshing."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def create(self, name: str, scopes: Sequence[str], rate_per_s: int | None = None) -> tuple[KeyInfo, str]:
        """A new key and its token, which is shown only now. `Invalid` names what is wrong."""
        _check(name, scopes, rate_per_s)
        identifier = secrets.token_hex(6)
        token = f"dk_{identifier}_{secrets.token_urlsafe(32)}"
        row = KeyRow(identifier, name, _hash(token), tuple(sorted(set(scopes))), rate_per_s, datetime.now(UTC))

        async def ask(connection: asyncpg.Connection) -> None:
            async with connection.transaction():
                await connection.execute(_FORGET_REVOKED, limits.api_keys_max)
                await write_keys(connection, [row])

        await self._load()
        async with self._loading:
            if sum(known.revoked_at is None for known in self._known.values()) >= limits.api_keys_max:
                raise Invalid(
                    f"there are {limits.api_keys_max} keys already: the most a deployment keeps", rule="too_many"
                )
            await self._everywhere(ask)
            self._know(self._known | {identifier: row})
        return _info(row), token

    async def list(self) -> list[KeyInfo]:
        """All keys, the revoked ones too (as many as there may be live ones), oldest first."""
        await self._load()
        return sorted(self._infos.values(), key=lambda info: (info.created_at, info.id))

    async def revoke(self, key_id: str) -> KeyInfo | None:
        """Revoke a key for good; None if there is none with this id. Repeating it changes nothing."""
        await self._load()
        found = self._known.get(key_id)
        if found is None:
            return None
        revoked = structs.replace(found, revoked_at=found.revoked_at or datetime.now(UTC))

        async def ask(connection: asyncpg.Connection) -> None:
            await write_keys(connection, [revoked])

        async with self._loading:
            await self._everywhere(ask)
            self._know(self._known | {key_id: revoked})
        return _info(revoked)

    def check(self, token: str) -> KeyInfo | None:
        """The key that this token opens, None if it opens nothing. Takes the same time for right and wrong secrets."""
        parts = token.split("_", 2)
        known = self._known.get(parts[1]) if len(parts) == 3 else None
        right = hmac.compare_digest(_hash(token), _NOTHING if known is None else known.secret_hash)
        if known is None or not right or known.revoked_at is not None:
            return None
        return self._infos[known.id]

    async def _load(self) -> None:
        """Read every copy, and bring each what it lacks; with a shard out of reach nothing known is forgotten."""
        async with self._loading:
            copies = await self._everywhere(read_keys)
            whole = len(copies) == len(self._stores)
            union = merged(copies.values() if whole else [*copies.values(), self._known])
            for shard, copy in copies.items():
                if lacking := missing(copy, union):
                    await self._bring(shard, lacking)
            self._know(union)

    def _know(self, rows: dict[str, KeyRow]) -> None:
        self._known = rows
        self._infos = {identifier: _info(row) for identifier, row in rows.items()}

    async def _bring(self, shard: ShardId, rows: Sequence[KeyRow]) -> None:
        async def ask(connection: asyncpg.Connection) -> None:
            await write_keys(connection, rows)

        store = self._stores.get(shard)
        with suppress(DenizenError):  # the next refresh brings it
            if store is not None:
                await store.read(ask)

    async def _everywhere(self, ask: Callable[[asyncpg.Connection], Awaitable[Answer]]) -> dict[ShardId, Answer]:
        """The answers of the shards that answer; `Unavailable` if none does."""
        stores = dict(self._stores)
        answers = await asyncio.gather(*(store.read(ask) for store in stores.values()), return_exceptions=True)
        found: dict[ShardId, Answer] = {}
        for shard, answer in zip(stores, answers, strict=True):
            if isinstance(answer, DenizenError):
                continue
            if isinstance(answer, BaseException):
                raise answer
            found[shard] = answer
        if not found:
            raise Unavailable("no shard answers, so that the keys are not known")
        return found

    async def _refresh(self) -> None:
        while True:
            await asyncio.sleep(limits.key_refresh_interval_s)
            try:
                await self._load()
            except Exception as error:  # noqa: BLE001 - whatever it was, the next refresh must come
                _log.warning("keys_not_refreshed", error=type(error).__name__)


_NOTHING: Final = bytes(32)


def _info(row: KeyRow) -> KeyInfo:
    return KeyInfo(row.id, row.name, frozenset(row.scopes), row.rate_per_s, row.created_at, row.revoked_at)


def _hash(token: str) -> bytes:
    return sha256(token.encode("utf-8", "surrogatepass")).digest()


def _check(name: str, scopes: Sequence[str], rate_per_s: int | None) -> None:
    if not 1 <= len(name) <= limits.key_name_chars_max or not name.isprintable():
        raise Invalid(
            f"a key's name has 1 to {limits.key_name_chars_max} printable characters", field="name", rule="name"
        )
    wrong = [scope for scope in scopes if scope not in SCOPES]
    if wrong or not scopes:
        raise Invalid(
            f"a key needs one or more of the scopes {', '.join(SCOPES)}" + (f", not {wrong[0]!r}" if wrong else ""),
            field="scopes",
            rule="scope",
        )
    if rate_per_s is not None and not 1 <= rate_per_s <= limits.key_rate_per_s_max:
        raise Invalid(
            f"a key's rate is 1 to {limits.key_rate_per_s_max} requests per second", field="rate_per_s", rule="rate"
        )
