"""API keys: who may ask what. Kept on the deployment's first shard; the secret only as a hash.

A key reads `dk_<id>_<secret>`. The secret has 256 random bits, so one round of SHA-256 is enough to keep it (a slow
hash protects guessable secrets). Every gateway holds all keys in memory and refreshes them each second: a check
costs no query, and a revocation is everywhere within that second.
"""

import asyncio
import hmac
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime
from hashlib import sha256
from typing import Final

import asyncpg
import structlog
from msgspec import Struct

from denizen import limits
from denizen.errors import Invalid
from denizen.events.store import ShardStore

_log = structlog.get_logger()

SCOPES: Final = ("users:read", "users:write", "metrics:read", "admin")
_COUNT: Final = "select count(*) from denizen.api_keys where revoked_at is null"
_FORGET_REVOKED: Final = """delete from denizen.api_keys where id in (
    select id from denizen.api_keys where revoked_at is not null order by revoked_at desc offset $1)"""
_COLUMNS: Final = "id, name, scopes, rate_per_s, created_at, revoked_at"


class KeyInfo(Struct, frozen=True):
    """A key without its secret. `rate_per_s` None: the deployment's default."""

    id: str
    name: str
    scopes: frozenset[str]
    rate_per_s: int | None
    created_at: datetime
    revoked_at: datetime | None = None


class KeyRing:
    """The deployment's keys. Start it to have `check` answer from memory."""

    def __init__(self, store: ShardStore) -> None:
        self._store = store
        self._known: dict[str, tuple[KeyInfo, bytes]] = {}
        self._loading = asyncio.Lock()  # an older answer never overwrites a newer one
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Load the keys and keep them fresh; the store must be started."""
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

        async def ask(connection: asyncpg.Connection) -> datetime | None:
            async with connection.transaction():
                await connection.execute("lock table denizen.api_keys in share row exclusive mode")
                await connection.execute(_FORGET_REVOKED, limits.api_keys_max)
                if await connection.fetchval(_COUNT) >= limits.api_keys_max:
                    return None
                created_at: datetime = await connection.fetchval(
                    "insert into denizen.api_keys (id, name, secret_hash, scopes, rate_per_s)"
                    " values ($1, $2, $3, $4, $5) returning created_at",
                    identifier,
                    name,
                    _hash(token),
                    sorted(set(scopes)),
                    rate_per_s,
                )
                return created_at

        async with self._loading, self._store.reader() as connection:
            created_at = await ask(connection)
            if created_at is None:
                raise Invalid(
                    f"there are {limits.api_keys_max} keys already: the most a deployment keeps", rule="too_many"
                )
            info = KeyInfo(identifier, name, frozenset(scopes), rate_per_s, created_at)
            self._known[identifier] = (info, _hash(token))
        return info, token

    async def list(self) -> list[KeyInfo]:
        """All keys, the revoked ones too (as many as there may be live ones), oldest first."""
        await self._load()
        return sorted((info for info, _ in self._known.values()), key=lambda info: (info.created_at, info.id))

    async def revoke(self, key_id: str) -> KeyInfo | None:
        """Revoke a key for good; None if there is none with this id. Repeating it changes nothing."""

        async def ask(connection: asyncpg.Connection) -> None:
            await connection.execute(
                "update denizen.api_keys set revoked_at = coalesce(revoked_at, clock_timestamp()) where id = $1", key_id
            )

        await self._store.read(ask)
        await self._load()
        found = self._known.get(key_id)
        return None if found is None else found[0]

    def check(self, token: str) -> KeyInfo | None:
        """The key that this token opens, None if it opens nothing. Takes the same time for right and wrong secrets."""
        parts = token.split("_", 2)
        known = self._known.get(parts[1]) if len(parts) == 3 else None
        right = hmac.compare_digest(_hash(token), _NOTHING if known is None else known[1])
        if known is None or not right or known[0].revoked_at is not None:
            return None
        return known[0]

    async def _load(self) -> None:
        async with self._loading:
            self._known = await self._read()

    async def _read(self) -> dict[str, tuple[KeyInfo, bytes]]:
        async def ask(connection: asyncpg.Connection) -> "list[asyncpg.Record]":
            rows: list[asyncpg.Record] = await connection.fetch(
                f"select {_COLUMNS}, secret_hash from denizen.api_keys"  # noqa: S608 - a constant
            )
            return rows

        return {
            row["id"]: (
                KeyInfo(
                    row["id"],
                    row["name"],
                    frozenset(row["scopes"]),
                    row["rate_per_s"],
                    row["created_at"].astimezone(UTC),
                    row["revoked_at"],
                ),
                row["secret_hash"],
            )
            for row in await self._store.read(ask)
        }

    async def _refresh(self) -> None:
        while True:
            await asyncio.sleep(limits.key_refresh_interval_s)
            try:
                await self._load()
            except Exception as error:  # noqa: BLE001 - whatever it was, the next refresh must come
                _log.warning("keys_not_refreshed", error=type(error).__name__)


_NOTHING: Final = bytes(32)


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
