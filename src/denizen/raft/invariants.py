"""Invariants run in production: a broken one stops the node, loudly, before acknowledged entries are lost."""

from typing import Any

from denizen.raft.errors import RaftError


class InvariantBroken(RaftError, AssertionError):
    """Something that can never happen did: a defect of ours or of what we stand on. The node must stop."""

    code = "invariant_broken"


def invariant(condition: object, what: str, /, **facts: Any) -> None:
    """Raise `InvariantBroken` naming `what` and its `facts` unless `condition` holds."""
    if not condition:
        details = ", ".join(f"{name}={value!r}" for name, value in facts.items())
        raise InvariantBroken(f"{what}: {details}" if details else what)
