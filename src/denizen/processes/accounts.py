"""Another user of this machine, as whom a child process runs: its rights, and files that are its own."""

import os
import pwd
import subprocess
from pathlib import Path
from typing import Any

from msgspec import Struct


class Account(Struct, frozen=True):
    """Another user of this machine, whose rights a child process takes."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]


def user_name(uid: int) -> str:
    """Return a user's name for messages, or the number where it has none."""
    try:
        return f"user {pwd.getpwuid(uid).pw_name!r}"
    except KeyError:
        return f"user {uid}"


def process_options(account: Account | None) -> dict[str, Any]:
    """Return the arguments of `subprocess.Popen` that make a child run as `account`."""
    if account is None:
        return {}
    return {"user": account.uid, "group": account.gid, "extra_groups": list(account.groups)}


def give(path: Path, account: Account | None) -> None:
    """Make `account` the owner of a file or directory (nothing to do where we run as ourselves)."""
    if account is not None:
        os.chown(path, account.uid, account.gid)


def private_directory(path: Path, account: Account | None) -> Path:
    """Make a directory (unless it is there) that only `account` may enter."""
    path.mkdir(mode=0o700, parents=False, exist_ok=True)
    give(path, account)
    return path


def can_enter(directory: Path, account: Account | None) -> bool:
    """Say whether `account` may pass through `directory`; the operating system answers, so ACLs count too."""
    if account is None:
        return os.access(directory, os.X_OK)
    command = ["test", "-x", str(directory)]
    return subprocess.run(command, check=False, cwd="/", **process_options(account)).returncode == 0
