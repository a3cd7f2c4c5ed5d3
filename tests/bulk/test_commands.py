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
    assert b"--map FIELD=E-Mail" in unmapped.stderr
    assert (await denizen(deployment, "import", str(table), "--map", "email=E-Mail")).returncode == 0
    assert (await denizen(deployment, "import", str(good), "--map", "email")).returncode == 2
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
