"""The user service: commands and queries on users, over all shards. What the HTTP API and the commands call."""

from denizen.events.records import RecordedEvent, StoredUser
from denizen.service.context import Context, Written
from denizen.service.users import UserService

__all__ = ["Context", "RecordedEvent", "StoredUser", "UserService", "Written"]
