"""Our hashes and those from elsewhere are verified, and dangerous ones are refused before they cost anything."""

import hashlib
from base64 import b64encode

import argon2
import bcrypt
import pytest

from denizen.users.passwords import DUMMY_HASH, Verdict, check_hash, hash_password, verify_password
from denizen.users.rejections import Rejected

PASSWORD = "correct horse ü"
SALT = b"sixteen bytes ok"
GOOD, OLD, BAD = Verdict(ok=True), Verdict(ok=True, upgrade=True), Verdict(ok=False)


def _b64(data: bytes) -> str:
    return b64encode(data).decode().rstrip("=")


def _pbkdf2(algorithm: str, iterations: int = 1000) -> bytes:
    return hashlib.pbkdf2_hmac(algorithm, PASSWORD.encode(), SALT, iterations)


def _bcrypt(password: bytes = PASSWORD.encode(), prefix: str = "$2b$") -> str:
    return prefix + bcrypt.hashpw(password, bcrypt.gensalt(4)).decode().removeprefix("$2b$")


def _argon2(kind: argon2.Type, version: int = 19) -> str:
    return argon2.low_level.hash_secret(PASSWORD.encode(), SALT, 1, 64, 1, 32, kind, version).decode()


SCRYPT = hashlib.scrypt(PASSWORD.encode(), salt=SALT, n=1 << 10, r=8, p=1, dklen=32)
FOREIGN = {
    "bcrypt": _bcrypt(),
    "bcrypt 2a": _bcrypt(prefix="$2a$"),
    "bcrypt 2y": _bcrypt(prefix="$2y$"),
    "argon2i": _argon2(argon2.Type.I),
    "argon2d": _argon2(argon2.Type.D),
    "argon2id, weaker": _argon2(argon2.Type.ID),
    "argon2i, version 16": _argon2(argon2.Type.I, 16),
    "pbkdf2 phc sha256": f"$pbkdf2-sha256$i=1000,l=32${_b64(SALT)}${_b64(_pbkdf2('sha256'))}",
    "pbkdf2 phc sha512": f"$pbkdf2-sha512$i=1000${_b64(SALT)}${_b64(_pbkdf2('sha512'))}",
    "pbkdf2 passlib": f"$pbkdf2-sha256$1000${_b64(SALT)}${_b64(_pbkdf2('sha256')).replace('+', '.')}",
    "pbkdf2 passlib sha1": f"$pbkdf2$1000${_b64(SALT)}${_b64(_pbkdf2('sha1')).replace('+', '.')}",
    "pbkdf2 django": "pbkdf2_sha256$1000$sixteen-bytes-ok$"
    + b64encode(hashlib.pbkdf2_hmac("sha256", PASSWORD.encode(), b"sixteen-bytes-ok", 1000)).decode(),
    "scrypt": f"$scrypt$ln=10,r=8,p=1${_b64(SALT)}${_b64(SCRYPT)}",
}


def test_a_new_hash_verifies_and_needs_no_upgrade() -> None:
    made = hash_password(PASSWORD)
    check_hash(made)
    assert made.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert verify_password(made, PASSWORD) == GOOD
    assert verify_password(made, PASSWORD + "!") == BAD
    assert hash_password(PASSWORD) != made


@pytest.mark.parametrize("known", FOREIGN.values(), ids=FOREIGN)
def test_a_foreign_hash_is_accepted_verified_and_marked_for_upgrade(known: str) -> None:
    check_hash(known)
    assert verify_password(known, PASSWORD) == OLD
    assert verify_password(known, PASSWORD.upper()) == BAD
    assert verify_password(known, "") == BAD


def test_bcrypt_sees_the_first_72_bytes_only_as_it_always_has() -> None:
    long = "ä" * 30 + "b" * 60
    known = _bcrypt(long.encode()[:72])
    assert verify_password(known, long) == OLD
    assert verify_password(known, long + "whatever") == OLD
    assert verify_password(known, "x" + long) == BAD


def test_bcrypt_bits_that_carry_nothing_do_not_matter() -> None:
    digits = "./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
    known = _bcrypt()
    salt_end, digest_end = (digits[digits.index(known[place]) | bits] for place, bits in ((28, 0b001111), (59, 0b11)))
    sloppy = known[:28] + salt_end + known[29:59] + digest_end
    assert sloppy != known
    assert verify_password(sloppy, PASSWORD) == OLD
    assert verify_password(sloppy, PASSWORD + "!") == BAD


