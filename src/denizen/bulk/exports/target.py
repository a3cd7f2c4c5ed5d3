"""Where an export goes: a file that appears whole or not at all, readable by its owner only, or standard output."""

import gzip
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final, cast

import zstandard

from denizen.errors import Invalid
from denizen.postgres.cluster import sync_directory

STANDARD_OUTPUT: Final = "-"
_BUFFER_BYTES: Final = 1 << 20


class UnwritableError(Invalid):
    """The file cannot be written."""

    code, title = "output_unwritable", "Output not writable"


@contextmanager
def open_target(path: str) -> Iterator[IO[bytes]]:
    """Open it; compressed if the name ends in .gz or .zst. If the block fails, the file is as it was before."""
    if path == STANDARD_OUTPUT:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    target = Path(path)
    fresh = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb", _BUFFER_BYTES) as file:
            with _compressed(target.name, file) as outer:
                yield outer
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(target)
        sync_directory(target.parent)
    except OSError as error:
        raise UnwritableError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        fresh.unlink(missing_ok=True)


@contextmanager
def _compressed(name: str, file: IO[bytes]) -> Iterator[IO[bytes]]:
    if name.endswith(".gz"):
        with gzip.GzipFile(fileobj=file, mode="wb", filename="", compresslevel=6, mtime=0) as outer:
            yield cast(IO[bytes], outer)
    elif name.endswith((".zst", ".zstd")):
        with zstandard.ZstdCompressor(level=6).stream_writer(cast(Any, file), closefd=False) as outer:
            yield cast(IO[bytes], outer)
    else:
        yield file
