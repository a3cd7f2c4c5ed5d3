"""The formats of password hashes that Denizen verifies: its own (argon2id) and those that other systems bring along.

| format | example |
| --- | --- |
| argon2id, argon2i, argon2d | `$argon2id$v=19$m=19456,t=2,p=1$salt$hash` |
| bcrypt | `$2b$12$` and 53 characters; also `$2a$`, `$2y$` |
| PBKDF2 (PHC string, Passlib) | `$pbkdf2-sha256$i=600000$salt$hash`, `$pbkdf2-sha256$29000$salt$hash` |
| PBKDF2 (Django) | `pbkdf2_sha256$600000$salt$hash` |
| scrypt (PHC string) | `$scrypt$ln=17,r=8,p=1$salt$hash` |

A hash names its own cost, and whoever brings one decides what verifying it costs us. So each format has bounds: about a
second of one core and 256 MiB at most. Weak costs are accepted, since refusing them would lock people out; the first
successful verification asks for an upgrade.
"""

import binascii
import hashlib
import hmac
import re
from typing import Final, Protocol

import argon2
import bcrypt
from argon2.exceptions import InvalidHashError, VerificationError
from msgspec import Struct

from .limits import password_hash_chars_max
from .rejections import Rejected

_MEMORY_KIB_MAX: Final = 256 * 1024
_ARGON2_KIB_PASSES_MAX: Final = 1024 * 1024
_BCRYPT_COST_MAX: Final = 14
_PBKDF2_ITERATIONS_MAX: Final = 3_000_000
_SCRYPT_KIB_PASSES_MAX: Final = 512 * 1024
_PARALLELISM_MAX: Final = 16
_DIGEST_BYTES_MIN: Final = 16
_BCRYPT_BYTES: Final = 72

_BASE64: Final = r"[A-Za-z0-9+/]+"
_ARGON2: Final = re.compile(
    rf"\$argon2(?:id|i|d)(?:\$v=\d{{1,3}})?\$m=(\d{{1,9}}),t=(\d{{1,9}}),p=(\d{{1,9}})\$({_BASE64})\$({_BASE64})"
)
_BCRYPT: Final = re.compile(
    r"(\$2[aby]\$(0[4-9]|[12]\d|3[01])\$[./A-Za-z0-9]{21})([./A-Za-z0-9])([./A-Za-z0-9]{30})([./A-Za-z0-9])"
)
_BCRYPT_DIGITS: Final = "./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
_PBKDF2_PHC: Final = re.compile(
    r"\$pbkdf2(?:-(sha1|sha256|sha512))?\$(?:i=)?(\d{1,9})(?:,l=\d{1,3})?\$([A-Za-z0-9+/.]+)\$([A-Za-z0-9+/.]+)"
)
_PBKDF2_DJANGO: Final = re.compile(r"pbkdf2_(sha1|sha256|sha512)\$(\d{1,9})\$([!-#%-~]+)\$([A-Za-z0-9+/]+)={0,2}")
_SCRYPT: Final = re.compile(rf"\$scrypt\$ln=(\d{{1,2}}),r=(\d{{1,4}}),p=(\d{{1,4}})\$({_BASE64})\$({_BASE64})")


class Format(Protocol):
    """A parsed hash. Both methods are pure; `matches` is slow by intent and blocks."""

    def is_bearable(self) -> bool:
        """Whether verifying costs no more than we are ready to spend, and a wrong password cannot match by chance."""
        ...

    def matches(self, secret: bytes) -> bool:
        """Whether the hash was made of this password, compared in constant time."""
        ...


class Argon2(Struct, frozen=True):
    """RFC 9106, as libargon2 writes it."""

    text: str
    memory_kib: int
    passes: int
    parallelism: int
    salt_bytes: int
    digest_bytes: int

    def is_bearable(self) -> bool:
        """See `Format`; the lower bounds are those of the algorithm."""
        return (
            1 <= self.parallelism <= _PARALLELISM_MAX
            and 8 * self.parallelism <= self.memory_kib <= _MEMORY_KIB_MAX
            and self.passes >= 1
            and self.memory_kib * self.passes <= _ARGON2_KIB_PASSES_MAX
            and self.salt_bytes >= 8
            and _DIGEST_BYTES_MIN <= self.digest_bytes <= 64
        )

    def matches(self, secret: bytes) -> bool:
        """See `Format`."""
        try:
            return argon2.PasswordHasher().verify(self.text, secret)
        except (VerificationError, InvalidHashError):
            return False


