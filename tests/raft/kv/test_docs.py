"""`docs/raft-kv.md`: its examples run, and its tables are complete."""

import asyncio
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
from kv_clusters import Start
from kv_one_node import OneNode

from denizen.raft.kv.config import Config
from denizen.raft.kv.errors import BY_CODE

PAGE = (Path(__file__).parents[3] / "docs/raft-kv.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def run(command: list[str], cluster: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "DENIZEN_RAFT_DATA": str(cluster)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


async def test_commands_and_python_of_the_page_run(start: Start) -> None:
    it = await start(3)
    for line in blocks("bash")[1].strip().splitlines():
        command = [sys.executable, "-m", *shlex.split(line, comments=True)]
        done = await asyncio.to_thread(run, command, it.cluster.directory)
        assert done.returncode == 0, f"{line}: {done.stdout}{done.stderr}"
    names: dict[str, Any] = {}
    exec(blocks("python")[0], names)  # noqa: S102 - our own page
    await asyncio.wait_for(names["main"](it.cluster.directory), 30)


def test_configuration_of_the_page_is_valid() -> None:
    config = msgspec.convert(msgspec.toml.decode(blocks("toml")[0]), Config, strict=False)
    config.check()
    named = set(re.findall(r"`(\w+)`", PAGE)) | set(msgspec.toml.decode(blocks("toml")[0]))
    assert set(Config.__struct_fields__) - {"secret"} <= named


def test_every_error_is_explained() -> None:
    explained = {code: int(status) for code, status in re.findall(r"^\| `(\w+)` \| (\d+) \|", PAGE, re.MULTILINE)}
    assert explained == {**{code: kind.status for code, kind in BY_CODE.items()}, "internal": 500}


async def test_every_route_is_listed(node: OneNode) -> None:
    listed = set(re.findall(r"`(GET|POST) (/\S+)`", PAGE))
    ours = {(method, path) for method, path in node.server.routes if not path.startswith("/v3/") and path != "/version"}
    assert listed == ours
