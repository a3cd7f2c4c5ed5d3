"""A new PostgreSQL data directory, made by `initdb`.

It is made under another name and renamed when it is whole, so a start that was killed half-way leaves nothing that
looks like data. Each server runs its own `initdb` (0.6 s, in parallel) rather than a copy of another's directory:
copies would share a system identifier, and a standby could then follow the wrong primary. Text sorts by code point
(`C`), the same on every machine and release: what is normalised, Denizen normalises itself.
"""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import IO

from denizen import limits
from denizen.errors import BadDeployment
from denizen.postgres.accounts import Account, give
from denizen.postgres.binaries import Binaries
from denizen.postgres.processes import postgres_environment, spawn

OWNER = "denizen"


class NewCluster:
    """One `initdb` under way: start several, then `finish` each."""

    def __init__(
        self, data: Path, *, binaries: Binaries, account: Account | None, password: str, sync: bool = True
    ) -> None:
        """Start `initdb`. The superuser is `denizen`, its password `password`; without `sync` a crash may lose all."""
        self.data = data
        self._fresh = data.with_name(f"{data.name}.new")
        shutil.rmtree(self._fresh, ignore_errors=True)
        self._fresh.mkdir(mode=0o700, parents=True)
        give(self._fresh, account)
        self._output: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  closed by finish
        self._password_file = _password_file(password, account)
        options = ["--username", OWNER, "--pwfile", self._password_file, "--auth=scram-sha-256", "--encoding=UTF8"]
        options += ["--locale=C", "--data-checksums", "--no-instructions", *([] if sync else ["--no-sync"])]
        self._process = spawn(
            [binaries.path("initdb"), "--pgdata", str(self._fresh), *options],
            log=self._output,
            account=account,
            cwd=self._fresh,
            env=postgres_environment(),
        )

    def ended(self) -> bool:
        """Say whether `finish` would return at once."""
        return self._process.poll() is not None

    def finish(self) -> None:
        """Wait for `initdb` and put the data directory in its place.

        Raises `BadDeployment` with what `initdb` said if it failed.
        """
        try:
            code = self._process.wait(timeout=limits.initdb_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        finally:
            Path(self._password_file).unlink(missing_ok=True)
        self._output.seek(0)
        said = self._output.read().decode(errors="replace").strip()
        self._output.close()
        if code != 0:
            shutil.rmtree(self._fresh, ignore_errors=True)
            raise BadDeployment(f"initdb could not make {self.data}: {said or f'exit code {code}'}")
        with (self._fresh / "postgresql.conf").open("a") as file:
            file.write("\ninclude = 'denizen.conf'  # written by Denizen at every start\n")
        self._fresh.rename(self.data)
        sync_directory(self.data.parent)


def _password_file(password: str, account: Account | None) -> str:
    # In the system's temporary directory: our own may be closed to the account.
    handle, path = tempfile.mkstemp(prefix="denizen-", suffix=".initdb")
    with os.fdopen(handle, "w") as file:
        file.write(password + "\n")
    give(Path(path), account)
    return path


def sync_directory(directory: Path) -> None:
    """Make a rename in `directory` durable."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