class Bcrypt(Struct, frozen=True):
    """bcrypt in its fixed variants. Of a password it has only ever used the first 72 bytes."""

    text: str
    cost: int

    def is_bearable(self) -> bool:
        """See `Format`."""
        return self.cost <= _BCRYPT_COST_MAX

    def matches(self, secret: bytes) -> bool:
        """See `Format`. Longer passwords are cut, as every implementation did that could have made the hash."""
        try:
            return bcrypt.checkpw(secret[:_BCRYPT_BYTES], self.text.encode())
        except ValueError:
            return False


class Pbkdf2(Struct, frozen=True):
    """RFC 8018 with HMAC."""

    algorithm: str
    iterations: int
    salt: bytes
    digest: bytes

    def is_bearable(self) -> bool:
        """See `Format`. A digest longer than the hash function's costs the iterations once for each of its blocks."""
        blocks = -(-len(self.digest) // hashlib.new(self.algorithm).digest_size)
        return 1 <= self.iterations * blocks <= _PBKDF2_ITERATIONS_MAX and _DIGEST_BYTES_MIN <= len(self.digest) <= 64

    def matches(self, secret: bytes) -> bool:
        """See `Format`."""
        made = hashlib.pbkdf2_hmac(self.algorithm, secret, self.salt, self.iterations, len(self.digest))
        return hmac.compare_digest(made, self.digest)


class Scrypt(Struct, frozen=True):
    """RFC 7914; `log_n` is the base-two logarithm of N."""

    log_n: int
    r: int
    p: int
    salt: bytes
    digest: bytes

    def is_bearable(self) -> bool:
        """See `Format`."""
        return (
            1 <= self.log_n <= 24
            and self.r >= 1
            and 1 <= self.p <= _PARALLELISM_MAX
            and self._bytes() <= _MEMORY_KIB_MAX * 1024
            and self._bytes() * self.p <= _SCRYPT_KIB_PASSES_MAX * 1024
            and _DIGEST_BYTES_MIN <= len(self.digest) <= 64
        )

    def matches(self, secret: bytes) -> bool:
        """See `Format`."""
        room = self._bytes() + 128 * self.r * self.p + (1 << 20)
        made = hashlib.scrypt(
            secret, salt=self.salt, n=1 << self.log_n, r=self.r, p=self.p, maxmem=room, dklen=len(self.digest)
        )
        return hmac.compare_digest(made, self.digest)

    def _bytes(self) -> int:
        return 128 * self.r << self.log_n


def parse(text: str) -> Format:
    """The hash in its format; `Rejected` (password_hash_invalid) if it has none of those above."""
    if len(text) <= password_hash_chars_max and text.isascii():
        if match := _ARGON2.fullmatch(text):
            memory, passes, parallelism = (int(match[group]) for group in (1, 2, 3))
            return Argon2(text, memory, passes, parallelism, len(_base64(match[4])), len(_base64(match[5])))
        if match := _BCRYPT.fullmatch(text):
            return Bcrypt(_canonical_bcrypt(match), int(match[2]))
        if match := _PBKDF2_PHC.fullmatch(text):
            return Pbkdf2(match[1] or "sha1", int(match[2]), _base64(match[3]), _base64(match[4]))
        if match := _PBKDF2_DJANGO.fullmatch(text):
            return Pbkdf2(match[1], int(match[2]), match[3].encode(), _base64(match[4]))
        if match := _SCRYPT.fullmatch(text):
            log_n, r, p = (int(match[group]) for group in (1, 2, 3))
            return Scrypt(log_n, r, p, _base64(match[4]), _base64(match[5]))
    detail = "the password hash must be argon2, bcrypt, PBKDF2 or scrypt, in one of the documented formats"
    raise Rejected("password_hash_invalid", "password_hash", detail)


def _canonical_bcrypt(match: re.Match[str]) -> str:
    """The hash without the bits that carry nothing: old implementations set and ignored them, the library refuses them.

    The last digit of the salt holds two bits (128 = 21 · 6 + 2), that of the digest four (184 = 30 · 6 + 4).
    """
    salt_end, digest_end = (_BCRYPT_DIGITS.index(match[group]) for group in (3, 5))
    return match[1] + _BCRYPT_DIGITS[salt_end & 0b110000] + match[4] + _BCRYPT_DIGITS[digest_end & 0b111100]


def _base64(text: str) -> bytes:
    """Base64 without padding; Passlib writes `.` for `+`."""
    try:
        return binascii.a2b_base64(text.replace(".", "+") + "=" * (-len(text) % 4))
    except binascii.Error:
        detail = "the password hash is broken: its salt or digest is not base64"
        raise Rejected("password_hash_invalid", "password_hash", detail) from None
