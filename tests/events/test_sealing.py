"""Sealed data: opened by their own key, for their own event, and by nothing else."""

import os
import time
from pathlib import Path
from uuid import uuid4

import pytest

from denizen.errors import BadDeployment
from denizen.events import sealing
from denizen.events.keyring import CannotOpen, Keyring, WrappingKey, encode_keyring, read_keyring
from denizen.events.sealing import cipher_to_seal_with, new_key, open_name, opened, seal, seal_name

STREAM, OTHER = uuid4().bytes, uuid4().bytes
DATA = b"\x81\xa5email\xafann@example.com"


def test_what_is_sealed_opens_for_its_own_event_only() -> None:
    secret, cipher = new_key(STREAM)
    sealed = seal(cipher, STREAM, 3, 2, 1, DATA)
    assert DATA not in sealed
    assert opened(STREAM, 3, 2, 1, sealed, secret) == DATA
    for stream, version, number, schema in ((STREAM, 4, 2, 1), (STREAM, 3, 3, 1), (STREAM, 3, 2, 2)):
        with pytest.raises(CannotOpen):
            opened(stream, version, number, schema, sealed, secret)
    with pytest.raises(CannotOpen):
        opened(OTHER, 3, 2, 1, sealed, secret)  # nor does a stream's secret serve another one
    with pytest.raises(CannotOpen):
        opened(STREAM, 3, 2, 1, sealed[:-1] + bytes((sealed[-1] ^ 1,)), secret)


def test_without_its_secret_nothing_opens_and_plain_data_need_none() -> None:
    _, cipher = new_key(STREAM)
    assert opened(STREAM, 1, 1, 1, seal(cipher, STREAM, 1, 1, 1, DATA), None) is None
    assert opened(STREAM, 1, 1, 1, DATA, None) == DATA


def test_the_same_data_are_never_sealed_alike() -> None:
    _, cipher = new_key(STREAM)
    assert len({seal(cipher, STREAM, 1, 1, 1, DATA) for _ in range(100)}) == 100


def test_a_login_name_is_its_streams_secret() -> None:
    secret = seal_name(STREAM, "zoë@example.com")
    assert "zoë".encode() not in secret
    assert open_name(STREAM, secret) == "zoë@example.com"
    assert open_name(STREAM, None) is None
    with pytest.raises(CannotOpen):
        open_name(OTHER, secret)


def test_another_deployments_keyring_opens_nothing_and_says_which_key_is_missing() -> None:
    mine, theirs = Keyring([WrappingKey.new()]), Keyring([WrappingKey.new()])
    wrapped = theirs.wrap(STREAM, bytes(32))
    with pytest.raises(CannotOpen, match=theirs.newest):
        mine.unwrap(STREAM, wrapped)


def test_an_older_key_still_unwraps_and_the_newest_wraps() -> None:
    old, new = WrappingKey.new(), WrappingKey.new()
    wrapped = Keyring([old]).wrap(STREAM, b"secret")
    both = Keyring([old, new])
    assert both.unwrap(STREAM, wrapped) == b"secret"
    assert both.wrap(STREAM, b"secret")[:4].hex() == new.id
    with pytest.raises(CannotOpen):
        Keyring([new]).unwrap(STREAM, wrapped)


def test_a_running_process_learns_of_a_new_key(tmp_path: Path) -> None:
    path = tmp_path / "keyring.json"
    old, new = WrappingKey.new(), WrappingKey.new()
    path.write_bytes(encode_keyring([old]))
    ring = Keyring.load(path)
    path.write_bytes(encode_keyring([old, new]))
    os.utime(path, ns=(time.time_ns(), time.time_ns() + 1_000_000))
    assert ring.unwrap(STREAM, Keyring([new]).wrap(STREAM, b"secret")) == b"secret"  # at once: it does not know the key
    assert ring.newest == new.id
    path.unlink()
    ring.look()
    assert ring.newest == new.id  # while the file is away, the last one serves


@pytest.mark.parametrize("content", [None, b"", b"{}", b'{"format": 1, "keys": []}', b'{"format": 9, "keys": []}'])
def test_a_keyring_that_is_missing_or_damaged_is_never_made_anew(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "keyring.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BadDeployment, match=r"keyring.*(Restore|restore|newer)"):
        read_keyring(path)
    assert path.exists() == (content is not None)


def test_without_a_keyring_nothing_is_written_unsealed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealing, "_keyring", None)
    with pytest.raises(BadDeployment, match="no keyring"):
        new_key(STREAM)


def test_what_is_sealed_for_a_stream_without_a_key_can_be_opened_by_none() -> None:
    secret, _ = new_key(STREAM)
    assert opened(STREAM, 2, 1, 1, seal(cipher_to_seal_with(STREAM, secret), STREAM, 2, 1, 1, DATA), secret) == DATA
    nobodys = seal(cipher_to_seal_with(STREAM, None), STREAM, 2, 1, 1, DATA)
    with pytest.raises(CannotOpen):
        opened(STREAM, 2, 1, 1, nobodys, secret)
