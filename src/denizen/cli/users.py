"""`denizen users`: create, get, find, change, suspend, reactivate and delete users, their history, and all of them."""

import getpass
import json
import sys
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Annotated, Any, Literal, TypeVar

from cyclopts import App, Parameter
from cyclopts.validators import Number
from rich.console import Console

from denizen.cli.connection import HERE, Connection
from denizen.cli.documents import print_certificate, print_json, print_table, print_user
from denizen.cli.errors import CalledWrongly
from denizen.cli.options import UserId
from denizen.client import Client, EventDocument, Problem, User
from denizen.errors import DenizenError, Invalid

T = TypeVar("T")

app = App(
    name="users",
    help="""Create, find and change users through the API.

Examples:

    denizen users create --email ada@example.org --given Ada --family Lovelace
    denizen users find email ada@example.org
    denizen users set 01a205a0-8017-809f-b8ee-da6b47689a3c --locale en-GB --clear picture_url
    denizen users history 01a205a0-8017-809f-b8ee-da6b47689a3c
    denizen users list --limit 20 --json
""",
    help_format="plaintext",
)

Reason = Annotated[str | None, Parameter(help="Why; it stays in the history.")]
IfVersion = Annotated[int | None, Parameter(validator=Number(gte=1), help="Only if the user is at this version.")]
FieldName = Literal[
    "email", "username", "phone", "name", "display_name", "locale", "country", "time_zone", "picture_url", "attributes"
]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Fields:
    """The fields of a user."""

    email: str | None = None
    username: str | None = None
    phone: Annotated[str | None, Parameter(help="E.164, or national with --country.")] = None
    given: Annotated[str | None, Parameter(help="Given name.")] = None
    family: Annotated[str | None, Parameter(help="Family name.")] = None
    display_name: str | None = None
    locale: Annotated[str | None, Parameter(help="BCP 47, such as de-CH.")] = None
    country: Annotated[str | None, Parameter(help="ISO 3166-1 alpha-2, such as CH.")] = None
    time_zone: Annotated[str | None, Parameter(help="IANA name, such as Europe/Zurich.")] = None
    picture_url: str | None = None
    attributes: Annotated[str | None, Parameter(help="A JSON object.")] = None

    def document(self) -> dict[str, Any]:
        """The fields that were given, as the API has them."""
        given: dict[str, Any] = {name: value for name, value in asdict(self).items() if value is not None}
        name = {part: given.pop(part) for part in ("given", "family") if part in given}
        if name:
            given["name"] = name
        if self.attributes is not None:
            given["attributes"] = _json_object(self.attributes)
        return given


NO_FIELDS = Fields()


app.command("denizen.cli.reading:search", name="search", help="Search users in the directory.")
app.command("denizen.cli.reading:explain", name="explain", help="Show the events that made a read model's rows.")


@app.command
def create(
    fields: Fields = NO_FIELDS,
    *,
    password: Annotated[
        bool, Parameter(negative="", help="Ask for a password, or read it from standard input.")
    ] = False,
    connection: Connection = HERE,
) -> None:
    """Create a user."""
    document = fields.document()
    if password:
        document["password"] = read_password()
    _show(connection, connection.run(lambda client: client.create_user(**document)))


@app.command
def get(
    user_id: UserId,
    /,
    *,
    version: Annotated[int | None, Parameter(validator=Number(gte=1), help="As it was at this version.")] = None,
    as_of: Annotated[datetime | None, Parameter(help="As it was at this time; without an offset, local.")] = None,
    connection: Connection = HERE,
) -> None:
    """Show a user, as it is or as it was."""
    if version is not None and as_of is not None:
        raise CalledWrongly("give --version or --as-of, not both")
    moment = None if as_of is None else as_of.astimezone()
    _show(connection, connection.run(lambda client: client.get_user(user_id, version=version, as_of=moment)))


@app.command
def find(kind: Literal["email", "username", "phone"], value: str, /, *, connection: Connection = HERE) -> None:
    """Show the user with a login name, in any spelling."""
    _show(connection, connection.run(lambda client: client.find_user(kind, value)))


@app.command(name="set")
def change(
    user_id: UserId,
    /,
    fields: Fields = NO_FIELDS,
    *,
    clear: Annotated[list[FieldName] | None, Parameter(help="Empty this field; may be repeated.")] = None,
    password: Annotated[bool, Parameter(negative="", help="Ask for a new password, or read it.")] = False,
    if_version: IfVersion = None,
    connection: Connection = HERE,
) -> None:
    """Change fields of a user; `--attributes` is merged into those there are, null removes one."""
    given, cleared = fields.document(), clear or []
    if both := sorted(given.keys() & set(cleared)):
        raise CalledWrongly(f"{', '.join(both)}: give a value or --clear, not both")
    changes = given | dict.fromkeys(cleared)
    if not changes and not password:
        raise CalledWrongly("nothing to change: give a field, --clear or --password")
    new_password = _possible(read_password()) if password else None  # before anything is changed

    async def work(client: Client) -> User:
        user: User | None = None
        if changes:
            user = await client.change_user(user_id, changes, if_version=if_version)
        if new_password is not None:
            version = user.version if user is not None and if_version is not None else if_version
            try:
                user = await client.set_password(user_id, new_password, if_version=version)
            except Problem as problem:
                if user is None:
                    raise
                done = f"the fields are changed (version {user.version})"
                raise Problem(f"{done}, setting the password failed: {problem.detail}", **problem.facts) from problem
        return user or await client.get_user(user_id)

    _show(connection, connection.run(work))


