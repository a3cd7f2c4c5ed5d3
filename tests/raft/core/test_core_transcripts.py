"""Golden transcripts: scripts of commands and every message, write and decision that followed, each pinning a rule.

A transcript is a text file in `transcripts/`. Lines with `#` say which rule it pins, lines with `>` are commands, the
lines after a command are what it led to. After a deliberate change of behaviour, `RAFT_TRANSCRIPTS=rewrite pytest`
writes them anew; read the difference before committing it.
"""

import os
from pathlib import Path

import pytest
from core_lab import Lab

TRANSCRIPTS = sorted((Path(__file__).parent / "transcripts").glob("*.txt"))


def split(words):
    """Plain words and `name=value` ones."""
    named = dict(word.split("=", 1) for word in words if "=" in word)
    return [word for word in words if "=" not in word], named


def matcher(named):
    """Which messages `to=`, `from=` and `type=` mean."""
    return lambda message: (
        named.get("to", str(message.to)) == str(message.to)
        and named.get("from", str(message.sender)) == str(message.sender)
        and named.get("type", type(message).__name__) == type(message).__name__
    )


class Script:
    """Carries commands out on a lab."""

    def __init__(self):
        self.lab = None
        self.kept = []

    def run(self, command: str) -> list[str]:
        """One command; returns what it led to."""
        name, *words = command.split()
        plain, named = split(words)
        numbers = [int(word) for word in plain if word.isdigit()]
        if name != "nodes":
            self.lab.lines.clear()
        getattr(self, name)(numbers, plain, named)
        return list(self.lab.lines)

    def nodes(self, numbers, plain, named):
        others = tuple(int(number) for number in named.pop("others", "").split(",") if number)
        settings = {key: value == "yes" if value in {"yes", "no"} else int(value) for key, value in named.items()}
        self.lab = Lab(tuple(numbers), others, **settings)

    def campaign(self, numbers, plain, named):
        self.lab.campaign(numbers[0])

    def timeout(self, numbers, plain, named):
        self.lab.nodes[numbers[0]].ahead += 300
        self.lab.step(numbers[0])

    def elect(self, numbers, plain, named):
        self.lab.elect(*numbers)
        self.lab.lines.append(f"(n{numbers[0]} leads)")
        del self.lab.lines[:-1]

    def settle(self, numbers, plain, named):
        self.lab.settle(*numbers)

    def quietly(self, numbers, plain, named):
        self.run(" ".join(plain + [f"{key}={value}" for key, value in named.items()]))
        self.lab.lines.clear()

    def deliver(self, numbers, plain, named):
        self.lab.deliver(matcher(named))

    def drop(self, numbers, plain, named):
        self.lab.drop(matcher(named))

    def keep(self, numbers, plain, named):
        self.kept = [message for message in self.lab.wire if matcher(named)(message)]

    def again(self, numbers, plain, named):
        for message in self.kept:
            self.lab.step(message.to, message)

    def tick(self, numbers, plain, named):
        self.lab.tick(*numbers, ms=int(named.get("ms", 0)))

    def beat(self, numbers, plain, named):
        self.lab.beat(*numbers)

    def propose(self, numbers, plain, named):
        self.lab.propose(numbers[0], *(word.encode() for word in plain[1:]))

    def read(self, numbers, plain, named):
        self.lab.read(numbers[0])

    def change(self, numbers, plain, named):
        change = {key: tuple(int(node) for node in value.split(",")) for key, value in named.items()}
        self.lab.change(numbers[0], **change)

    def transfer(self, numbers, plain, named):
        self.lab.transfer(*numbers)

    def hold(self, numbers, plain, named):
        self.lab.nodes[numbers[0]].holds_disk = True

    def sync(self, numbers, plain, named):
        self.lab.sync(numbers[0])

    def crash(self, numbers, plain, named):
        self.lab.crash(*numbers)

    def restart(self, numbers, plain, named):
        self.lab.restart(*numbers)

    def damage(self, numbers, plain, named):
        self.lab.crash(numbers[0])
        self.lab.nodes[numbers[0]].disk.rot()
        self.lab.nodes[numbers[0]].start()

    def preset(self, numbers, plain, named):
        terms = [int(term) for term in named.get("log", "").split(",") if term]
        self.lab.preset(numbers[0], terms, term=int(named["term"]))

    def snapshot(self, numbers, plain, named):
        self.lab.make_snapshot(numbers[0])

    def show(self, numbers, plain, named):
        for node in numbers or sorted(self.lab.nodes):
            core, configuration = self.lab[node], self.lab[node].configuration
            log = " ".join(f"{index}/t{term}" for index, term in self.lab.nodes[node].log)
            self.lab.lines.append(
                f"n{node} {core.role.name.lower()} t{core.term} commit {core.commit} log [{log}] voters "
                f"{configuration.voters} outgoing {configuration.outgoing} learners {configuration.learners}"
            )


def play(text: str) -> str:
    """The transcript with what really follows each command."""
    script, out = Script(), []
    for line in text.splitlines():
        if line.startswith("#") or (not line and (not out or out[-1])):
            out.append(line)
        elif line.startswith("> "):
            if out and out[-1] and not out[-1].startswith("#") and not out[-1].startswith("> "):
                out.append("")
            out.append(line)
            out.extend(script.run(line[2:]))
    return "\n".join(out).strip("\n") + "\n"


@pytest.mark.parametrize("path", TRANSCRIPTS, ids=lambda path: path.stem)
def test_transcript(path):
    text = path.read_text()
    played = play(text)
    if os.environ.get("RAFT_TRANSCRIPTS") == "rewrite":
        path.write_text(played)
    assert text.startswith("# "), "a transcript begins with the rule that it pins"
    assert path.read_text() == played


def test_there_are_transcripts():
    assert len(TRANSCRIPTS) >= 15
