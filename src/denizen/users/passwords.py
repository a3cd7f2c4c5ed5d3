"""Passwords: hashed with argon2id, verified against that and against the hashes that other systems left.

Everything here burns CPU for some ten milliseconds and blocks, by intent: call it in a bounded pool of threads (the
libraries release the interpreter's lock). Passwords are hashed in NFC, so that one typed on another keyboard fits; for
hashes from elsewhere the spelling as typed is tried as well.

The parameters are those of the OWASP Password Storage Cheat Sheet for argon2id with 19 MiB (m=19456, t=2, p=1). The
second choice of RFC 9106, section 4 (64 MiB, t=3, p=4) takes three times the memory for every check that runs at once.
"""

from typing import Final
from unicodedata import normalize

import argon2
from msgspec import Struct

from .limits import password_chars_max, password_chars_min
from .password_formats import parse
from .rejections import Rejected

_HASHER: Final = argon2.PasswordHasher(
    time_cost=2, memory_cost=19_456, parallelism=1, hash_len=32, salt_len=16, type=argon2.Type.ID
)

# The hash of a random password that nobody kept. Verify against it when there is no user or no password, so that the
# time an answer takes does not tell whether a login name exists.
DUMMY_HASH: Final = "$argon2id$v=19$m=19456,t=2,p=1$WmiKc2FlbBRiVRHwwy2ORw$SwZYxu/wMsGqRlwJDRvq+phCBhIpK11JEXzBF5xdiuk"


class Verdict(Struct, frozen=True):
    """`ok`: the password is right. `upgrade`: and its hash should be made anew, with the current parameters."""

    ok: bool
    upgrade: bool = False


def check_password(password: str) -> None:
    """Raise `Rejected` unless this can be somebody's password: its length, and no NUL or lone surrogate."""
    if len(password) < password_chars_min:
        detail = f"`password` must have at least {password_chars_min} characters"
        raise Rejected("password_too_short", "password", detail)
    if len(password) > password_chars_max:
        detail = f"`password` must have at most {password_chars_max} characters"
        raise Rejected("password_too_long", "password", detail)
    if _spellings(password) == ():
        raise Rejected("text_invalid", "password", "`password` must not contain NUL or a lone surrogate")


def hash_password(password: str) -> str:
    """The hash to keep of a password that `check_password` accepts. Blocks for tens of milliseconds."""
    check_password(password)
    return _HASHER.hash(_spellings(password)[0])


def verify_password(password_hash: str, password: str) -> Verdict:
    """Whether this is the password. Blocks; a hash that cannot be read, or an impossible password, is not ok."""
    try:
        known = parse(password_hash)
    except Rejected:
        return Verdict(ok=False)
    if len(password) > password_chars_max or not any(known.matches(secret) for secret in _spellings(password)):
        return Verdict(ok=False)
    return Verdict(ok=True, upgrade=_is_outdated(password_hash))


def check_hash(password_hash: str) -> None:
    """Raise `Rejected` unless this hash has a known format and a cost that we are ready to pay. Quick."""
    if not parse(password_hash).is_bearable():
        detail = "the password hash would cost too much to verify, or its digest is too short to protect"
        raise Rejected("password_hash_dangerous", "password_hash", detail)


def _is_outdated(password_hash: str) -> bool:
    return not password_hash.startswith("$argon2id$") or _HASHER.check_needs_rehash(password_hash)


def _spellings(password: str) -> tuple[bytes, ...]:
    """The password in NFC, then as typed if that differs; nothing if it cannot be a password."""
    try:
        typed, common = password.encode(), normalize("NFC", password).encode()
    except UnicodeEncodeError:
        return ()
    if b"\0" in typed:
        return ()
    return (common,) if common == typed else (common, typed)