@app.command
def suspend(
    user_id: UserId, /, *, reason: Reason = None, if_version: IfVersion = None, connection: Connection = HERE
) -> None:
    """Suspend an active user: passwords stop working."""
    _show(connection, connection.run(lambda client: client.suspend_user(user_id, reason, if_version=if_version)))


@app.command
def reactivate(
    user_id: UserId, /, *, reason: Reason = None, if_version: IfVersion = None, connection: Connection = HERE
) -> None:
    """End a suspension."""
    _show(connection, connection.run(lambda client: client.reactivate_user(user_id, reason, if_version=if_version)))


@app.command
def delete(
    user_id: UserId, /, *, reason: Reason = None, if_version: IfVersion = None, connection: Connection = HERE
) -> None:
    """Delete a user for good: login names are free again, the history remains."""
    _show(connection, connection.run(lambda client: client.delete_user(user_id, reason, if_version=if_version)))


@app.command
def erase(
    user_id: UserId,
    /,
    *,
    yes: Annotated[bool, Parameter(negative="", help="Do not ask.")] = False,
    connection: Connection = HERE,
) -> None:
    """Destroy a user's personal data for good, in its history too; print the certificate."""
    if not yes and sys.stdin.isatty() and input(f"Erase {user_id} for good? [y/N] ").strip().lower() != "y":
        raise DenizenError("nothing was erased")
    print_certificate(connection.run(lambda client: client.erase_user(user_id)), json=connection.json)


@app.command
def history(
    user_id: UserId,
    /,
    *,
    limit: Annotated[int, Parameter(validator=Number(gte=0), help="Events at most; 0 for all.")] = 0,
    connection: Connection = HERE,
) -> None:
    """Show what happened to a user, when, by whom and why."""

    async def work(client: Client) -> list[EventDocument]:
        return await _some(client.history(user_id), limit)

    events = connection.run(work)
    if connection.json:
        for event in events:
            print_json(event)
    else:
        rows = [(event.version, event.recorded_at, event.type, event.actor, event.data) for event in events]
        print_table(("version", "when", "what", "who", "data"), rows)


@app.command(name="list")
def list_users(
    *,
    limit: Annotated[int, Parameter(validator=Number(gte=0), help="Users at most; 0 for all.")] = 50,
    connection: Connection = HERE,
) -> None:
    """List users in the stable order of the deployment; with --json, one a line."""

    async def work(client: Client) -> int:
        count, rows = 0, []
        async for user in client.users(page=min(limit, 1000) if limit else 1000):
            if limit and count >= limit:
                break
            count += 1
            if connection.json:
                print_json(user)
            else:
                rows.append((user.id, user.status, user.email, user.username, user.display_name, user.version))
        if not connection.json:
            print_table(("id", "status", "email", "username", "display name", "version"), rows)
        return count

    count = connection.run(work)
    if not connection.json and limit and count == limit:
        Console(stderr=True).print(f"[dim]The first {limit}; --limit 0 for all.[/]")


def read_password() -> str:
    """A password from the terminal, asked twice, or the first line of standard input."""
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\r\n")
    password = getpass.getpass("Password: ")
    if getpass.getpass("Again: ") != password:
        raise CalledWrongly("the two passwords differ")
    return password


def _possible(password: str) -> str:
    """The password; `Invalid` if it cannot be one."""
    from denizen.users.passwords import check_password
    from denizen.users.rejections import Rejected

    try:
        check_password(password)
    except Rejected as error:
        raise Invalid(error.detail) from None
    return password


async def _some(items: AsyncIterator[T], limit: int) -> list[T]:
    found = []
    async for item in items:
        found.append(item)
        if limit and len(found) == limit:
            break
    return found


def _json_object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text, object_pairs_hook=_members, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise CalledWrongly(f"--attributes is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise CalledWrongly("--attributes must be a JSON object")
    return value


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"an object has the member {repeated!r} twice")
    return members


def _no_number(word: str) -> None:
    raise ValueError(f"it has no number {word}")


def _show(connection: Connection, user: User) -> None:
    if connection.json:
        print_json(user)
    else:
        print_user(user)
