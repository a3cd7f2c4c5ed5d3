"""The input: a file or standard input, plain, gzip or zstd (told by its first bytes, not by its name)."""

import gzip
import io
import os
import stat
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, cast

import xxhash
import zstandard

from denizen.errors import Invalid

GZIP: Final = b"\x1f\x8b"
ZSTD: Final = b"\x28\xb5\x2f\xfd"
BOM: Final = b"\xef\xbb\xbf"
_ZIP: Final = b"PK\x03\x04"
_WIDE_BOMS: Final = (b"\xff\xfe", b"\xfe\xff")
_BLOCK_BYTES: Final = 1 << 20
_HEAD_BYTES: Final = 1 << 20
_PACKED_BYTES: Final = 256  # unpacked at a time: even of the tightest zstd they give no more than 8 MiB
STANDARD_INPUT: Final = "-"


class UnreadableError(Invalid):
    """The input cannot be read as what it seems to be."""

    code, title = "input_unreadable", "Input not readable"


class _Counted(io.RawIOBase):
    """Counts what is read, for the progress; some bytes were read already."""

    def __init__(self, file: io.BufferedReader | io.FileIO, already: bytes) -> None:
        self._file = file
        self._already = already
        self.position = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self._already:
            part, self._already = self._already[: len(buffer)], self._already[len(buffer) :]
            buffer[: len(part)] = part
            count = len(part)
        else:
            count = self._file.readinto(buffer) or 0
        self.position += count
        return count


class _Unpacked(io.RawIOBase):
    """The content of zstd frames one after the other; `EOFError` if the last one is cut off."""

    def __init__(self, packed: io.BufferedReader) -> None:
        self._packed = packed
        self._frame = zstandard.ZstdDecompressor().decompressobj()
        self._ready = memoryview(b"")
        self._behind = b""  # what was read already of the next frame

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            piece = self._behind or self._packed.read(_PACKED_BYTES)
            if not piece and not self._frame.eof:
                raise EOFError("it ends within a zstd frame")
            if not piece:
                return 0
            if self._frame.eof:
                self._frame = zstandard.ZstdDecompressor().decompressobj()
            self._ready = memoryview(self._frame.decompress(piece))
            self._behind = self._frame.unused_data
        count = min(len(buffer), len(self._ready))
        buffer[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count


class Source:
    """An opened input: `lines` to read from, how far it is, and how long it is if that is known."""

    def __init__(self, name: str, counted: _Counted, lines: io.BufferedReader, status: os.stat_result) -> None:
        self.name = name
        self.status = status
        self.size = status.st_size if stat.S_ISREG(status.st_mode) else None
        self._counted = counted
        self._lines = lines

    @property
    def position(self) -> int:
        """Bytes of the file read so far, compressed as they are."""
        return self._counted.position

    @property
    def is_json_array(self) -> bool:
        """Whether the content begins as a JSON array does."""
        return self._lines.peek(1).lstrip()[:1] == b"["

    def readline(self, bytes_max: int) -> bytes:
        """The next line, or the first `bytes_max` bytes of it; nothing at the end. Raises `UnreadableError`."""
        try:
            return self._lines.readline(bytes_max)
        except (gzip.BadGzipFile, EOFError, zlib.error, zstandard.ZstdError) as error:
            raise UnreadableError(
                f"{self.name} is damaged or cut off: {error}; import a whole one: rows that are there are skipped"
            ) from error
        except OSError as error:
            raise UnreadableError(f"{self.name} cannot be read: {error.strerror or error}") from error


@contextmanager
def open_source(path: str) -> Iterator[Source]:
    """Open a file, or standard input as `-`. Raises `UnreadableError`."""
    standard = path == STANDARD_INPUT
    name = "standard input" if standard else path
    try:
        file = cast(io.BufferedReader, sys.stdin.buffer) if standard else Path(path).open("rb")  # noqa: SIM115
    except OSError as error:
        raise UnreadableError(f"{path} cannot be read: {error.strerror}") from error
    try:
        yield _source(file, name)
    finally:
        if not standard:
            file.close()


def _source(file: io.BufferedReader, name: str) -> Source:
    try:
        head = _read_exactly(file.read, 4)
        if head.startswith(_WIDE_BOMS):
            raise UnreadableError(f"{name} is in UTF-16; convert it to UTF-8 first")
        if head == _ZIP:
            raise UnreadableError(f"{name} is a zip archive or a spreadsheet; unpack it, or save it as CSV in UTF-8")
        counted = _Counted(file, head)
        lines = io.BufferedReader(cast(Any, _opener(head)(counted)), _BLOCK_BYTES)
        if lines.peek(len(BOM)).startswith(BOM):
            lines.read(len(BOM))
        return Source(name, counted, lines, os.fstat(file.fileno()))
    except (gzip.BadGzipFile, EOFError, zlib.error, zstandard.ZstdError) as error:
        raise UnreadableError(f"{name} is damaged or cut off: {error}") from error
    except OSError as error:
        raise UnreadableError(f"{name} cannot be read: {error.strerror or error}") from error


def head_hash(path: str) -> str:
    """A digest of the beginning of a file, to tell it from another of the same name and size."""
    with Path(path).open("rb") as file:
        return xxhash.xxh3_128_hexdigest(file.read(_HEAD_BYTES))


def _opener(head: bytes) -> Callable[[_Counted], Any]:
    if head.startswith(GZIP):
        return lambda counted: gzip.GzipFile(fileobj=io.BufferedReader(counted, _BLOCK_BYTES))
    if head.startswith(ZSTD):
        return lambda counted: _Unpacked(io.BufferedReader(counted, _BLOCK_BYTES))
    return lambda counted: counted


def _read_exactly(read: Callable[[int], bytes], count: int) -> bytes:
    data = b""
    while len(data) < count and (more := read(count - len(data))):
        data += more
    return data
