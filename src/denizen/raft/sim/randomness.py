"""Random numbers of a run: one independent stream for each use, all from the seed."""

from random import Random


def stream(seed: int, use: str) -> Random:
    """The stream for one use. A new use of randomness takes its own, so that it does not shift what the others draw."""
    return Random(f"{seed} {use}")  # noqa: S311 - nothing here is secret, and a seed has to replay
