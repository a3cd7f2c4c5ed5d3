"""The session in docs/client.md runs when it is pasted, twice."""

import re
import subprocess
import sys
from pathlib import Path

from denizen.testing.http import RunningServer

PAGE = Path(__file__).parents[2] / "docs" / "client.md"


def test_the_first_session_runs(server: RunningServer, tmp_path: Path) -> None:
    session = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)[0]
    script = tmp_path / "session.py"
    script.write_text(session)
    environment = {"DENIZEN_URL": server.url, "DENIZEN_KEY": server.admin_key}
    for _ in range(2):
        run = subprocess.run(
            [sys.executable, str(script)], env=environment, capture_output=True, text=True, timeout=60, check=False
        )
        assert run.returncode == 0, run.stderr
        assert "may log in: True" in run.stdout
        assert "UserRegistered" in run.stdout
