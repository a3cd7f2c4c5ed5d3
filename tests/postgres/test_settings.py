"""Settings of a shard's server: sized to the machine, always durable."""

import pytest

from denizen.postgres.settings import GIB, render, shard_settings, throwaway_settings


def megabytes(value: str) -> int:
    return int(value.removesuffix("MB"))


@pytest.mark.parametrize("memory", [256 << 20, 4 * GIB, 24 * GIB, 512 * GIB])
@pytest.mark.parametrize("servers", [1, 4, 64])
def test_all_servers_together_leave_most_memory_to_the_rest(memory: int, servers: int) -> None:
    settings = shard_settings(memory_bytes=memory, servers=servers, major=18)
    buffers = megabytes(settings["shared_buffers"])
    assert buffers == 32 or buffers * servers <= memory // (1 << 20) // 4
    assert buffers <= 16_384
    assert megabytes(settings["min_wal_size"]) < megabytes(settings["max_wal_size"]) <= 8_192


@pytest.mark.parametrize("name", ["fsync", "full_page_writes", "synchronous_commit"])
def test_durability_is_always_on(name: str) -> None:
    assert shard_settings(memory_bytes=GIB, servers=4, major=18)[name] == "on"
    assert throwaway_settings(fsync=True)[name] == "on"


def test_settings_of_a_newer_release_are_left_out_for_an_older_one() -> None:
    assert "io_workers" not in shard_settings(memory_bytes=GIB, servers=4, major=17)


def test_values_are_quoted_so_that_none_can_add_a_line() -> None:
    assert render({"a": "it's", "b": "c:\\d"}) == "a = 'it''s'\nb = 'c:\\\\d'\n"
