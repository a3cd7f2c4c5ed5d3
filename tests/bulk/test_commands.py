"""The commands as people call them: exit codes, messages, and what they leave behind."""

import asyncio
import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

from denizen.bench.people import people, write_people
from denizen.deployment.layout import Deployment

from .conftest import assert_agrees, write_lines


async def denizen(
    deployment: Deployment, *arguments: str, content: bytes | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "denizen", *arguments, "--data", str(deployment.directory)]
    return await asyncio.to_thread(
        subprocess.run, command, input=content, capture_output=True, check=False, cwd=cwd, timeout=120
    )


async def test_exit_codes_of_an_import(deployment: Deployment, tmp_path: Path) -> None:
    good = write_lines(tmp_path / "good.ndjson", [{"email": "a@example.org"}])
    bad = write_lines(tmp_path / "bad.ndjson", [{"email": "b@example.org"}, {"email": "nothing"}])
    table = tmp_path / "table.csv"
    table.write_text("E-Mail\nc@example.org\n")
    assert (await denizen(deployment, "import", str(good))).returncode == 0
    assert (await denizen(deployment, "import", str(good))).returncode == 0  # skipped on purpose
    rejected = await denizen(deployment, "import", str(bad))
    assert rejected.returncode == 1
    assert b"1 imported, 1 rejected of 2 rows" in rejected.stdout
    assert b"bad.ndjson.rejected.ndjson" in rejected.stdout.replace(b"\n", b"")
    unmapped = await denizen(deployment, "import", str(table))
    assert unmapped.returncode == 2
    assert b"--map 'email=E-Mail'" in unmapped.stderr
    assert (await denizen(deployment, "import", str(table), "--map", "email=E-Mail")).returncode == 0
    wrong = (
        (table, ["--map", "email"], "FIELD=COLUMN"),
        (good, ["--map", "email=E-Mail"], "are for CSV"),
        (good, ["--ignore", "E-Mail"], "are for CSV"),
        (table, ["--delimiter", ""], "one character"),
        (table, ["--map", "email=E-Mail", "--map", "email=Other"], "'email' is mapped already"),
        (table, ["--map", "email=E-Mail", "--map", "username=E-Mail"], "the column is 'username' already"),
    )
    for file, options, message in wrong:
        called = await denizen(deployment, "import", str(file), *options)
        assert called.returncode == 2
        assert message in called.stderr.decode()
    missing = await denizen(deployment, "import", str(tmp_path / "missing"))
    assert missing.returncode == 1
    assert missing.stderr.count(b"\n") == 1
    failed = await denizen(deployment, "import", str(good), "--on-conflict", "fail")
    assert failed.returncode == 1
    assert b"line 1: another user has this email" in failed.stderr
    await assert_agrees(deployment, users=3)


async def test_standard_input_and_its_resuming(deployment: Deployment, tmp_path: Path) -> None:
    lines = b"".join(json.dumps(person).encode() + b"\n" for person in people(50))
    first = await denizen(deployment, "import", "-", "--json", content=gzip.compress(lines), cwd=tmp_path)
    summary = json.loads(first.stdout)
    assert (first.returncode, summary["imported"]) == (0, 50)
    again = await denizen(deployment, "import", "-", "--resume", summary["import_id"], content=lines, cwd=tmp_path)
    assert again.returncode == 1
    assert b"is complete" in again.stderr
    assert not any(name.endswith(".rejected.ndjson") for name in os.listdir(tmp_path))
    await assert_agrees(deployment, users=50)


async def test_two_commands_on_one_file_at_once_do_not_disturb_each_other(
    deployment: Deployment, tmp_path: Path
) -> None:
    file = tmp_path / "people.ndjson"
    write_people(file, 15_000)
    one, two = await asyncio.gather(*(denizen(deployment, "import", str(file), "--json") for _ in range(2)))
    refused = [done for done in (one, two) if b"runs already" in done.stderr]
    assert len(refused) <= 1
    assert {done.returncode for done in (one, two) if done not in refused} == {0}
    await assert_agrees(deployment, users=15_000)


ROWS = [{"email": "a@example.org"}, {"email": "nothing"}]


