"""Import on real servers: every format, every kind of bad row, every way to treat a conflict; verify is the judge."""

import asyncio
import gzip
import json
import os
import stat
from pathlib import Path

import pytest
import zstandard

from denizen.bench.people import people, write_people
from denizen.bulk.imports import journal as journals
from denizen.bulk.imports.columns import BadColumnsError
from denizen.bulk.imports.run import Import, Options
from denizen.bulk.imports.source import UnreadableError, head_hash
from denizen.deployment.layout import Deployment
from denizen.errors import BadDeployment, LoginNameTaken

from .conftest import Do, Silent, assert_agrees, on_each, rejected, until, write_lines

PEOPLE = 300


async def test_people_come_in_whole_and_everything_agrees(
    deployment: Deployment, do_import: Do, tmp_path: Path
) -> None:
    file = tmp_path / "people.ndjson"
    write_people(file, 5_000)
    summary = await do_import(file, workers=2)
    assert (summary.rows, summary.imported, summary.rejected, summary.complete) == (5_000, 5_000, 0, True)
    assert summary.rejects is None
    await assert_agrees(deployment, users=5_000)
    names = await on_each(deployment, "select count(*) from denizen.login_names")
    assert sum(row["count"] for row in names) == 10_000
    assert not await on_each(deployment, "select from denizen.login_names_unsettled")
    correlated = await on_each(deployment, "select distinct correlation_id from denizen.events where type = 1")
    assert {str(row["correlation_id"]) for row in correlated} == {summary.import_id}


@pytest.mark.parametrize(
    "packing", ["plain", "gzip", "two gzip members", "zstd", "byte-order mark", "carriage returns"]
)
async def test_a_file_may_be_packed(deployment: Deployment, do_import: Do, tmp_path: Path, packing: str) -> None:
    lines = [json.dumps(person).encode() for person in people(PEOPLE)]
    plain = b"\n".join(lines)
    half = b"\n".join(lines[:100]) + b"\n"
    contents = {
        "plain": plain,
        "gzip": gzip.compress(plain),
        "two gzip members": gzip.compress(half) + gzip.compress(b"\n".join(lines[100:])),
        "zstd": zstandard.compress(plain),
        "byte-order mark": b"\xef\xbb\xbf" + plain,
        "carriage returns": b"\r\n".join(lines) + b"\r\n\r\n",
    }
    file = tmp_path / "people"
    file.write_bytes(contents[packing])
    summary = await do_import(file)
    assert (summary.imported, summary.rows, summary.rejected) == (PEOPLE, PEOPLE, 0)
    await assert_agrees(deployment, users=PEOPLE)


async def test_csv_columns_are_mapped(deployment: Deployment, do_import: Do, tmp_path: Path) -> None:
    file = tmp_path / "people.csv"
    file.write_text(
        "E-Mail;username;Vorname;name.family;attributes.plan;Notiz\n"
        'ada@example.org;ada;Ada;Lovelace;"free; for ever";x\n'
        'grace@example.org;grace;Grace;"Hop\nper";;y\n'
        "too;few;columns\n"
        '"broken"quote@example.org;b;;;;\n'
        "bob@example.org;bob;;;team;\n"
    )
    mapping = {"email": "E-Mail", "name.given": "Vorname"}
    summary = await do_import(file, csv=True, delimiter=";", mapping=mapping, ignore=("Notiz",))
    assert (summary.rows, summary.imported, summary.rejected) == (5, 2, 3)
    assert [(row["line"], row["code"]) for row in rejected(file)] == [
        (3, "text_invalid"),
        (5, "malformed"),
        (6, "malformed"),
    ]
    assert [row["row"] for row in rejected(file)][1:] == ["too;few;columns", '"broken"quote@example.org;b;;;;']
    await assert_agrees(deployment, users=2)


async def test_a_column_that_is_no_field_is_named_before_anything_is_written(do_import: Do, tmp_path: Path) -> None:
    file = tmp_path / "people.csv"
    file.write_text("email,E-Mail\na@example.org,b\n")
    with pytest.raises(BadColumnsError, match="'E-Mail' is no field"):
        await do_import(file, csv=True)


