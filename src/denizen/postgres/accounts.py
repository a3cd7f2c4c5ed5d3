"""The operating system's user that PostgreSQL runs as.

PostgreSQL refuses to run as root. An ordinary user's servers run as that user, and nothing here matters. Root's servers
run as another user: `postgres.run_as`, else `postgres` where it exists, else `nobody`. That user must be able to reach
the programs and the data. Programs in a place it cannot reach (a virtual environment below /root) are copied to
`engine/` in the data directory; data in such a place are refused, with a message.
"""

import grp
import hashlib
import os
import pwd
import shutil
import subprocess
from pathlib import Path

from denizen.errors import BadConfiguration
from denizen.postgres.binaries import WHEEL_PACKAGE, Binaries, find_binaries, wheel_directory
from denizen.processes.accounts import Account, can_enter, process_options

CANDIDATES = ("postgres", "nobody")


def choose_account(run_as: str | None = None) -> Account | None:
    """Return the account that servers must run as, or None to run them as ourselves.

    Raises `BadConfiguration` if `run_as` does not exist, is root, or is somebody else while we are not root.
    """
    ours = os.geteuid()
    if ours == 0:
        return _account(run_as) if run_as else _first_candidate()
    if run_as is not None and _account(run_as).uid != ours:
        raise BadConfiguration(
            f"postgres.run_as: only root can run servers as another user ({run_as!r}); leave it out, or start as root"
        )
    return None


def _first_candidate() -> Account:
    for name in CANDIDATES:
        try:
            return _account(name)
        except BadConfiguration:
            continue
    raise BadConfiguration(
        "postgres.run_as: PostgreSQL refuses to run as root, and this machine has neither a user 'postgres' nor "
        "'nobody'; make one (useradd --system postgres), or name another user here"
    )


def _account(name: str) -> Account:
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        raise BadConfiguration(f"postgres.run_as: this machine has no user {name!r}") from None
    if entry.pw_uid == 0:
        raise BadConfiguration("postgres.run_as: PostgreSQL refuses to run as root; name another user")
    groups = tuple(os.getgrouplist(name, entry.pw_gid)) or (grp.getgrgid(entry.pw_gid).gr_gid,)
    return Account(name=name, uid=entry.pw_uid, gid=entry.pw_gid, groups=groups)


def require_entry(directory: Path, account: Account | None) -> None:
    """Raise `BadConfiguration` if `account` cannot reach the data directory."""
    if can_enter(directory, account):
        return
    who = f"user {account.name!r}, as whom PostgreSQL runs," if account else "this user"
    closed = next((p for p in reversed([directory, *directory.parents]) if not can_enter(p, account)), directory)
    raise BadConfiguration(
        f"data: {who} cannot reach {directory}: {closed} is closed to it; "
        "choose another directory (--data /var/lib/denizen), or start as an ordinary user"
    )


def reachable_binaries(binaries: Binaries, account: Account | None, engine: Path) -> Binaries:
    """Return programs that `account` can run: the given ones, or a copy of the wheel's below `engine`.

    Raises `BadConfiguration` for programs from elsewhere that it cannot run (their layout is unknown to us).
    """
    if account is None or _runs(binaries, account):
        return binaries
    if binaries.directory != wheel_directory():
        raise BadConfiguration(f"postgres.bin: user {account.name!r} cannot run the programs in {binaries.directory}")
    copied = find_binaries(_copy_wheel(binaries, engine))
    if not _runs(copied, account):
        raise BadConfiguration(
            f"data: user {account.name!r} cannot run programs in {copied.directory} (mounted noexec?)"
        )
    return copied


def _runs(binaries: Binaries, account: Account) -> bool:
    command = [binaries.path("postgres"), "--version"]
    try:
        run = subprocess.run(command, check=False, capture_output=True, cwd="/", timeout=20, **process_options(account))
    except OSError:
        return False
    return run.returncode == 0 and can_enter(binaries.directory.parent, account)


def _copy_wheel(binaries: Binaries, engine: Path) -> Path:
    """Copy the wheel's installation and the libraries beside it, once a build; return the copy's program directory.

    The relative places stay as in the wheel (`<package>/pginstall18/bin` and `<package>.libs`), for the programs look
    for their libraries there. The copy appears by a rename, so a killed copy is never used.
    """
    install = binaries.directory.parent
    package = install.parent
    facts = (binaries.directory / "postgres").stat()
    digest = hashlib.sha256(f"{install} {facts.st_size} {facts.st_mtime_ns}".encode()).hexdigest()[:12]
    target = engine / f"{binaries.version}-{digest}"
    if not target.is_dir():
        engine.mkdir(mode=0o755, exist_ok=True)
        fresh = engine / f".{target.name}.{os.getpid()}"
        shutil.copytree(install, fresh / package.name / install.name, ignore=shutil.ignore_patterns("include", "*.a"))
        for libraries in (package.parent / f"{WHEEL_PACKAGE}.libs", package / ".dylibs"):
            if libraries.is_dir():
                shutil.copytree(libraries, fresh / libraries.relative_to(package.parent))
        _open_to_all(fresh)
        fresh.rename(target)
        for old in engine.iterdir():
            if old != target:
                shutil.rmtree(old, ignore_errors=True)
    return target / package.name / install.name / "bin"


def _open_to_all(tree: Path) -> None:
    for path in (tree, *tree.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
