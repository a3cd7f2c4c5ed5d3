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
from time import monotonic
from uuid import UUID

from denizen import limits
from denizen.events.records import StoredUser
from denizen.recent import Recent
from denizen.users.state import Status


class RecentUsers:
    """Users as they were written here last; a generation of them lasts half as long as one is kept at most."""

    def __init__(self, users_max: int = limits.recent_users_max, kept_s: float = limits.recent_users_s) -> None:
        self._generation_s = kept_s / 2
        self._written: Recent[UUID, tuple[StoredUser, float]] = Recent(users_max)  # and from when on it serves
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._written)

    def get(self, user_id: UUID) -> StoredUser | None:
        """The user as it was written here last, if that was a moment ago, but not just now."""
        found = self._written.get(user_id)
        return found[0] if found and monotonic() >= found[1] else None

    def put(self, stored: StoredUser) -> None:
        """Remember what was just written; nothing of a user who is gone."""
        if stored.user.status >= Status.DELETED:
            self.drop(stored.id)
            return
        self._written.put(stored.id, (stored, monotonic() + limits.recent_users_s_min))
        if self._timer is None:
            self._age_later()

    def drop(self, user_id: UUID) -> None:
        """Forget a user."""
        self._written.drop(user_id)

    def _age_later(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._generation_s, self._age)

    def _age(self) -> None:
        self._timer = None
        self._written.age()
        if self._written:
            self._age_later()