BAD = (
    (b'{"email": "a\xff@example.org"}', "text_invalid"),
    (b'{"email": "nul\x00@example.org"}', "malformed"),
    (b'{"display_name": "nul\\u0000", "email": "x@example.org"}', "text_invalid"),
    (b"not json", "malformed"),
    (b"[1, 2]", "malformed"),
    (b'{"email": 5}', "wrong_type"),
    (b'{"email": "no-at-sign"}', "email_invalid"),
    (b'{"phone": "030 123456", "email": "p@example.org"}', "phone_invalid"),
    (b'{"nothing": "known", "email": "q@example.org"}', "unknown_field"),
    (b'{"display_name": "nobody"}', "login_name_required"),
    (b'{"email": "h@example.org", "password_hash": "md5:123"}', "password_hash_invalid"),
    (b'{"email": "deep@example.org", "attributes": ' + b'{"a":' * 5_000 + b"1" + b"}" * 5_000 + b"}", "malformed"),
    (b'{"email": "' + b"x" * 10_000_000 + b'@example.org"}', "too_long"),
    (b'{"id": 1, "status": "deleted", "email": "s@example.org"}', "wrong_value"),
)


async def test_bad_rows_are_told_one_by_one_and_disturb_nobody(
    deployment: Deployment, do_import: Do, tmp_path: Path
) -> None:
    rows: list[object] = []
    for number, (bad, _) in enumerate(BAD):
        rows += [{"email": f"good{number}@example.org"}, bad, b""]
    file = write_lines(tmp_path / "people.ndjson", rows)
    summary = await do_import(file)
    assert (summary.rows, summary.imported, summary.rejected) == (2 * len(BAD), len(BAD), len(BAD))
    told = rejected(file)
    assert [(row["line"], row["code"]) for row in told] == [
        (3 * number + 2, code) for number, (_, code) in enumerate(BAD)
    ]
    assert all(row["detail"] for row in told)
    assert stat.S_IMODE(os.stat(f"{file}.rejected.ndjson").st_mode) == 0o600
    assert os.stat(f"{file}.rejected.ndjson").st_size < 100_000
    await assert_agrees(deployment, users=len(BAD))


async def test_a_json_array_is_refused_before_anything_is_written(
    deployment: Deployment, do_import: Do, tmp_path: Path
) -> None:
    file = tmp_path / "people.json"
    file.write_text('[\n{"email": "a@example.org"},\n{"email": "b@example.org"}\n]\n')
    with pytest.raises(UnreadableError, match="is one JSON array"):
        await do_import(file)
    await assert_agrees(deployment, users=0)


async def test_a_bad_row_has_all_its_faults_told(do_import: Do, tmp_path: Path) -> None:
    bad = {"email": "nobody", "country": "XX", "locale": "?"}
    exported = {"id": 1, "status": "gone", "email": 5, "phone": "1"}
    file = write_lines(tmp_path / "people.ndjson", [bad, exported, {"email": "x"}])
    assert (await do_import(file)).rejected == 3
    told = rejected(file)
    assert [[error["field"] for error in row.get("errors", ())] for row in told] == [
        ["email", "country", "locale"],
        ["status", "email", "phone"],
        [],
    ]
    assert all({name: row[name] for name in ("field", "code", "detail")} == row["errors"][0] for row in told[:2])
    await do_import(file, fresh=True)  # which takes the file for one of rejected rows
    assert rejected(file) == told


DOUBLES = (
    {"email": "ada@example.org", "username": "ada"},
    {"email": "ADA@example.org", "username": "other"},
    {"email": "third@example.org", "username": "Ada"},
    {"email": "third@example.org", "username": "third"},
)


async def test_of_the_same_names_in_a_file_the_first_wins(
    deployment: Deployment, do_import: Do, tmp_path: Path
) -> None:
    file = write_lines(tmp_path / "people.ndjson", DOUBLES)
    summary = await do_import(file)
    assert (summary.imported, summary.skipped, summary.rejected) == (2, 2, 0)
    assert [(row["line"], row["code"], row["field"]) for row in rejected(file)] == [
        (2, "login_name_taken", "email"),
        (3, "login_name_taken", "username"),
    ]
    await assert_agrees(deployment, users=2)


