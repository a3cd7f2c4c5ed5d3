"""The event bus and the relays as parts of a running deployment."""

import asyncio
import json
import os
import signal
import stat
import subprocess
import sys
import urllib.request
from collections.abc import Iterator

import pytest

from denizen.bus.batches import Batch
from denizen.bus.feed import EventFeed
from denizen.deployment.read_side import readers_of
from denizen.sharding.ids import BUCKETS, Bucket
from denizen.testing.bus import throwaway_nats
from denizen.testing.deployment import RunningDeployment, throwaway_deployment

from .processes import denizen, wait_for


@pytest.fixture(scope="module")
def running() -> Iterator[RunningDeployment]:
    """One deployment for the tests of this file."""
    with throwaway_deployment(shards=1) as deployment:
        yield deployment


def register(running: RunningDeployment, name: str) -> None:
    """Make a user over HTTP."""
    request = urllib.request.Request(  # noqa: S310 - our own address
        f"{running.url}/v1/users",
        data=json.dumps({"username": name}).encode(),
        headers={"Authorization": f"Bearer {running.admin_key}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=20) as answer:  # noqa: S310
        assert answer.status == 201


def follow(running: RunningDeployment, username: str, *, live: bool) -> None:
    """Wait until a feed has brought this user's registration; `live`: over the bus."""
    deployment = running.deployment
    everything = {Bucket(bucket): 0 for bucket in range(BUCKETS)}

    async def bring(feed: EventFeed, name: str) -> None:
        await asyncio.to_thread(register, running, name)
        batch: Batch | None = None
        while batch is None or name not in [getattr(event.event, "username", None) for event in batch.events]:
            batch = await feed.next_batch(1_000, 0.1)

    async def find() -> None:
        async with (
            asyncio.timeout(20),
            readers_of(deployment) as readers,
            EventFeed(deployment.bus, readers, everything) as feed,
        ):
            await bring(feed, username)
            attempts = 0
            while live and not feed.counts()["bus"]:  # a relay that has just been started may take a moment
                attempts += 1
                await bring(feed, f"{username}-{attempts}")

    asyncio.run(find())


def test_a_change_over_http_reaches_a_feed_over_the_bus(running: RunningDeployment) -> None:
    follow(running, "ann", live=True)


def test_where_the_bus_is_only_the_owner_may_read(running: RunningDeployment) -> None:
    bus = running.deployment.bus
    assert bus is not None
    assert bus.servers == (f"nats://127.0.0.1:{running.deployment.state().bus.port}",)
    for name in ("bus.json", "nats-password"):
        assert stat.S_IMODE((running.data / "secrets" / name).stat().st_mode) == 0o600


@pytest.mark.parametrize("victim", ["nats", "relay"])
def test_a_killed_process_is_started_again(running: RunningDeployment, victim: str) -> None:
    def pid() -> int | None:
        state = running.deployment.state()
        process = state.bus if victim == "nats" else state.processes[victim]
        return process.pid if process else None

    before = pid()
    assert before is not None
    os.kill(before, signal.SIGKILL)
    wait_for(lambda: pid() not in (None, before))
    wait_for(lambda: any(f"{victim} runs again" in note for note in running.up.notes()))
    follow(running, f"after-{victim}", live=True)


def test_status_tells_how_bus_and_relay_are(running: RunningDeployment) -> None:
    health = json.loads(denizen("status", "--data", running.data, "--json").stdout)
    assert health["state"] == "running"
    assert {"nats": "up", "relay": "up"}.items() <= {
        each["name"]: each["state"] for each in health["processes"]
    }.items()
    assert "Relay up" in denizen("status", "--data", running.data).stdout


def test_users_are_served_while_the_bus_is_away(running: RunningDeployment) -> None:
    state = running.deployment.state()
    assert state.bus is not None
    assert state.bus.pid is not None
    os.kill(state.bus.pid, signal.SIGSTOP)
    try:
        follow(running, "bea", live=False)
    finally:
        os.kill(state.bus.pid, signal.SIGCONT)


def test_another_relay_stands_by_and_ends_when_asked(running: RunningDeployment) -> None:
    command = [sys.executable, "-P", "-m", "denizen", "relay", "--data", str(running.data)]
    relay = subprocess.Popen(command, stderr=subprocess.PIPE)
    assert relay.stderr is not None
    assert b"relays_started" in relay.stderr.readline()
    relay.send_signal(signal.SIGTERM)
    _, said = relay.communicate(timeout=20)
    assert (relay.returncode, b"relays_stopped" in said) == (0, True)


def test_a_bus_of_somebody_elses_is_used() -> None:
    with throwaway_nats() as nats:
        place = nats.url.removeprefix("nats://")
        url = f"nats://denizen:{nats.plan.password}@{place}"
        configuration = '[postgres]\nmemory = "512MB"\n[bus]\nretention_size = "64MB"\n'
        with throwaway_deployment(shards=1, arguments=["--nats-url", url], configuration=configuration) as running:
            assert running.deployment.state().bus is None
            follow(running, "ann", live=True)
            assert nats.plan.password not in running.up.said()


def test_a_deployment_without_a_bus_serves_and_is_followed_from_postgresql() -> None:
    with throwaway_deployment(shards=1, configuration="[bus]\nenabled = false\n") as running:
        assert running.deployment.bus is None
        assert running.deployment.state().processes == {}
        follow(running, "ann", live=False)
