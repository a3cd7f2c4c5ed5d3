"""docs/changes.md says what the code does; its consumer runs as it stands there, and survives being killed."""

import asyncio
import os
import re
import sqlite3
import sys
from pathlib import Path

from http_api import Api

from denizen import limits
from denizen.http.routes import ROUTES

PAGE = (Path(__file__).parents[2] / "docs" / "changes.md").read_text()
CONSUMER = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)[0]


async def emails_when(path: Path, api: Api, expected: dict[str, str | None]) -> None:
    """Run the consumer until its database has these users' emails, then kill it."""
    environment = {**os.environ, "DENIZEN_URL": api.server.url, "DENIZEN_KEY": str(api.key), "MINE": str(path)}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CONSUMER, env=environment, stdout=asyncio.subprocess.DEVNULL
    )
    try:
        async with asyncio.timeout(30):
            while True:
                await asyncio.sleep(0.05)
                if expected == {user: stored(path, user) for user in expected}:
                    return
    finally:
        process.kill()
        await process.wait()


def stored(path: Path, user: str) -> str | None:
    database = sqlite3.connect(path)
    try:
        found = database.execute("select email from emails where user_id = ?", (user,)).fetchone()
    except sqlite3.OperationalError:  # not made yet
        return None
    finally:
        database.close()
    return None if found is None else str(found[0])


async def test_the_consumer_runs_when_pasted_and_goes_on_after_it_was_killed(api: Api, tmp_path: Path) -> None:
    users = [await api.user() for _ in range(5)]
    expected: dict[str, str | None] = {user["id"]: user["email"] for user in users}
    await emails_when(tmp_path / "mine.db", api, expected)
    changed = await api("PATCH", f"/v1/users/{users[0]['id']}", {"email": f"new.{users[0]['email']}"})
    assert changed.status == 200
    assert (await api("DELETE", f"/v1/users/{users[1]['id']}")).status == 200
    expected |= {users[0]["id"]: changed.json["email"], users[1]["id"]: None}
    await emails_when(tmp_path / "mine.db", api, expected)


def test_the_page_names_every_parameter_and_the_limits() -> None:
    (route,) = [route for route in ROUTES if route.name == "get_changes"]
    for query in route.query:
        assert re.search(rf"\| `{query.name}` \|", PAGE), query.name
    assert f"{limits.changes_feeds_of_key_max} feeds open at once" in PAGE
    assert f"a gateway {limits.changes_feeds_max}" in PAGE
    assert f"not read for {limits.changes_unread_s:.0f} seconds" in PAGE
    assert f"every {limits.changes_heartbeat_s:.0f} seconds without news" in PAGE
    assert f"{limits.changes_kept_max:,} of them and {limits.changes_kept_bytes_max >> 20} MiB" in PAGE
    assert f"0 to {limits.changes_wait_s:.0f}" in PAGE