async def test_a_dry_run_finds_the_same_and_writes_nothing(
    deployment: Deployment, do_import: Do, tmp_path: Path
) -> None:
    await do_import(write_lines(tmp_path / "before.ndjson", [{"email": "taken@example.org"}]))
    rows = [*DOUBLES, {"email": "Taken@example.org"}, b"bad"]
    file = write_lines(tmp_path / "people.ndjson", rows)
    dry = await do_import(file, dry_run=True)
    assert [(row["line"], row["row"].encode()) for row in rejected(file)] == [
        (5, b'{"email": "Taken@example.org"}'),
        (6, b"bad"),
        *((line, json.dumps(DOUBLES[line - 1]).encode()) for line in (2, 3)),
    ]
    await assert_agrees(deployment, users=1)
    real = await do_import(file)
    assert (dry.rows, dry.imported, dry.skipped, dry.rejected) == (
        real.rows,
        real.imported,
        real.skipped,
        real.rejected,
    )


async def test_a_dry_run_tells_doubled_records_of_a_csv_file(do_import: Do, tmp_path: Path) -> None:
    file = tmp_path / "people.csv"
    file.write_text('email,attributes.bio\nada@example.org,Ada\n"ADA@example.org","Ada,\nII"\nx@example.org,\n')
    dry = await do_import(file, csv=True, dry_run=True)
    assert (dry.imported, dry.skipped) == (2, 1)
    assert [(row["line"], row["row"]) for row in rejected(file)] == [(3, "ADA@example.org,Ada,\nII")]


async def test_rejected_rows_that_were_removed_leave_no_hole(
    deployment: Deployment, do_import: Do, tmp_path: Path
) -> None:
    def person(number: int) -> dict[str, str]:
        return {"email": f"p{number}@example.org"}

    # Two windows: the first one is durable when the second one stops the import.
    rows = [{"email": "bad"}, *map(person, range(4_200)), person(0)]
    file = write_lines(tmp_path / "people.ndjson", rows)
    with pytest.raises(LoginNameTaken):
        await do_import(file, on_conflict="fail")
    assert [row["line"] for row in rejected(file)] == [1]
    os.unlink(f"{file}.rejected.ndjson")
    told: list[str] = []

    class Listening(Silent):
        def note(self, text: str) -> None:
            told.append(text)

    summary = await Import(Options(input=str(file), data=deployment.directory), Listening()).run()
    assert (summary.resumed, summary.imported, summary.rejected, summary.skipped) == (True, 4_200, 1, 1)
    assert [row["line"] for row in rejected(file)] == [4_202]
    assert len(told) == 1
    assert "has lost rows" in told[0]


async def test_a_dry_run_believes_only_the_shard_that_serves_the_bucket(
    deployment: Deployment, do_import: Do, tmp_path: Path
) -> None:
    file = write_lines(tmp_path / "people.ndjson", [{"email": "ada@example.org"}])
    await do_import(file)
    await on_each(deployment, "update denizen.buckets set state = 'moved'")
    looking = asyncio.create_task(do_import(file, dry_run=True))
    seen = "select from pg_stat_activity where application_name = 'denizen import' and datname = current_database()"

    async def looked() -> bool:
        return bool(await on_each(deployment, f"{seen} and xact_start is null and query ilike 'commit%'"))

    await until(looked)
    await on_each(deployment, "delete from denizen.login_names")
    await on_each(deployment, "update denizen.buckets set state = 'open'")
    assert (await looking).imported == 1


async def test_importing_twice_skips_everything(deployment: Deployment, do_import: Do, tmp_path: Path) -> None:
    file = tmp_path / "people.ndjson"
    write_people(file, PEOPLE)
    await do_import(file)
    again = await do_import(file)
    assert (again.imported, again.skipped, again.rejected, again.resumed) == (0, PEOPLE, 0, False)
    await assert_agrees(deployment, users=PEOPLE)


