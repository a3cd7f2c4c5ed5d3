"""How many feeds of changes are open: a bound for each API key, and one for the whole gateway."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from denizen.http.refusals import TooManyFeeds
from denizen.limits import changes_feeds_max, changes_feeds_of_key_max


class Feeds:
    """Counts those that are open."""

    def __init__(self) -> None:
        self.open: Counter[str] = Counter()

    @contextmanager
    def one_more(self, key_id: str) -> Iterator[None]:
        """Count one more for the length of the block, or raise `TooManyFeeds`."""
        if self.open[key_id] >= changes_feeds_of_key_max or self.open.total() >= changes_feeds_max:
            raise TooManyFeeds(f"a key may have {changes_feeds_of_key_max} feeds open at once", retry_after_s=1)
        self.open[key_id] += 1
        try:
            yield
        finally:
            self.open[key_id] -= 1
            if not self.open[key_id]:
                del self.open[key_id]
