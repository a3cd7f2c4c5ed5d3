"""Cutting: always at the same places, never inside a record, and no line is too long to be refused."""

import gzip
import os
import re
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from denizen import limits
from denizen.bulk.imports.columns import BadColumnsError, resolve
from denizen.bulk.imports.messages import Problem
from denizen.bulk.imports.source import UnreadableError, open_source
from denizen.bulk.imports.windows import cut


def windows(path: Path, *, csv: bool = False) -> tuple[list[tuple[int, int, bytes]], list[Problem]]:
    found, problems = [], []
    with open_source(str(path)) as source:
        for piece in cut(source, csv=csv):
            found.append((piece.window.first_line, piece.window.lines, piece.window.data))
            problems += piece.problems
    return found, problems


def test_windows_hold_all_lines_once_and_grow(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    path.write_bytes(b"".join(b"%d\n" % line for line in range(1, 100_001)))
    found, problems = windows(path)
    assert problems == []
    assert b"".join(data for _, _, data in found) == path.read_bytes()
    line = 1
    for first, lines, data in found:
        assert (first, data.count(b"\n")) == (line, lines)
        line += lines
    assert found[0][1] < found[-2][1] <= limits.import_window_lines_max


def test_a_line_of_ten_megabytes_is_refused_and_its_neighbours_are_not(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    path.write_bytes(b"one\n" + b"x" * 10_000_000 + b"\nthree")
    found, problems = windows(path)
    assert [data for _, _, data in found] == [b"one\n\nthree\n"]
    assert [(problem.line, problem.code) for problem in problems] == [(2, "too_long")]
    assert len(problems[0].raw) == limits.import_raw_bytes_max


def test_a_csv_record_of_several_lines_stays_whole(tmp_path: Path) -> None:
    path = tmp_path / "people.csv"
    path.write_bytes(b'a,"one\ntwo ""quoted""\n"\nb,c\n')
    found, problems = windows(path, csv=True)
    assert found == [(1, 4, path.read_bytes())]
    assert problems == []


def test_a_quote_that_never_ends_costs_its_own_line_only(tmp_path: Path) -> None:
    path = tmp_path / "people.csv"
    path.write_bytes(b'a,b\nc,"d\n' + b"e,f\n" * 5)
    found, problems = windows(path, csv=True)
    assert [data for _, _, data in found] == [b"a,b\n\n" + b"e,f\n" * 5]
    assert [(problem.line, problem.code) for problem in problems] == [(2, "malformed")]


def test_an_empty_file_has_no_windows(tmp_path: Path) -> None:
    path = tmp_path / "empty"
    path.write_bytes(b"")
    assert windows(path) == ([], [])


@pytest.mark.parametrize("head", [b"\xff\xfea\0", b"\x1f\x8bnot gzip at all", b"\x28\xb5\x2f\xfdbroken"])
def test_what_cannot_be_read_is_said(tmp_path: Path, head: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(head)
    with pytest.raises(UnreadableError):
        windows(path)


PACKERS = {"gzip": gzip.compress, "zstd": zstandard.compress}


@pytest.mark.parametrize("packing", PACKERS)
def test_a_cut_off_file_is_never_taken_for_a_whole_one(tmp_path: Path, packing: str) -> None:
    pack: Callable[[bytes], bytes] = PACKERS[packing]
    content = b"".join(b"%d %s\n" % (line, os.urandom(20).hex().encode()) for line in range(100))
    first, second = pack(content), pack(content)
    path = tmp_path / "file"
    for size in range(5, len(first + second), 7):
        path.write_bytes((first + second)[:size])
        if size != len(first):
            with pytest.raises(UnreadableError, match="cut off"):
                windows(path)
    path.write_bytes(first + second)
    assert b"".join(data for _, _, data in windows(path)[0]) == content * 2


def test_a_zstd_file_of_many_frames_is_read_in_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "file"
    blank = zstandard.compress(b"\n" * (64 << 20))
    skipped = b"\x50\x2a\x4d\x18\x04\0\0\0none"
    path.write_bytes(zstandard.compress(b"one\n") + skipped + zstandard.compress(b"") + blank)
    with open_source(str(path)) as source:
        assert source.readline(100) == b"one\n"
        tracemalloc.start()
        while source.readline(100):
            pass
        assert tracemalloc.get_traced_memory()[1] < 48 << 20
        tracemalloc.stop()


def test_a_spreadsheet_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "people.csv"
    path.write_bytes(b"PK\x03\x04\x14\x00\x06\x00")
    with pytest.raises(UnreadableError, match="a zip archive or a spreadsheet"), open_source(str(path)):
        pass


@pytest.mark.parametrize(
    ("content", "is_array"), [(b'[{"a":1}]', True), (b"\xef\xbb\xbf \n [\n", True), (b"{}", False), (b"", False)]
)
def test_a_json_array_is_known(tmp_path: Path, content: bytes, is_array: bool) -> None:
    path = tmp_path / "people.json"
    path.write_bytes(gzip.compress(content))
    with open_source(str(path)) as source:
        assert source.is_json_array is is_array
        read = b"".join(iter(lambda: source.readline(100), b""))
        assert read == content.removeprefix(b"\xef\xbb\xbf")


@pytest.mark.parametrize(
    ("header", "said"),
    [
        (["email", "Foo"], "the column 'Foo' is no field; map it (--map 'FIELD=Foo') or leave it out (--ignore 'Foo')"),
        (["E-Mail", "Foo"], "the columns 'E-Mail', 'Foo' are no fields; map each (--map 'email=E-Mail')"),
        (["Given Name", "x"], "(--map 'FIELD=Given Name')"),
        (["name given"], "(--map 'name.given=name given')"),
        (
            ["email;country"],
            "the header is one column, 'email;country': name what is between the columns: --delimiter ';'",
        ),
        (["email\tcountry"], "--delimiter tab"),
    ],
)
def test_all_columns_that_are_no_fields_are_named_with_what_to_do(header: list[str], said: str) -> None:
    with pytest.raises(BadColumnsError, match=re.escape(said)):
        resolve(header, {}, ())
