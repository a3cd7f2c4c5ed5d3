"""An erasure in a whole deployment: searched for in every table, every file, every stream."""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from denizen.client import Client, Unavailable, UserErased
from denizen.testing.deployment import SMALL, RunningDeployment, throwaway_deployment

MARK = "xq7wvmark"  # in every datum of the user, and nowhere else
NEIGHBOURS = 12
SHORT = SMALL + "\n[bus]\nretention_h = 0.002\n"
PATIENCE_S = 60.0
KINDS = {"shards", "read", "bus"}


@pytest.fixture(scope="module")
def running() -> Iterator[RunningDeployment]:
    with throwaway_deployment(shards=2, configuration=SHORT) as deployment:
        yield deployment


def denizen(running: RunningDeployment, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "denizen", *arguments, "--data", str(running.data)]
    environment = {"DENIZEN_KEY": running.admin_key, "PYTHONPATH": ":".join(sys.path)}
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=environment)


def talk(running: RunningDeployment, work: Callable[[Client], Awaitable[Any]]) -> Any:
    async def do() -> Any:
        async with Client(running.url, running.admin_key) as client:
            return await work(client)

    return asyncio.run(do())


def files_with(directory: Path, mark: str) -> list[str]:
    """The files that hold the mark, as it is or in UTF-16."""
    found = []
    for path in directory.rglob("*"):
        try:
            content = path.read_bytes() if path.is_file() else b""
        except OSError:
            continue  # it went away meanwhile
        if mark.encode() in content:
            found.append(str(path.relative_to(directory)))
    return found


def kinds_of(files: list[str]) -> set[str]:
    return {path.split("/")[0] for path in files}


def until(what: str, is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < deadline, what
        time.sleep(0.2)


async def live(client: Client) -> UUID:
    """The life of the user that is going to be erased; every login name changes, here and elsewhere."""
    for number in range(NEIGHBOURS):
        await client.create_user(email=f"n{number}@example.com", username=f"n{number}", display_name=f"N {number}")
    user = await client.create_user(
        email=f"{MARK}@example.com", username=MARK, name={"given": MARK, "family": f"{MARK}family"},
        attributes={MARK: MARK, "plan": f"{MARK}plan"}, picture_url=f"https://example.com/{MARK}.png",
    )  # fmt: skip
    for number in range(4):
        await client.change_user(
            user.id,
            {
                "email": f"{MARK}.{number}@example.com",
                "username": f"{MARK}{number}",
                "display_name": f"{MARK} {number}",
            },
        )
    await client.suspend_user(user.id, f"because of {MARK}")
    await client.reactivate_user(user.id, f"no more {MARK}")
    return user.id


async def found_by_search(client: Client) -> int | None:
    try:
        return len((await client.search_page(name=MARK, limit=10)).items)
    except Unavailable:  # the projector is only starting
        return None


def test_an_erased_user_is_gone_from_every_table_file_and_stream(running: RunningDeployment) -> None:
    user_id = talk(running, live)
    until("the directory follows", lambda: talk(running, found_by_search) == 1)
    until("its data are in files of every kind", lambda: kinds_of(files_with(running.data, MARK)) >= KINDS)

    erased = denizen(running, "users", "erase", str(user_id), "--yes", "--json")
    assert erased.returncode == 0, erased.stderr
    certificate = json.loads(erased.stdout)
    assert certificate["events_destroyed"] == 15
    assert certificate["login_names_released"] == 2
    assert certificate["settled_at"]
    assert MARK not in erased.stdout
    until("the directory follows", lambda: talk(running, found_by_search) == 0)
    until("the files can be scrubbed", lambda: denizen(running, "erasures", "scrub", "--json").returncode == 0)
    left_until = time.monotonic() + PATIENCE_S
    while left := files_with(running.data, MARK):
        assert time.monotonic() < left_until, left
        time.sleep(0.5)

    shown = json.loads(denizen(running, "erasures", "show", str(user_id), "--json").stdout)
    assert shown["scrubbed_at"]
    assert shown["read_models_empty"]
    assert shown["complete"]
    assert str(user_id) in denizen(running, "erasures", "list").stdout
    verified = denizen(running, "verify", "--json")
    assert verified.returncode == 0, verified.stdout
    for projection in ("directory", "activity", "statistics"):
        for step in ("run", "verify"):
            done = denizen(running, "replay", step, projection)
            assert done.returncode == 0, (projection, step, done.stdout, done.stderr)
    assert files_with(running.data, MARK) == []
    talk(running, lambda client: _neighbours_are_whole(client, user_id))


async def _neighbours_are_whole(client: Client, erased: UUID) -> None:
    for number in range(NEIGHBOURS):
        user = await client.find_user("email", f"n{number}@example.com")
        assert user.display_name == f"N {number}"
        assert [event.data["username"] async for event in client.history(user.id)] == [f"n{number}"]
    history = [event async for event in client.history(erased)]
    assert [event.data for event in history[:-1]] == [{"erased": True}] * 15
    assert history[0].type == "UserRegistered"
    with pytest.raises(UserErased):
        await client.get_user(erased, version=3)


def test_the_key_is_rotated_while_users_are_written(running: RunningDeployment) -> None:
    (old,) = keys(running)
    user_id = talk(running, lambda client: _written_during(client, running))
    assert len(keys(running)) == 2
    uses = {each["id"]: each["secrets"] for each in keys(running)}
    assert uses[old["id"]] == 0
    too_early = denizen(running, "keyring", "drop", old["id"])
    assert (too_early.returncode, "younger than" in too_early.stderr) == (1, True)
    until("the old key can go", lambda: denizen(running, "keyring", "drop", old["id"]).returncode == 0)
    assert len(keys(running)) == 1
    running.up.stop()
    running.start_again()
    history = talk(running, lambda client: _history(client, user_id))
    assert history[0]["email"] == "rotated@example.com"
    assert denizen(running, "verify", "--json").returncode == 0


async def _written_during(client: Client, running: RunningDeployment) -> UUID:
    user = await client.create_user(email="rotated@example.com")
    rotating = asyncio.create_task(asyncio.to_thread(denizen, running, "keyring", "rotate"))
    number = 0
    while not rotating.done():
        number += 1
        await client.create_user(email=f"during{number}@example.com", username=f"during{number}")
        await client.change_user(user.id, {"display_name": f"version {number}"})
    done = await rotating
    assert done.returncode == 0, done.stderr
    assert number > 10
    again = await asyncio.to_thread(denizen, running, "keyring", "rewrap", "--json")
    assert again.returncode == 0, again.stderr
    return user.id


async def _history(client: Client, user_id: UUID) -> list[dict[str, Any]]:
    return [event.data async for event in client.history(user_id)]


def keys(running: RunningDeployment) -> list[dict[str, Any]]:
    listed = denizen(running, "keyring", "list", "--json")
    assert listed.returncode == 0, listed.stderr
    return [json.loads(line) for line in listed.stdout.splitlines()]


def test_without_its_keyring_a_deployment_says_so_and_makes_no_new_one(running: RunningDeployment) -> None:
    running.up.stop()
    path = running.data / "secrets" / "keyring.json"
    content = path.read_bytes()
    path.unlink()
    try:
        with pytest.raises(RuntimeError, match=r"keyring .* is missing"):
            running.start_again()
        assert not path.exists()
        path.write_bytes(b"{}")
        with pytest.raises(RuntimeError, match="restore it from your backup"):
            running.start_again()
    finally:
        path.write_bytes(content)
    running.start_again()
