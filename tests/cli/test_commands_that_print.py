"""What every command has in common: programs can read what it prints."""

from collections.abc import Iterator

from cyclopts import App

from denizen.cli.main import app

# Those that run until they are stopped, print what others keep as it is, or tell a story.
WITHOUT = {
    "control",
    "demo",
    "gateway",
    "projector",
    "raft demo",
    "raft serve",
    "raft token",
    "relay",
    "replay worker",
}


def commands(group: App, path: tuple[str, ...] = ()) -> Iterator[tuple[str, set[str]]]:
    """Each command with its options."""
    if group.default_command is not None:
        yield " ".join(path), {name for option in group.assemble_argument_collection() for name in option.names}
    for name in group:
        if not name.startswith("-"):
            yield from commands(group[name], (*path, name))


def test_every_command_that_prints_takes_json() -> None:
    found = dict(commands(app))
    assert len(found) > 40
    assert {name for name, options in found.items() if "--json" not in options} == WITHOUT
