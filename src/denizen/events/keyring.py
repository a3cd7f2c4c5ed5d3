"""The deployment's wrapping keys: what makes the secrets in a shard readable.

Whatever erasing a user must destroy is stored *wrapped* (see sealing.py): sealed under one of a few wrapping keys, that
lie in a file which no PostgreSQL server ever sees. The newest key wraps; the older ones only unwrap, until everything
under them was wrapped anew and they are dropped (see rewrapping.py).

    wrapped = id of the wrapping key (4 bytes) + AES-SIV (RFC 5297) of the secret, bound to the id of its stream

AES-SIV needs no nonce and never fails badly for want of a good one, which is why key wrapping uses it; sixteen bytes
are all it adds. A running process looks at the file once a second, and whenever it meets a key that it does not know.
"""

import base64
import os
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec
import structlog
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV
from msgspec import Struct

from denizen import limits
from denizen.errors import BadDeployment
from denizen.events.codec import UnknownEvent

FORMAT: Final = 1
ID_BYTES: Final = 4
_SECRET_BYTES: Final = 64  # AES-256-SIV: one key authenticates, one encrypts
_log = structlog.get_logger()


class CannotOpen(UnknownEvent):
    """Sealed data that no key of ours opens: the keyring is another one's, or the data are damaged."""

    code, title = "cannot_open", "Sealed data cannot be opened"


class WrappingKey(Struct, frozen=True):
    """A wrapping key as the file has it: an id of eight hexadecimal digits, and 64 random bytes in base 64."""

    id: str
    created_at: datetime
    secret: str

    @classmethod
    def new(cls) -> "WrappingKey":
        """A new one, from the system's randomness."""
        secret = base64.b64encode(os.urandom(_SECRET_BYTES)).decode()
        return cls(os.urandom(ID_BYTES).hex(), datetime.now(UTC), secret)


class KeyringFile(Struct, frozen=True):
    """The content of the file, oldest key first."""

    format: int
    keys: tuple[WrappingKey, ...]


class SharedKeyring(Struct, frozen=True):
    """A keyring for a child process: its keys, and the file that it follows."""

    keys: tuple[WrappingKey, ...]
    path: str | None


class Keyring:
    """Wraps and unwraps. With a `path`, it follows the file; what it read last is used while the file is away."""

    def __init__(self, keys: Sequence[WrappingKey], path: Path | None = None) -> None:
        self._path = path
        self._stamp = 0
        self._next_look = 0.0
        self._ciphers: dict[bytes, AESSIV] = {}
        self._take(keys)

    @classmethod
    def load(cls, path: Path) -> "Keyring":
        """The keyring in this file. `BadDeployment` if it is missing or damaged."""
        ring = cls(read_keyring(path), path)
        ring._stamp = _stamp_of(path)
        return ring

    @classmethod
    def of(cls, shared: SharedKeyring) -> "Keyring":
        """The keyring that a parent process shares."""
        return cls(shared.keys, None if shared.path is None else Path(shared.path))

    def shared(self) -> SharedKeyring:
        """What a child process is to be told."""
        return SharedKeyring(self.keys, None if self._path is None else str(self._path))

    @property
    def newest(self) -> str:
        """The id of the key that wraps."""
        return self.keys[-1].id

    def wrap(self, stream: bytes, secret: bytes) -> bytes:
        """The secret of a stream (its id, 16 bytes), wrapped by the newest key."""
        if self._path is not None and time.monotonic() > self._next_look:
            self.look()
        return self._newest + self._wrapper.encrypt(secret, [stream])

    def unwrap(self, stream: bytes, wrapped: bytes) -> bytes:
        """The secret again. `CannotOpen` if its key is not here, or it belongs to another stream."""
        cipher = self._ciphers.get(wrapped[:ID_BYTES])
        if cipher is None:
            self.look()
            cipher = self._ciphers.get(wrapped[:ID_BYTES])
        if cipher is None:
            key = wrapped[:ID_BYTES].hex()
            raise CannotOpen(f"the keyring has no key {key}: restore the one that this deployment was using", key=key)
        try:
            return cipher.decrypt(wrapped[ID_BYTES:], [stream])
        except InvalidTag:
            raise CannotOpen("a wrapped key is damaged, or of another stream") from None

    def look(self) -> None:
        """Read the file again if it is another one by now."""
        self._next_look = time.monotonic() + limits.keyring_look_s
        if self._path is None:
            return
        try:
            stamp = _stamp_of(self._path)
            if stamp != self._stamp:
                self._take(read_keyring(self._path))
                self._stamp = stamp
        except (OSError, BadDeployment) as error:
            _log.warning("keyring_not_read", error=str(error))

    def _take(self, keys: Sequence[WrappingKey]) -> None:
        self.keys = tuple(keys)
        self._ciphers = {bytes.fromhex(key.id): AESSIV(base64.b64decode(key.secret)) for key in keys}
        self._newest = bytes.fromhex(keys[-1].id)
        self._wrapper = self._ciphers[self._newest]


def read_keyring(path: Path) -> tuple[WrappingKey, ...]:
    """The keys in this file. `BadDeployment` that says what to do if they cannot be had."""
    try:
        content = msgspec.json.decode(path.read_bytes(), type=KeyringFile)
    except FileNotFoundError:
        raise BadDeployment(
            f"the keyring {path} is missing: without it no event can be read or written. Restore it from your backup; "
            "it is never made anew, for a new one opens nothing that was written before"
        ) from None
    except (OSError, msgspec.DecodeError) as error:
        raise BadDeployment(f"the keyring {path} cannot be read ({error}): restore it from your backup") from error
    if content.format > FORMAT:
        raise BadDeployment(f"{path} was written by a newer Denizen (format {content.format}, known {FORMAT})")
    if not content.keys or any(not _is_sound(key) for key in content.keys):
        raise BadDeployment(f"the keyring {path} is damaged: restore it from your backup")
    return content.keys


def encode_keyring(keys: Sequence[WrappingKey]) -> bytes:
    """The content of a file with these keys."""
    text = msgspec.json.format(msgspec.json.encode(KeyringFile(FORMAT, tuple(keys))), indent=2)
    return text + b"\n"


def _is_sound(key: WrappingKey) -> bool:
    try:
        return len(bytes.fromhex(key.id)) == ID_BYTES and len(base64.b64decode(key.secret)) == _SECRET_BYTES
    except ValueError:
        return False


def _stamp_of(path: Path) -> int:
    return path.stat().st_mtime_ns
