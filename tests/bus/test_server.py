"""The NATS server as a child of ours."""

import os
import signal
import stat
from pathlib import Path

import pytest

from denizen.bus.connection import TROUBLE, connected
from denizen.bus.server import NatsServer
from denizen.bus.settings import EVENTS_STREAM, BusSettings
from denizen.bus.streams import ensure_streams
from denizen.errors import BadDeployment
from denizen.testing.bus import plan_in


@pytest.fixture
def server(tmp_path: Path) -> NatsServer:
    return NatsServer(plan_in(tmp_path))


async def test_it_lets_nobody_in_without_the_password(nats_server: NatsServer) -> None:
    for settings in (
        BusSettings((nats_server.url,)),
        BusSettings((nats_server.url,), user="denizen", password="guess"),
    ):
        with pytest.raises(TROUBLE):
            async with connected(settings, "stranger"):
                pass
    async with connected(nats_server.settings(), "friend") as bus:
        assert bus.client.is_connected
    assert stat.S_IMODE((nats_server.plan.data / "nats.conf").stat().st_mode) == 0o600


def test_it_keeps_its_port_and_its_store_over_a_restart(server: NatsServer) -> None:
    server.start()
    server.wait_ready()
    port = server.plan.port
    server.stop()
    assert server.exit_code is not None
    server.start()
    server.wait_ready()
    assert server.plan.port == port
    server.stop()


def test_one_that_was_left_behind_is_stopped_by_the_next_start(server: NatsServer) -> None:
    server.start()
    server.wait_ready()
    following = NatsServer(server.plan)
    following.start()
    following.wait_ready()
    assert server.exit_code is not None
    following.stop()


def test_one_that_cannot_start_says_why(server: NatsServer, tmp_path: Path) -> None:
    server.plan.data.mkdir()
    (server.plan.data / "store").write_text("in the way")
    server.start()
    with pytest.raises(BadDeployment, match="NATS server does not start"):
        server.wait_ready(5)
    server.kill()


def test_a_killed_server_has_an_exit_code(nats_server: NatsServer) -> None:
    assert nats_server.exit_code is None
    assert nats_server.pid is not None
    os.kill(nats_server.pid, signal.SIGKILL)
    nats_server.stop()
    assert nats_server.exit_code == -signal.SIGKILL


async def test_streams_are_made_as_stated_and_follow_the_settings(nats_server: NatsServer) -> None:
    from msgspec import structs

    settings = structs.replace(nats_server.settings(), retention_s=3_600, retention_bytes=10 << 20)
    for wanted in (settings, structs.replace(settings, retention_s=7_200, retention_bytes=20 << 20)):
        async with connected(wanted, "test") as bus:
            await ensure_streams(bus, wanted)
            config = (await bus.stream.stream_info(EVENTS_STREAM)).config
        assert (config.max_age, config.max_bytes) == (wanted.retention_s, wanted.retention_bytes)
        assert config.subjects == ["denizen.events.*"]