def test_another_keyboard_spells_the_same_password() -> None:
    decomposed = PASSWORD.replace("ü", "u\u0308")
    assert verify_password(hash_password(decomposed), PASSWORD) == GOOD
    assert verify_password(hash_password(PASSWORD), decomposed) == GOOD
    assert verify_password(_bcrypt(decomposed.encode()), decomposed) == OLD


@pytest.mark.parametrize(
    "unknown",
    [
        "",
        "hunter2",
        "5f4dcc3b5aa765d61d8327deb882cf99",
        "$1$salt$hash",
        "$2b$03$" + "a" * 53,
        "$2b$12$" + "a" * 52,
        "$argon2id$v=19$m=19456,t=2,p=1$salt",
        "$argon2id$v=19$m=19456,t=2,p=1$a$a",
        "$pbkdf2-md5$i=1000$c2FsdHNhbHQ$AAAAAAAAAAAAAAAAAAAAAA",
        "$scrypt$ln=10,r=8$c2FsdHNhbHQ$AAAAAAAAAAAAAAAAAAAAAA",
        DUMMY_HASH + "\n",
        DUMMY_HASH.replace("m=19456", "m=1９456"),
        "$argon2id$" + "a" * 2000,
    ],
)
def test_an_unknown_hash_is_refused_and_verifies_nothing(unknown: str) -> None:
    with pytest.raises(Rejected) as caught:
        check_hash(unknown)
    assert (caught.value.code, caught.value.field) == ("password_hash_invalid", "password_hash")
    assert verify_password(unknown, PASSWORD) == BAD


@pytest.mark.parametrize(
    "dangerous",
    [
        "$2b$31$" + "a" * 53,
        "$2b$15$" + "a" * 53,
        DUMMY_HASH.replace("m=19456", "m=4194304"),
        DUMMY_HASH.replace("t=2", "t=4000000"),
        DUMMY_HASH.replace("p=1", "p=255"),
        DUMMY_HASH.replace("t=2", "t=0"),
        DUMMY_HASH.replace("m=19456", "m=7"),
        "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHQ$AAAA",
        "$pbkdf2-sha256$i=999999999$c2FsdHNhbHQ$AAAAAAAAAAAAAAAAAAAAAA",
        "$pbkdf2-sha256$i=0$c2FsdHNhbHQ$AAAAAAAAAAAAAAAAAAAAAA",
        "$pbkdf2-sha256$i=1000$c2FsdHNhbHQ$AAAA",
        f"$pbkdf2-sha1$i=2000000$c2FsdHNhbHQ${'A' * 86}",
        f"$pbkdf2-sha1$i=1000$c2FsdHNhbHQ${'A' * 800}",
        "pbkdf2_sha256$999999999$salt$AAAAAAAAAAAAAAAAAAAAAA==",
        "$scrypt$ln=63,r=8,p=1$c2FsdHNhbHQ$AAAAAAAAAAAAAAAAAAAAAA",
        "$scrypt$ln=20,r=8,p=1$c2FsdHNhbHQ$AAAAAAAAAAAAAAAAAAAAAA",
        "$scrypt$ln=17,r=8,p=16$c2FsdHNhbHQ$AAAAAAAAAAAAAAAAAAAAAA",
        "$scrypt$ln=10,r=0,p=1$c2FsdHNhbHQ$AAAAAAAAAAAAAAAAAAAAAA",
    ],
)
def test_an_absurd_cost_is_refused_without_paying_it(dangerous: str) -> None:
    with pytest.raises(Rejected) as caught:
        check_hash(dangerous)
    assert caught.value.code == "password_hash_dangerous"


@pytest.mark.parametrize("password", ["with\0nul and more", "lone \ud800 surrogate", "x" * 1025])
def test_an_impossible_password_is_never_right(password: str) -> None:
    assert verify_password(DUMMY_HASH, password) == BAD
    with pytest.raises(Rejected):
        hash_password(password)


def test_the_dummy_costs_what_a_real_hash_costs() -> None:
    made = hash_password(PASSWORD)
    assert argon2.extract_parameters(DUMMY_HASH) == argon2.extract_parameters(made)
    assert verify_password(DUMMY_HASH, PASSWORD) == BAD
