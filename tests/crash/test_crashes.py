"""Everything is killed under load, again and again; no acknowledged write is lost and nothing is half done."""

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from denizen.testing.deployment import RunningDeployment, throwaway_deployment
from denizen.testing.ledger import Ledger

pytestmark = pytest.mark.timeout(240)


def _pids(running: RunningDeployment) -> list[int]:
    state = running.deployment.state()
    pids = [server.pid for server in state.shards.values()]
    return [pid for pid in [*pids, state.gateway.pid if state.gateway else None] if pid]


async def _kill_while_working(running: RunningDeployment, ledger: Ledger, kills: int) -> None:
    done = False

    async def chaos() -> None:
        nonlocal done
        chooser = random.Random(5)
        for _ in range(kills):
            before = ledger.acknowledged
            while ledger.acknowledged < before + 150:
                await asyncio.sleep(0.01)
            os.kill(chooser.choice(_pids(running)), signal.SIGKILL)
        before = ledger.acknowledged
        while ledger.acknowledged < before + 300:
            await asyncio.sleep(0.01)
        done = True

    await asyncio.gather(chaos(), ledger.work(24, lambda: done))


async def _settled(ledger: Ledger, seconds: float = 30) -> list[str]:
    """The differences that remain once the sweeper has had its time."""
    deadline = time.monotonic() + seconds
    while (found := await ledger.differences()) and time.monotonic() < deadline:
        await asyncio.sleep(1)
    return found


def _verify(data: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "denizen", "verify", "--data", str(data), "--json"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_servers_and_gateway_killed_under_load_lose_no_acknowledged_write() -> None:
    with throwaway_deployment(shards=2) as running:
        ledger = Ledger(running.url, running.admin_key)
        asyncio.run(_kill_while_working(running, ledger, kills=8))
        assert ledger.acknowledged > 1_000
        assert ledger.repeated > 0, "no request was disturbed: the kills came at the wrong time"
        assert not ledger.refused, ledger.refused
        assert asyncio.run(_settled(ledger)) == []
        done = _verify(running.data)
        assert done.returncode == 0, done.stdout + done.stderr


def test_everything_killed_at_once_loses_no_acknowledged_write() -> None:
    with throwaway_deployment(shards=2) as running:
        ledger = Ledger(running.url, running.admin_key, abandon=1.0)

        async def work_and_kill() -> None:
            killed = False

            async def kill() -> None:
                nonlocal killed
                while ledger.acknowledged < 500:
                    await asyncio.sleep(0.01)
                running.up.process.send_signal(signal.SIGSTOP)  # or it would begin to restart what we kill
                for pid in _pids(running):
                    os.kill(pid, signal.SIGKILL)
                running.up.kill()
                killed = True

            await asyncio.gather(kill(), ledger.work(24, lambda: killed))

        asyncio.run(work_and_kill())
        running.start_again()
        again = Ledger(running.url, running.admin_key)
        again.accounts = ledger.accounts
        assert asyncio.run(_settled(again)) == []
        report = _verify(running.data)
        assert report.returncode == 0, report.stdout + report.stderr
        assert json.loads(report.stdout)
