"""Entity tags (RFC 9110, 8.8.3): a user's version in quotes, `"7"`, always strong.

`If-Match` turns into the version that a command expects; `If-None-Match` into "the client has it already".
"""

import re
from typing import Final

from denizen.errors import VersionConflict
from denizen.http.refusals import InvalidHeader

_TAG: Final = re.compile(r'\s*(W/)?"([\x21\x23-\x7e\x80-\xff]*)"\s*(?:,|$)')
_VERSION: Final = re.compile(r"[1-9][0-9]{0,17}")


def etag(version: int) -> str:
    """The entity tag of this version."""
    return f'"{version}"'


def expected_version(if_match: str | None) -> int | None:
    """The version that `If-Match` asks for; None if any will do (no header, or `*`).

    A tag that is no version matches nothing, so it is a `VersionConflict`; weak tags never match strongly (RFC 9110,
    13.1.1) and several tags cannot be one expected version: both are an `InvalidHeader`.
    """
    if if_match is None or if_match.strip() == "*":
        return None
    tags = _parse("If-Match", if_match)
    if any(weak for weak, _ in tags):
        raise InvalidHeader("If-Match", "`If-Match` takes strong entity tags only, not `W/…`")
    if len(tags) != 1:
        raise InvalidHeader("If-Match", '`If-Match` takes one entity tag such as `"7"`, or `*`')
    if not _VERSION.fullmatch(tags[0][1]):
        raise VersionConflict("`If-Match` is no version that this user can have")
    return int(tags[0][1])


def is_known(if_none_match: str | None, version: int) -> bool:
    """Whether `If-None-Match` names this version (weak comparison, RFC 9110, 13.1.2)."""
    if if_none_match is None:
        return False
    return if_none_match.strip() == "*" or any(tag == str(version) for _, tag in _parse("If-None-Match", if_none_match))


def _parse(header: str, text: str) -> list[tuple[bool, str]]:
    tags, at = [], 0
    while at < len(text):
        match = _TAG.match(text, at)
        if match is None:
            raise InvalidHeader(header, f'`{header}` must be entity tags in quotes such as `"7"`, or `*`')
        tags.append((match[1] is not None, match[2]))
        at = match.end()
    if not tags:
        raise InvalidHeader(header, f"`{header}` is empty")
    return tags
