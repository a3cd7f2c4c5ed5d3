"""`denizen users` and `denizen keys` against a real deployment: what they print, how they end."""

import io
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import NamedTuple
from uuid import uuid4

import msgspec
import pytest

from denizen.cli import export, import_
from denizen.cli.main import main
from denizen.cli.options import kind_of
from denizen.client import Client, Unavailable
from denizen.testing.deployment import RunningDeployment, throwaway_deployment

# It is the whole command that is tested, with its arguments where it looks for them.
pytestmark = pytest.mark.filterwarnings("ignore:Cyclopts application invoked without tokens")


class Run(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, object]:
        return msgspec.json.decode(self.out)  # type: ignore[no-any-return]


Denizen = Callable[..., Run]


@pytest.fixture(scope="module")
def deployment() -> Iterator[RunningDeployment]:
    with throwaway_deployment(shards=1) as running:
        yield running


@pytest.fixture
def bare(deployment: RunningDeployment, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Denizen:
    """Runs a command, knowing only where the data directory is."""
    monkeypatch.setenv("DENIZEN_DATA", str(deployment.data))
    monkeypatch.delenv("DENIZEN_URL", raising=False)
    monkeypatch.delenv("DENIZEN_KEY", raising=False)

    def run(*arguments: object, stdin: str = "") -> Run:
        monkeypatch.setattr(sys, "argv", ["denizen", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        try:
            main()
            code = 0
        except SystemExit as ended:
            code = int(ended.code or 0)
        out, err = capsys.readouterr()
        return Run(code, out, err)

    return run


@pytest.fixture
def denizen(bare: Denizen, deployment: RunningDeployment, monkeypatch: pytest.MonkeyPatch) -> Denizen:
    """The same, with the admin key in the environment."""
    monkeypatch.setenv("DENIZEN_KEY", deployment.admin_key)
    return bare


def some_email() -> str:
    return f"{uuid4().hex}@example.org"


def test_a_users_life(denizen: Denizen) -> None:
    email = some_email()
    created = denizen("users", "create", "--email", email, "--given", "Ada", "--attributes", '{"n": 1}', "--json")
    user = created.json
    assert (created.code, user["email"], user["attributes"]) == (0, email, {"n": 1})
    shown = denizen("users", "find", "email", email.upper())
    assert shown.code == 0
    assert str(user["id"]) in shown.out
    assert "active" in shown.out
    arguments = ("--locale", "de-ch", "--clear", "name", "--attributes", '{"n": null, "m": 2}', "--if-version", 1)
    changed = denizen("users", "set", user["id"], *arguments, "--json").json
    assert (changed["locale"], changed["name"], changed["attributes"]) == ("de-CH", None, {"m": 2})
    assert denizen("users", "suspend", user["id"], "--reason", "odd [bold]", "--json").json["status"] == "suspended"
    assert denizen("users", "reactivate", user["id"], "--json").json["status"] == "active"
    assert denizen("users", "get", user["id"], "--version", 1, "--json").json["locale"] is None
    assert denizen("users", "delete", user["id"], "--json").json["status"] == "deleted"
    history = denizen("users", "history", user["id"])
    assert "odd [bold]" in history.out
    assert history.out.splitlines()[-1].split()[0] == str(len(history.out.splitlines()) - 1)
    gone = denizen("users", "get", user["id"])
    assert (gone.code, gone.out) == (1, "")
    assert gone.err.startswith("denizen: ")
    assert len(gone.err.splitlines()) == 1


def test_a_password_comes_from_standard_input_never_from_an_argument(denizen: Denizen) -> None:
    created = denizen("users", "create", "--email", some_email(), "--password", "--json", stdin="correct horse\n")
    assert created.json["has_password"] is True
    assert "correct horse" not in created.out
    short = denizen("users", "set", created.json["id"], "--password", stdin="short\n")
    assert (short.code, "password" in short.err) == (1, True)
    assert denizen("users", "set", created.json["id"], "--password", "--json", stdin="another horse\n").code == 0


@pytest.mark.parametrize(
    ("attributes", "code"),
    [('{"plan":NaN}', 2), ('{"plan":1,"plan":2}', 2), ('{"plan":1e999}', 1), ('{"n":"\\ud800"}', 1)],
)
def test_attributes_that_are_no_json_change_nothing(denizen: Denizen, attributes: str, code: int) -> None:
    user = denizen("users", "create", "--email", some_email(), "--attributes", '{"plan":"gold"}', "--json").json
    refused = denizen("users", "set", user["id"], "--attributes", attributes)
    assert (refused.code, "Traceback" in refused.err, len(refused.err.splitlines())) == (code, False, 1)
    assert denizen("users", "get", user["id"], "--json").json["version"] == 1


def test_every_wrong_field_is_told_at_once(denizen: Denizen) -> None:
    refused = denizen("users", "create", "--email", "nobody", "--country", "XX", "--locale", "de")
    assert refused.code == 1
    email, country = refused.err.splitlines()
    with_password = denizen("users", "create", "--country", "XX", "--password", stdin="short\n")
    assert [word in with_password.err for word in ("country", "password")] == [True, True]
    assert email.startswith("denizen: `email` is not an email address")
    assert country.startswith("         `country` must be")


def test_a_password_that_cannot_be_one_changes_no_other_field(denizen: Denizen) -> None:
    user = denizen("users", "create", "--email", some_email(), "--json").json
    refused = denizen("users", "set", user["id"], "--country", "CH", "--password", stdin="short\n")
    assert (refused.code, "at least 8 characters" in refused.err) == (1, True)
    assert denizen("users", "get", user["id"], "--json").json["version"] == 1


def test_a_password_that_fails_after_the_fields_says_that_they_are_changed(
    denizen: Denizen, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise Unavailable("a shard does not answer")

    user = denizen("users", "create", "--email", some_email(), "--json").json
    with monkeypatch.context() as patched:
        patched.setattr(Client, "set_password", fail)
        failed = denizen("users", "set", user["id"], "--country", "CH", "--password", stdin="long enough\n")
    assert failed.code == 1
    assert "the fields are changed (version 2)" in failed.err
    assert "a shard does not answer" in failed.err


def test_the_name_of_a_file_says_what_is_in_it_to_imports_and_exports_alike() -> None:
    names = {"a.CSV.gz": "csv", "a.tsv": "tsv", "a.tab.zst": "tsv", "a.json": "ndjson", "csv": "ndjson", "-": "ndjson"}
    assert {name: kind_of(name) for name in names} == names
    assert (export.kind_of, import_.kind_of) == (kind_of, kind_of)


def test_types_of_changes_may_have_spaces_between_them(denizen: Denizen) -> None:
    user = denizen("users", "create", "--email", some_email(), "--json").json
    seen = denizen("changes", "--types", "UserRegistered, UserDeleted")
    assert (seen.code, str(user["id"]) in seen.out) == (0, True)


@pytest.mark.parametrize("command", [("--help",), ("users", "list"), ("export", "-"), ("verify", "--json")])
def test_a_full_disk_is_one_clear_message(deployment: RunningDeployment, command: tuple[str, ...]) -> None:
    told = {**os.environ, "DENIZEN_DATA": str(deployment.data), "DENIZEN_KEY": deployment.admin_key}
    line = [sys.executable, "-m", "denizen", *command]
    with open("/dev/full", "w") as full:
        run = subprocess.run(line, stdout=full, stderr=subprocess.PIPE, text=True, env=told, check=False)
    assert (run.returncode, len(run.stderr.splitlines())) == (1, 1), run.stderr
    assert "No space left on device" in run.stderr


def test_the_line_end_behind_a_key_does_no_harm(denizen: Denizen, deployment: RunningDeployment) -> None:
    assert denizen("users", "list", "--key", f"{deployment.admin_key}\r\n").code == 0


def test_every_command_says_what_it_does(bare: Denizen) -> None:
    shown = bare("users", "--help").out
    assert "Search users" in shown
    assert "Show the events" in shown


def test_the_list_is_a_user_a_line_in_json(denizen: Denizen) -> None:
    emails = {some_email() for _ in range(5)}
    for email in emails:
        denizen("users", "create", "--email", email)
    listed = denizen("users", "list", "--limit", 0, "--json").out.splitlines()
    assert emails <= {msgspec.json.decode(line)["email"] for line in listed}
    assert len(denizen("users", "list", "--limit", 2, "--json").out.splitlines()) == 2
    assert len(denizen("users", "list", "--limit", 2).out.splitlines()) == 3


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        (("users", "create", "--email", "nonsense"), 1, "email"),
        (("users", "create"), 1, "login name"),
        (("users", "find", "email", "nobody@example.org"), 1, "email"),
        (("users", "find", "nickname", "x"), 2, "nickname"),
        (("users", "get", "nonsense"), 2, "UUID"),
        (("users", "set", "01a205a0-8017-809f-b8ee-da6b47689a3c"), 2, "nothing to change"),
        (("users", "create", "--attributes", "{"), 2, "JSON"),
        (("users", "create", "--nickname", "x"), 2, "--nickname"),
        (("users", "list", "--server", "localhost"), 2, "http://"),
        (("users", "list", "--server", "http://127.0.0.1:9"), 1, "does not answer"),
        (("users", "list", "--server", "http://127.0.0.1:99999"), 2, "no address"),
        (("users", "list", "--key", "dk_\x01_y"), 2, "character"),
        (("users", "list", "--limit", "-1"), 2, "--limit"),
        (("users", "history", "01a205a0-8017-809f-b8ee-da6b47689a3c", "--limit", "-1"), 2, "--limit"),
        (("users", "find", "email", ""), 1, "must not be empty"),
        (("users", "set", str(uuid4()), "--clear", "email", "--email", "x@example.org"), 2, "not both"),
        (("users", "set", str(uuid4()), "--given", "Ada", "--clear", "name"), 2, "not both"),
        (("users", "list", "--key", "dk_x_y"), 1, "key"),
        (("users", "search"), 2, "nothing to search by"),
        (("gateway", "--listen", "nowhere"), 2, "--listen"),
        (("users", "get", str(uuid4()), "--version", "0"), 2, "--version"),
        (("users", "get", str(uuid4()), "--version", "1", "--as-of", "2026-01-01"), 2, "not both"),
        (("users", "delete", str(uuid4()), "--if-version", "-1"), 2, "--if-version"),
        (("users", "search", "--country", "DE", "--limit", "0"), 2, "--limit"),
        (("changes", "--types", ""), 1, "UserRegistered"),
        (("keys", "create", "x", "--scope", "admin", "--rate", "0"), 2, "--rate"),
        (("keys", "create", "x", "--scope", "root"), 2, "root"),
        (("keys", "revoke", "none"), 1, "no API key"),
    ],
)
def test_what_cannot_be_is_one_clear_message(
    denizen: Denizen, arguments: tuple[str, ...], code: int, word: str
) -> None:
    run = denizen(*arguments)
    assert (run.code, run.out) == (code, ""), run
    assert word in run.err
    assert "Traceback" not in run.err


def test_without_a_key_it_says_how_to_get_one(bare: Denizen) -> None:
    run = bare("users", "list")
    assert run.code == 2
    assert "denizen keys create" in run.err


def test_a_lost_admin_key_is_replaced_from_the_data_directory(bare: Denizen, deployment: RunningDeployment) -> None:
    created = bare("keys", "create", "new admin", "--scope", "admin")
    secret = created.out.strip()
    assert (created.code, secret.startswith("dk_")) == (0, True)
    listed = bare("keys", "list")
    assert "new admin" in listed.out
    assert secret not in listed.out
    assert bare("users", "list", "--key", secret).code == 0
    identifier = secret.split("_")[1]
    assert bare("keys", "revoke", identifier).code == 0
    assert bare("keys", "revoke", "none").code == 1
    revoked = next(line for line in bare("keys", "list", "--json").out.splitlines() if identifier in line)
    assert msgspec.json.decode(revoked)["revoked_at"] is not None


def test_keys_over_the_api(denizen: Denizen) -> None:
    created = denizen(
        "keys", "create", "shop", "--scope", "users:read", "--scope", "users:write", "--rate", 50, "--json"
    )
    key = created.json["key"]
    assert isinstance(key, dict)
    assert (sorted(key["scopes"]), key["rate_per_s"]) == (["users:read", "users:write"], 50)
    assert denizen("users", "list", "--key", created.json["secret"]).code == 0
    assert denizen("keys", "list", "--key", created.json["secret"]).code == 1
    assert denizen("keys", "revoke", key["id"]).out == f"Key {key['id']} is revoked.\n"
    assert denizen("users", "list", "--key", created.json["secret"]).code == 1


def test_a_deployment_that_does_not_exist_is_a_clear_message(bare: Denizen, tmp_path: object) -> None:
    for command in (("users", "list", "--key", "k"), ("keys", "list")):
        run = bare(*command, "--data", tmp_path)
        assert run.code == 1
        assert "no deployment" in run.err
