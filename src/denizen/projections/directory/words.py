"""The words by which a name is found, in any script.

Case, width and diacritics do not count: Müller is found by "muller", Ｊｏ by "jo". Marks that make a letter another one
(as in Devanagari or Thai) are kept. Chinese, Japanese and Korean names have no spaces inside, so each of their words is
found from any of its characters on.
"""

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Final
from unicodedata import normalize

WORDS_MAX: Final = 24  # of one user
WORD_CHARS_MAX: Final = 64

_WORD: Final = re.compile(
    r"[^\W_]+(?:[\u0300-\u036f\u0900-\u0dff\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff]|[^\W_])*"
)
_DIACRITICS: Final = re.compile("[\u0300-\u036f]")
_UNSPACED: Final = re.compile("[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\U00020000-\U0002fa1f]")
_SAME: Final = str.maketrans(
    {"ł": "l", "ø": "o", "đ": "d", "ı": "i", "æ": "ae", "œ": "oe", "þ": "th", "ð": "d", "’": "'"}
)


@lru_cache(maxsize=65_536)
def words_of(text: str) -> tuple[str, ...]:
    """The words of a text in their searched form, in order, without repetitions."""
    return tuple(dict.fromkeys(_split(text)))


def all_words(texts: tuple[str | None, ...]) -> tuple[str, ...]:
    """The words of several texts, at most `WORDS_MAX`."""
    words: list[str] = []
    for text in texts:
        if text:
            words += words_of(text)
    return tuple(dict.fromkeys(words))[:WORDS_MAX]


def _split(text: str) -> Iterator[str]:
    if text.isascii():
        folded = text.lower().replace("'", "")
    else:
        folded = _DIACRITICS.sub("", normalize("NFKD", text).casefold().translate(_SAME))
        folded = normalize("NFC", normalize("NFKC", folded).casefold()).replace("'", "")
    words = [word[:WORD_CHARS_MAX] for word in _WORD.findall(folded)]
    yield from words
    for word in words:
        if not word.isascii() and _UNSPACED.match(word):
            for start in range(1, min(len(word), WORDS_MAX)):
                yield word[start:]
