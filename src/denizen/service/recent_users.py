"""Users as this gateway wrote them last, for a few seconds, so that the next change of one need not read it first.

They serve to decide commands, never to answer reads, and may be out of date: another gateway may have written since. So
whatever is decided on one is appended with its version, which the shard compares within the transaction; and whatever
is refused is decided anew on what the shard says (see users.py).

They are personal data in memory, so they are bounded in number and in time: each is gone at most `kept_s` after it
was written, whether anybody comes or not, and at once when its user is deleted or erased here.

Who need not read is quicker than who must, and could win every race, against an erasure for example. So they do not
serve for a user who changes in quick succession.
"""

import asyncio
import time
from uuid import UUID

from denizen import limits
from denizen.events.records import StoredUser


class RecentUsers:
    """Two generations: the younger takes what is written; the older is dropped when the younger takes its place."""

    def __init__(self, users_max: int = limits.recent_users_max, kept_s: float = limits.recent_users_s) -> None:
        self._generation_max = users_max // 2
        self._generation_s = kept_s / 2
        self._young: dict[UUID, tuple[StoredUser, float]] = {}  # and when it was written
        self._old: dict[UUID, tuple[StoredUser, float]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def get(self, user_id: UUID) -> StoredUser | None:
        """The user as it was written here last, if that was a moment ago, but not just now."""
        found = self._young.get(user_id) or self._old.get(user_id)
        if found is None or time.monotonic() - found[1] < limits.recent_users_s_min:
            return None
        return found[0]

    def put(self, stored: StoredUser) -> None:
        """Remember what was just written; nothing of a user who is gone."""
        if stored.user.status.gone:
            self.drop(stored.id)
            return
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._generation_s, self._age)
        elif len(self._young) >= self._generation_max:
            self._young, self._old = {}, self._young
        self._young[stored.id] = stored, time.monotonic()

    def drop(self, user_id: UUID) -> None:
        """Forget a user."""
        self._young.pop(user_id, None)
        self._old.pop(user_id, None)

    def _age(self) -> None:
        self._young, self._old = {}, self._young
        self._timer = asyncio.get_running_loop().call_later(self._generation_s, self._age) if self._old else None
