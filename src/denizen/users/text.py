"""Plain text from outside: which characters are refused, and the one form in which texts are kept (trimmed, NFC).

Refused everywhere: NUL and all control characters (they break logs, terminals and PostgreSQL's text), lone surrogates
(no UTF-8 has them), line and paragraph separators, and directional embeddings, overrides and isolates, which change how
the text around them is shown (Unicode TR 36, 3.2). Joiners and marks are kept: names in many scripts need them.
"""

import re
from typing import Final
from unicodedata import is_normalized, normalize

from .rejections import Rejected

_REFUSED: Final = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def check_characters(field: str, text: str) -> None:
    """Raise `Rejected` if the text has a character that is refused everywhere."""
    if text.isprintable():  # the quick and common case: no control, no surrogate, no separator but the space
        return
    found = _REFUSED.search(text)
    if found:
        raise Rejected("text_invalid", field, f"`{field}` must not contain the character U+{ord(found[0]):04X}")


def clean(field: str, text: str, chars_max: int) -> str:
    """The text trimmed and in NFC, with no refused character and at most `chars_max` characters."""
    if not text.isprintable():
        check_characters(field, text)
    text = text.strip()
    if not text.isascii() and not is_normalized("NFC", text):
        text = normalize("NFC", text)
    if len(text) > chars_max:
        raise Rejected("too_long", field, f"`{field}` must have at most {chars_max} characters")
    return text
