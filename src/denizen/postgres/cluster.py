"""A new PostgreSQL data directory, made by `initdb`.

It is made under another name and renamed when it is whole, so a start that was killed half-way leaves nothing that
looks like data. Each server runs its own `initdb` (0.6 s, in parallel) rather than a copy of another's directory:
copies would share a system identifier, and a standby could then follow the wrong primary. Text sorts by code point
(`C`), the same on every machine and release: what is normalised, Denizen normalises itself.
"""

import os
import secrets
import shutil
import signal
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import IO

from denizen import limits
from denizen.errors import BadDeployment
from denizen.files import sync_directory
from denizen.postgres.binaries import Binaries, postgres_environment
from denizen.processes.accounts import Account, give
from denizen.processes.children import spawn

OWNER = "denizen"


class NewCluster:
    """One `initdb` under way: start several, then `finish` each."""

    def __init__(
        self, data: Path, *, binaries: Binaries, account: Account | None, password: str, sync: bool = True
    ) -> None:
        """Start `initdb`. The superuser is `denizen`, its password `password`; without `sync` a crash may lose all."""
        self.data = data
        for killed in data.parent.glob(f"{data.name}.new-*"):
            _remove(killed)
        # A name of its own: the `initdb` of a killed start may still be ending.
        self._fresh = data.with_name(f"{data.name}.new-{os.getpid()}-{secrets.token_hex(2)}")
        self._fresh.mkdir(mode=0o700, parents=True)
        give(self._fresh, account)
        self._output: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  closed by finish
        self._password_file = self._fresh.with_name(f"{self._fresh.name}.password")
        _write_for(self._password_file, f"{password}\n", account)
        options = ["--username", OWNER, "--pwfile", str(self._password_file), "--auth=scram-sha-256", "--encoding=UTF8"]
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

    def abandon(self) -> None:
        """End `initdb` where it is and remove what it made; nothing to do after `finish`."""
        if self._process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._password_file.unlink(missing_ok=True)
        self._output.close()
        shutil.rmtree(self._fresh, ignore_errors=True)

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
            self._password_file.unlink(missing_ok=True)
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


def _write_for(path: Path, text: str, account: Account | None) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    give(path, account)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
