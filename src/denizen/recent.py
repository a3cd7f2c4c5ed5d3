"""A memory of what was put last, for what can be had again elsewhere, only more slowly."""

from typing import Generic, TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")


class Recent(Generic[Key, Value]):
    """The values that were put last, at most `kept_max`, and at least half as many if so many were put.

    There are two generations: the younger takes what is put; when it is full, it becomes the older one, and what the
    older one held is forgotten. So nothing need be noted when a value is read, and nothing is sought to be forgotten.
    """

    __slots__ = ("_generation_max", "_older", "_younger")

    def __init__(self, kept_max: int) -> None:
        """`kept_max` is at least 2: one for each generation."""
        self._generation_max = kept_max // 2
        self._younger: dict[Key, Value] = {}
        self._older: dict[Key, Value] = {}

    def __len__(self) -> int:
        """How many values are held, one that is in both generations twice."""
        return len(self._younger) + len(self._older)

    def get(self, key: Key) -> Value | None:
        """What was put last under this key, if it is still known."""
        return self._younger.get(key) or self._older.get(key)

    def put(self, key: Key, value: Value) -> None:
        """Remember a value, which is never false, so that `get` can tell it from none."""
        if len(self._younger) >= self._generation_max:
            self.age()
        self._younger[key] = value

    def drop(self, key: Key) -> None:
        """Forget the value."""
        self._younger.pop(key, None)
        self._older.pop(key, None)

    def age(self) -> None:
        """Begin a generation; what is held for two of them is forgotten."""
        self._younger, self._older = {}, self._younger
