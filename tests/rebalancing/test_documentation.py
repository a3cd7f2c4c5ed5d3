"""The session in docs/rebalancing.md runs when it is pasted."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from denizen.testing.deployment import SMALL
from denizen.testing.postgres import reachable_directory

PAGE = Path(__file__).parents[2] / "docs" / "rebalancing.md"


@pytest.mark.timeout(280)
def test_the_first_session_runs() -> None:
    (session,) = re.findall(r"```sh\n(.*?)```", PAGE.read_text(), re.DOTALL)
    with reachable_directory() as directory:
        (directory / "small.toml").write_text(SMALL)
        environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "TMPDIR": str(directory),
            "DENIZEN_CONFIG": str(directory / "small.toml"),
        }
        try:
            done = subprocess.run(
                ["sh", "-e", "-c", session], env=environment, capture_output=True, text=True, check=False, timeout=270
            )
        finally:
            for data in directory.glob("denizen-rebalancing"):
                subprocess.run([sys.executable, "-m", "denizen", "down", "--data", str(data)], check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "s3" in done.stdout
    assert "writes to a bucket were held for" in done.stdout
