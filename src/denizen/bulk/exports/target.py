"""Where an export goes: a file that appears whole or not at all, or standard output; compressed by its name."""

import gzip
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Final, cast

import zstandard

from denizen.errors import BadConfiguration
from denizen.processes.children import lives

STANDARD_OUTPUT: Final = "-"


@contextmanager
def target(name: str) -> Iterator[IO[bytes]]:
    """Open the target for the length of the block. A file gets mode 0600 and its name only when the block ends well."""
    if name == STANDARD_OUTPUT:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    path = Path(name)
    if os.path.isdir(name):
        raise BadConfiguration(f"{path} is a directory; name a file in it")
    fresh = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with suppress(PermissionError):
            _remove_leftovers(path)
        handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    except OSError as error:
        raise BadConfiguration(f"cannot write to {path.parent}: {error.strerror}") from error
    try:
        with os.fdopen(handle, "wb") as raw:
            with _compressed(path.name, raw) as file:
                yield file
            raw.flush()
            os.fsync(raw.fileno())
        try:
            fresh.replace(path)
        except OSError as error:
            raise BadConfiguration(f"cannot write {path}: {error.strerror}") from error
    finally:
        fresh.unlink(missing_ok=True)


def _remove_leftovers(path: Path) -> None:
    """Remove what exports to the same file left that were killed: it is full of personal data."""
    ours = re.compile(rf"\.{re.escape(path.name)}\.([0-9]+)\.part")
    for other in path.parent.iterdir():
        named = ours.fullmatch(other.name)
        if named and not lives(int(named[1])):
            other.unlink(missing_ok=True)


@contextmanager
def _compressed(name: str, raw: IO[bytes]) -> Iterator[IO[bytes]]:
    if name.endswith(".gz"):
        with gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=raw, mtime=0) as packed:
            yield cast(IO[bytes], packed)
    elif name.endswith(".zst"):
        writer: Any = zstandard.ZstdCompressor(level=3).stream_writer(raw, closefd=False)
        with writer as zipped:
            yield zipped
    else:
        yield raw
