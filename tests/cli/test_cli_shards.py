"""What `denizen shards` says about a shard that does not join."""

from pathlib import Path

from denizen.cli.shards import problem_of


def test_the_agents_last_word_about_a_shard_is_found_in_the_log(tmp_path: Path) -> None:
    log = tmp_path / "denizen.log"
    assert problem_of(log, "s5") is None
    log.write_text(
        "2026-01-01T00:00:00Z agent: shard s5: nobody listens; trying again\n"
        "2026-01-01T00:00:01Z agent: shard s5: its database is not empty; trying again\n"
        "2026-01-01T00:00:02Z agent: shard s55: something else; trying again\n"
        "2026-01-01T00:00:03Z shard s5 restarted\n"
    )
    assert problem_of(log, "s5") == "shard s5: its database is not empty"
    assert problem_of(log, "s4") is None
