"""The errors of the Raft core: a defect of ours, or bytes that are no message of this version."""

from typing import Any


class RaftError(Exception):
    """The root of everything this library raises on purpose."""


class InvariantBroken(RaftError, AssertionError):
    """Something that can never happen did. The node must stop: going on could lose acknowledged entries."""


class MalformedMessage(RaftError, ValueError):
    """Bytes from the network that are no packet of this version, or one beyond its bounds."""


def invariant(condition: object, what: str, /, **facts: Any) -> None:
    """Raise `InvariantBroken` naming `what` and its `facts` unless `condition` holds."""
    if not condition:
        details = ", ".join(f"{name}={value!r}" for name, value in facts.items())
        raise InvariantBroken(f"{what}: {details}" if details else what)
