"""docs/bus.md says what the code does; its consumer runs as it stands there."""

import asyncio
import os
import re
import sys
from pathlib import Path

import msgspec
import pytest

from denizen import limits
from denizen.bus.messages import EventsMessage, HeadsMessage, WireEvent
from denizen.bus.settings import BusSettings, events_subject, heads_subject
from denizen.bus.streams import stream_configs
from denizen.sharding.ids import ShardId

from .plane import Plane

PAGE = (Path(__file__).parents[2] / "docs" / "bus.md").read_text()
CONSUMER = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)[0]


async def test_the_consumer_runs_when_pasted(plane: Plane, tmp_path: Path) -> None:
    plane.start_relays()
    await plane.append(30, buckets=[1, 2, 3])
    while sum(relay.published for relay in plane.relays) < 30:
        await asyncio.sleep(0.01)
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "bus.json").write_bytes(msgspec.json.encode(plane.bus))
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        CONSUMER,
        env={**os.environ, "DENIZEN_DATA": str(tmp_path)},
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(20):
            lines = [(await process.stdout.readline()).decode() for _ in range(30)]
            await plane.append(3, buckets=[1, 2, 3])
            lines += [(await process.stdout.readline()).decode() for _ in range(3)]
    finally:
        process.kill()
        await process.communicate()
    came = [tuple(int(word) for word in line.split()[:2]) for line in lines]
    for bucket in (1, 2, 3):
        assert [sequence for found, sequence in came if found == bucket] == list(range(1, 12))
    assert re.search(r"1 UserRegistered \{'email': 'user\d+@example.com'", lines[0])


def test_the_consumer_is_short() -> None:
    assert len(CONSUMER.strip().splitlines()) <= 22


@pytest.mark.parametrize("kind", [EventsMessage, HeadsMessage, WireEvent])
def test_the_page_lists_every_field(kind: type[msgspec.Struct]) -> None:
    for name in kind.__struct_fields__:
        assert re.search(rf"\| `{name}` \|", PAGE), name


def test_the_page_names_subjects_streams_and_limits() -> None:
    events, heads = stream_configs(BusSettings(("nats://localhost",)))
    for config, subject in ((events, events_subject), (heads, heads_subject)):
        assert f"| `{subject(ShardId('<shard>'))}` | `{config.name}` |" in PAGE
    assert (events.max_age, events.max_bytes) == (24 * 3600, 1 << 30)
    assert f"within {limits.bus_duplicate_window_s:.0f} s" in PAGE
    assert f"newest {limits.bus_restart_events_max} events" in PAGE
    assert f"while {limits.feed_ready_events_max:,} events wait" in PAGE