async def test_rejected_rows_replace_nothing_but_rejected_rows(deployment: Deployment, tmp_path: Path) -> None:
    file = write_lines(tmp_path / "people.ndjson", ROWS)
    before = file.read_bytes()
    keep = tmp_path / "keep.txt"
    keep.write_text("dear\n")
    link, pipe = tmp_path / "link", tmp_path / "pipe"
    link.symlink_to(file)
    os.mkfifo(pipe)
    for wrong in (file, link, keep, pipe):
        for dry in ([], ["--dry-run"]):
            done = await denizen(deployment, "import", str(file), "--rejects", str(wrong), *dry)
            assert done.returncode == 2
            assert f"{wrong} is " in done.stderr.decode()
    with file.open("rb") as standard:
        command = [sys.executable, "-m", "denizen", "import", "-", "--data", str(deployment.directory)]
        piped = await asyncio.create_subprocess_exec(*command, "--rejects", str(file), stdin=standard)
        assert await piped.wait() == 2
    nowhere = await denizen(deployment, "import", str(file), "--rejects", str(tmp_path))
    assert nowhere.returncode == 1
    assert f"{tmp_path} cannot be written: Is a directory" in nowhere.stderr.decode()
    assert (file.read_bytes(), keep.read_text()) == (before, "dear\n")
    assert pipe.is_fifo()
    assert not list((deployment.directory / "imports").iterdir())
    await assert_agrees(deployment, users=0)
    for good in (keep.with_name("new"), keep.with_name("new")):  # that of an earlier import makes way
        done = await denizen(deployment, "import", str(file), "--rejects", str(good), "--json")
        assert json.loads(done.stdout)["rejects"] == str(good)
    other = write_lines(tmp_path / "other.ndjson", [{"email": "b@example.org"}])
    assert (await denizen(deployment, "import", str(other), "--rejects", str(good))).returncode == 0
    assert not good.exists()


async def test_rejected_rows_that_cannot_be_written_are_told_before_anything_is_imported(
    deployment: Deployment, tmp_path: Path
) -> None:
    file = write_lines(tmp_path / "people.ndjson", ROWS)
    done = await denizen(deployment, "import", str(file), "--rejects", str(tmp_path / "none" / "rejects"))
    assert done.returncode == 1
    assert b"cannot be written" in done.stderr
    await assert_agrees(deployment, users=0)


async def test_a_wrong_call_does_not_stand_in_the_way_of_the_right_one(deployment: Deployment, tmp_path: Path) -> None:
    file = tmp_path / "people.csv"
    file.write_text("email;username\na@example.org;a\n")
    assert (await denizen(deployment, "import", str(file))).returncode == 2
    right = await denizen(deployment, "import", str(file), "--delimiter", ";", "--json")
    assert (right.returncode, json.loads(right.stdout)["resumed"]) == (0, False)
    await assert_agrees(deployment, users=1)


async def test_an_import_that_stops_early_says_how_far_it_came(deployment: Deployment, tmp_path: Path) -> None:
    file = tmp_path / "people.ndjson.gz"
    rows = [*people(20_000)]
    lines = b"".join(json.dumps(person).encode() + b"\n" for person in [{"email": "nothing"}, *rows])
    file.write_bytes(gzip.compress(lines)[:-100])
    cut = await denizen(deployment, "import", str(file), "--json")
    summary = json.loads(cut.stdout)
    assert (cut.returncode, summary["complete"]) == (1, False)
    assert 0 < summary["imported"] < 20_000
    assert summary["rejects"] == f"{file}.rejected.ndjson"
    assert b"rows that are there are skipped" in cut.stderr
    imported = summary["imported"]
    await assert_agrees(deployment, users=imported)
    taken = write_lines(tmp_path / "taken.ndjson", [{"email": "new@example.org"}, rows[0]])
    failed = await denizen(deployment, "import", str(taken), "--on-conflict", "fail")
    assert failed.returncode == 1
    assert b"1 imported" in failed.stdout
    assert b"stopped early; the same command goes on" in failed.stdout
    assert b"go on with --on-conflict skip or update" in failed.stderr
    await assert_agrees(deployment, users=imported + 1)
