"""Sealing: what erasing a user must be able to destroy is encrypted, each user's under a key of its own.

A user's stream has a random key (AES-256-GCM), made with its first event. It is stored wrapped (see keyring.py) in the
column `secret` of that event's row, and nowhere else. The data of every event that can hold anything personal is

    0x01 + nonce (12 bytes) + AES-GCM of the document, bound to stream, version, type and schema

while a plain document is a MessagePack map, which never begins with 0x01: what is sealed says so itself. A login name
in another bucket than its user's has a stream of its own, whose id tells nothing; the `secret` of the event that
reserves the name is the name itself, wrapped, and nothing else in that stream is personal.

So whatever is to be destroyed of a stream is the `secret` of one row. `event_hash` does not cover that column: erasing
it leaves the digests of buckets as they are. Readers never need more than the row of the event and that secret.

A process serves one deployment, so it has one keyring, as it has one log: `use` it before anything is read or written.
"""

import os
from functools import lru_cache
from struct import Struct
from typing import Final
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from denizen import limits
from denizen.errors import BadDeployment
from denizen.events.keyring import CannotOpen, Keyring

SEALED: Final = b"\x01"
_KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12
_bound: Final = Struct(">16sihh").pack

_keyring: Keyring | None = None


def use(ring: Keyring) -> None:
    """Seal and open with this keyring from now on, in the whole process."""
    global _keyring  # noqa: PLW0603 - see above: one process, one deployment
    if ring is not _keyring:
        _keyring = ring
        _cipher.cache_clear()


def keyring() -> Keyring:
    """The keyring in use. `BadDeployment` if there is none: nothing is ever written unsealed instead."""
    if _keyring is None:
        raise BadDeployment("this process has no keyring: load the deployment's before reading or writing events")
    return _keyring


def new_key(stream: bytes) -> tuple[bytes, AESGCM]:
    """A key for a stream that begins: wrapped, to be stored with its first event, and ready to seal with."""
    key = os.urandom(_KEY_BYTES)
    return keyring().wrap(stream, key), AESGCM(key)


def seal(  # noqa: PLR0917 - what an event's data is bound to
    cipher: AESGCM, stream: bytes, version: int, number: int, schema: int, data: bytes
) -> bytes:
    """An event's data as it is stored; `number` is that of its type."""
    nonce = os.urandom(_NONCE_BYTES)
    return SEALED + nonce + cipher.encrypt(nonce, data, _bound(stream, version, number, schema))


def opened(  # noqa: PLR0917
    stream: bytes, version: int, number: int, schema: int, data: bytes, secret: bytes | None
) -> bytes | None:
    """The document of an event, from its stored data and its stream's secret; None if the secret was destroyed."""
    if data[:1] != SEALED:
        return data
    if secret is None:
        return None
    return open_sealed(_cipher(stream, secret), stream, version, number, schema, data)


def open_sealed(  # noqa: PLR0917
    cipher: AESGCM, stream: bytes, version: int, number: int, schema: int, data: bytes
) -> bytes:
    """The document in sealed data. `CannotOpen` if it is damaged, or of another event."""
    try:
        return cipher.decrypt(data[1:13], data[13:], _bound(stream, version, number, schema))
    except InvalidTag:
        raise CannotOpen(
            f"the data of version {version} of stream {UUID(bytes=stream)} are damaged, or of another event"
        ) from None


# Events of one stream often come together, and a row has its stream's secret in the same bytes each time.
@lru_cache(maxsize=limits.stream_ciphers_max)
def _cipher(stream: bytes, secret: bytes) -> AESGCM:
    return cipher_of(stream, secret)


def cipher_of(stream: bytes, secret: bytes) -> AESGCM:
    """What opens and seals the events of a stream."""
    return AESGCM(keyring().unwrap(stream, secret))


def cipher_to_seal_with(stream: bytes, secret: bytes | None) -> AESGCM:
    """What seals the next events of a stream; any cipher if its key was destroyed: nothing more is accepted for it."""
    return AESGCM(os.urandom(_KEY_BYTES)) if secret is None else cipher_of(stream, secret)


def seal_name(stream: bytes, value: str) -> bytes:
    """The secret of a login name's own stream: the name."""
    return keyring().wrap(stream, value.encode())


def open_name(stream: bytes, secret: bytes | None) -> str | None:
    """The name again; None if it was destroyed."""
    return None if secret is None else keyring().unwrap(stream, secret).decode()
