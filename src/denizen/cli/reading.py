"""`denizen users search`, `denizen users explain` and `denizen changes`: what the read models and the feed answer."""

import sys
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
from cyclopts import App, Parameter
from cyclopts.validators import Number

from denizen.cli.connection import HERE, Connection
from denizen.cli.documents import print_json, print_table
from denizen.cli.errors import CalledWrongly
from denizen.client import Client
from denizen.limits import page_users_max

Text = Annotated[str | None, Parameter(help="Only users with this.")]
Time = Annotated[datetime | None, Parameter(help="A time; without an offset, local.")]

changes_app = App(
    name="changes",
    help="Follow every change of every user.",
    help_epilogue="""
Each line is a change; with --json it is one JSON object a page, with the cursor
that goes on behind it. Without --follow it ends when there is nothing more.

Examples:

    denizen changes --start beginning
    denizen changes --follow
    denizen changes --json --cursor "$CURSOR"
    denizen changes --follow --types UserRegistered,UserDeleted
""",
    help_format="plaintext",
)


def search(
    *,
    name: Annotated[str | None, Parameter(help="Beginnings of words of the name, in any script.")] = None,
    email: Annotated[str | None, Parameter(help="The beginning of the email.")] = None,
    username: Annotated[str | None, Parameter(help="The beginning of the username.")] = None,
    status: Literal["active", "suspended"] | None = None,
    country: Text = None,
    attributes: Annotated[str | None, Parameter(help='A JSON object: {"plan":"gold"}.')] = None,
    created_from: Time = None,
    created_before: Time = None,
    sort: Annotated[
        str | None, Parameter(help="The order: name, email, created, updated; - before it turns it.")
    ] = None,
    limit: Annotated[int, Parameter(validator=Number(gte=1, lte=page_users_max), help="Users at most.")] = 50,
    connection: Connection = HERE,
) -> None:
    """Search users in the directory; it follows the writes within some ten milliseconds."""
    filters: dict[str, Any] = {
        "name": name, "email": email, "username": username, "status": status, "country": country, "sort": sort,
        "attributes": attributes, "created_from": _moment(created_from), "created_before": _moment(created_before),
    }  # fmt: skip
    if all(value is None for value in filters.values()):
        raise CalledWrongly("nothing to search by: give a filter or --sort, or use `denizen users list`")
    page = connection.run(lambda client: client.search_page(limit=limit, **filters))
    if connection.json:
        print_json(page)
        return
    rows = [(user.id, user.status, user.email, user.username, user.display_name, user.country) for user in page.items]
    print_table(("id", "status", "email", "username", "display name", "country"), rows)
    print(f"as of {page.as_of}", file=sys.stderr)


def explain(
    user_id: Annotated[UUID, Parameter(help="The user's id.")],
    /,
    *,
    projection: Annotated[str, Parameter(help="The read model.")] = "directory",
    connection: Connection = HERE,
) -> None:
    """Show the events that made a read model's rows of a user; exit code 1 if the rows do not agree with them."""
    found = connection.run(lambda client: client.explain(user_id, projection))
    if connection.json:
        print_json(found)
    else:
        _show(found)
    if found.agrees is False:
        sys.exit(1)


@changes_app.default
def changes(
    *,
    start: Annotated[
        Literal["now", "beginning"] | None, Parameter(help="Where to begin, without a cursor. Default: beginning.")
    ] = None,
    cursor: Annotated[str | None, Parameter(help="Go on behind this page.")] = None,
    types: Annotated[str | None, Parameter(help="These types of events only, with commas between them.")] = None,
    follow: Annotated[bool, Parameter(negative="", help="Wait for more, for ever.")] = False,
    connection: Connection = HERE,
) -> None:
    """Print changes."""
    if start is not None and cursor is not None:
        raise CalledWrongly("give --start or --cursor, not both: a cursor says where to begin")

    async def work(client: Client) -> None:
        wanted = [] if types is None else [word.strip() for word in types.split(",")]
        wait_s = 20 if follow else 1
        async for page in client.changes(cursor, start=start or "beginning", types=wanted, wait_s=wait_s):
            if connection.json and (page.items or not follow):
                print_json(page)
            elif not connection.json:
                for item in page.items:
                    print(f"{item.recorded_at.isoformat()} {item.position} {item.user_id} {item.type} {item.actor}")
            sys.stdout.flush()
            if not follow and not page.more and not page.items:
                return

    connection.run(work)


def _show(found: Any) -> None:
    agree = {True: "agree", False: "DO NOT AGREE", None: "cannot be compared: too many events"}[found.agrees]
    print(f"{found.projection} version {found.version}, checkpoint {found.checkpoint}: rows and events {agree}")
    for event in found.events:
        mark = " " if event.applied else "+"
        print(f" {mark} {event.position} version {event.version} {event.recorded_at.isoformat()} {event.type}")
    if any(not event.applied for event in found.events):
        print("   + is not applied yet")
    if found.parked is not None:
        print(f"   parked at version {found.parked.at_version}: {found.parked.error}")
    for table in found.tables:
        rows = table.expected if table.stored is None else table.stored
        what = "adds to all users' numbers" if table.stored is None else "has"
        print(f"{table.table} {what}{'' if table.agrees else ', and should have something else'}:")
        for row in rows:
            print(f"    {msgspec.json.encode(row).decode()}")
        if not table.agrees:
            for row in table.expected:
                print(f"    should: {msgspec.json.encode(row).decode()}")


def _moment(time: datetime | None) -> datetime | None:
    return None if time is None else time.astimezone()
