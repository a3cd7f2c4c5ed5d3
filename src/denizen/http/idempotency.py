"""Idempotency keys: what a retry is recognised by.

A write with `Idempotency-Key` is stored with the key (scoped by the API key), a fingerprint of the request and its
outcome, in the transaction of its events. A repetition gets that outcome; another request with the same key is refused.

**What is guaranteed.** The record belongs to the bucket that the write went to. So for every write to an existing user,
and for a registration with the same first login name, reuse for another request is always found. A *registration* with
another first login name goes to another bucket, where nothing is known of the key: this gateway remembers the recent
keys it let through (`RecentKeys`, bounded) and refuses the reuse; another gateway, or this one after a restart or after
`recent_idempotency_keys_max` other keys, does not notice it and carries the second request out as a write of its own.

**Fingerprints** have no plain password in them: they are stored, and a quick hash over a known email and an unknown
password would be a way to guess it. In memory, where the hash has a random secret, the password counts: the same key
with another password is refused by the gateway that remembers the first.
"""

import hashlib
import re
import secrets
from collections import OrderedDict
from typing import Any, Final

from msgspec import json

from denizen.errors import IdempotencyKeyReused
from denizen.http.refusals import InvalidHeader
from denizen.limits import idempotency_key_chars_max, recent_idempotency_keys_max

_VISIBLE: Final = re.compile(r"[\x21-\x7e]+")
_canonical: Final = json.Encoder(order="sorted")


def check_key(key: str) -> str:
    """The value of `Idempotency-Key`, or `InvalidHeader`: 1 to 255 visible ASCII characters."""
    if len(key) > idempotency_key_chars_max or not _VISIBLE.fullmatch(key):
        detail = f"`Idempotency-Key` must be 1 to {idempotency_key_chars_max} visible ASCII characters"
        raise InvalidHeader("Idempotency-Key", detail)
    return key


def fingerprint(method: str, path: str, body: Any) -> bytes:
    """What is stored with the key: a hash of method, path and canonical body, without plain passwords."""
    return _digest(method, path, _without_password(body), b"")


def _without_password(body: Any) -> Any:
    if isinstance(body, dict) and isinstance(body.get("password"), str):
        return body | {"password": True}
    return body


def _digest(method: str, path: str, body: Any, secret: bytes) -> bytes:
    text = b"\0".join((method.encode(), path.encode(), _canonical.encode(body)))
    return hashlib.blake2b(text, digest_size=16, key=secret).digest()


class RecentKeys:
    """The idempotency keys that this process let through lately, with the fingerprint of their request."""

    def __init__(self, keys_max: int = recent_idempotency_keys_max) -> None:
        self._keys_max = keys_max
        self._secret = secrets.token_bytes(32)
        self._fingerprints: OrderedDict[str, bytes] = OrderedDict()

    def claim(self, scoped_key: str, method: str, path: str, body: Any) -> bool:
        """Note the key for this request: True if it is new here. `IdempotencyKeyReused` if it was for another one."""
        mark = _digest(method, path, body, self._secret)
        known = self._fingerprints.setdefault(scoped_key, mark)
        if known != mark:
            raise IdempotencyKeyReused("this idempotency key was used for another request")
        self._fingerprints.move_to_end(scoped_key)
        if len(self._fingerprints) > self._keys_max:
            self._fingerprints.popitem(last=False)
        return known is mark

    def release(self, scoped_key: str) -> None:
        """Forget the key: its request was refused and changed nothing, so a corrected one may use it."""
        self._fingerprints.pop(scoped_key, None)
