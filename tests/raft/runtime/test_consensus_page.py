"""The page about consensus: its code runs, and what it says about limits is so."""

import re
import subprocess
import sys
from pathlib import Path

from raft_cluster import free_ports

from denizen.raft import Settings, limits

PAGE = (Path(__file__).parents[3] / "docs" / "consensus.md").read_text()


def test_the_counter_of_the_page_runs_when_pasted(tmp_path):
    code = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)[0]
    body = [line for line in code.splitlines() if line.strip()]
    assert len(body) <= 35
    for port, free in zip((7301, 7302, 7303), free_ports(3), strict=True):
        code = code.replace(str(port), str(free))
    script = tmp_path / "counter.py"
    script.write_text(code)
    run = subprocess.run([sys.executable, "-X", "dev", script], capture_output=True, text=True, timeout=60, check=False)
    assert (run.returncode, run.stdout.split()) == (0, ["5", "2", "42"]), run.stderr


def test_the_limits_on_the_page_are_the_real_ones():
    settings = Settings()
    assert settings.command_bytes_max == 1 << 20
    assert settings.proposals_waiting_max == 16_384
    assert settings.snapshot_entries == 50_000
    assert settings.snapshot_bytes == 64 << 20
    assert settings.snapshot_trailing_entries == 5_000
    assert settings.snapshot_trailing_bytes == 32 << 20
    assert settings.election_ms == limits.election_ms == 150
    assert limits.snapshots_kept == 2