async def test_update_changes_the_given_fields_of_whoever_has_the_name(
    deployment: Deployment, do_import: Do, tmp_path: Path
) -> None:
    before = {"email": "ada@example.org", "username": "ada", "display_name": "Ada", "attributes": {"a": 1, "b": 2}}
    await do_import(write_lines(tmp_path / "one.ndjson", [before]))
    rows = [
        {"username": "ADA", "email": "countess@example.org", "attributes": {"b": 3}},
        {"username": "ada", "country": "XX"},
        {"username": "ada", "country": "GB"},
        {"username": "ada", "country": "GB"},
        {"username": "new"},
    ]
    file = write_lines(tmp_path / "two.ndjson", rows)
    summary = await do_import(file, on_conflict="update")
    assert (summary.imported, summary.updated, summary.unchanged, summary.rejected) == (1, 2, 1, 1)
    assert [(row["line"], row["code"]) for row in rejected(file)] == [(2, "country_invalid")]
    await assert_agrees(deployment, users=2)
    names = await on_each(deployment, 'select value from denizen.login_names order by value collate "C"')
    assert sorted(row["value"] for row in names) == ["ada", "countess@example.org", "new"]


async def test_fail_stops_at_the_conflict_and_can_go_on_otherwise(
    deployment: Deployment, do_import: Do, tmp_path: Path
) -> None:
    await do_import(write_lines(tmp_path / "one.ndjson", [{"email": "ada@example.org"}]))
    file = write_lines(tmp_path / "two.ndjson", [{"email": "bob@example.org"}, {"email": "ada@example.org"}])
    with pytest.raises(LoginNameTaken, match="line 2: another user has this email"):
        await do_import(file, on_conflict="fail")
    summary = await do_import(file, on_conflict="skip")
    assert (summary.imported, summary.skipped, summary.resumed, summary.complete) == (1, 1, True, True)
    await assert_agrees(deployment, users=2)


async def test_hashes_of_other_systems_come_along(deployment: Deployment, do_import: Do, tmp_path: Path) -> None:
    digest = "$2b$04$abcdefghijklmnopqrstuuRUyXbvXyWdcgSD1BV5GJmr.ojoEJnNe"
    file = write_lines(tmp_path / "people.ndjson", [{"email": "ada@example.org", "password_hash": digest}])
    assert (await do_import(file)).imported == 1
    found = await on_each(
        deployment, "select count(*) filter (where position($1 in document) > 0) from denizen.users", digest.encode()
    )
    assert sum(row["count"] for row in found) == 1
    await assert_agrees(deployment, users=1)


async def test_a_damaged_file_is_imported_up_to_the_damage(
    deployment: Deployment, do_import: Do, tmp_path: Path
) -> None:
    lines = b"".join(json.dumps(person).encode() + b"\n" for person in people(20_000))
    file = tmp_path / "people.ndjson.gz"
    file.write_bytes(gzip.compress(lines)[:-4_000])
    with pytest.raises(Exception, match="damaged or cut off"):
        await do_import(file)
    [first, second] = await on_each(deployment, "select count(*) from denizen.users")
    assert first["count"] + second["count"] > 0
    await assert_agrees(deployment, users=first["count"] + second["count"])


async def test_two_runs_of_one_import_at_once_are_refused(
    deployment: Deployment, do_import: Do, tmp_path: Path
) -> None:
    file = tmp_path / "people.ndjson"
    write_people(file, 20_000)
    results = await asyncio.gather(do_import(file), do_import(file), return_exceptions=True)
    refused = [result for result in results if isinstance(result, BaseException)]
    assert len(refused) <= 1
    assert all(isinstance(each, BadDeployment) for each in refused)
    await assert_agrees(deployment, users=20_000)


async def test_an_import_of_which_nothing_is_done_may_begin_anew_in_another_format(
    deployment: Deployment, do_import: Do, tmp_path: Path
) -> None:
    file = write_lines(tmp_path / "people", [{"email": "a@example.org"}])
    before = journals.create(deployment.directory / "imports", str(file), head_hash(str(file)), {"csv": True})
    before.close()
    summary = await do_import(file)
    assert (summary.imported, summary.resumed) == (1, False)
    assert not before.path.exists()
