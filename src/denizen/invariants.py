"""Invariants run in production: a broken one stops the work at hand, loudly, before it spreads."""

from typing import Any


class InvariantBroken(AssertionError):
    """Something that can never happen did; a defect of ours or of what we stand on."""


def invariant(condition: object, what: str, /, **facts: Any) -> None:
    """Raise `InvariantBroken` naming `what` and its `facts` unless `condition` holds."""
    if not condition:
        details = ", ".join(f"{name}={value!r}" for name, value in facts.items())
        raise InvariantBroken(f"{what}: {details}" if details else what)
