"""When a comparison of a transaction holds.

A key that does not exist has version, revisions and lease 0, and no value: a comparison of its value never holds.
A comparison of a range holds when it holds for every key in it.
"""

import operator
from collections.abc import Callable, Sequence
from typing import Any

from denizen.raft.kv.model import Compare, KeyValue, Relation, Target

_RELATION: dict[Relation, Callable[[Any, Any], bool]] = {
    Relation.EQUAL: operator.eq,
    Relation.GREATER: operator.gt,
    Relation.LESS: operator.lt,
    Relation.NOT_EQUAL: operator.ne,
}
_PROPERTY: dict[Target, Callable[[KeyValue], bytes | int]] = {
    Target.VERSION: operator.attrgetter("version"),
    Target.CREATE: operator.attrgetter("create_revision"),
    Target.MOD: operator.attrgetter("mod_revision"),
    Target.VALUE: operator.attrgetter("value"),
    Target.LEASE: operator.attrgetter("lease"),
}
_ABSENT = KeyValue(b"", 0, 0, 0)


def holds(compare: Compare, found: Sequence[KeyValue]) -> bool:
    """Tell whether a comparison holds for the keys of its range."""
    if not found:
        if compare.target is Target.VALUE:
            return False
        found = (_ABSENT,)
    of, relation = _PROPERTY[compare.target], _RELATION[compare.relation]
    return all(relation(of(kv), compare.operand) for kv in found)
