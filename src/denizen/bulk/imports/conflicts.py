"""--on-conflict update: a row whose login name is taken changes that user, on the service's normal path."""

import asyncio
from collections.abc import Sequence
from uuid import UUID

from denizen import limits
from denizen.bulk.imports.lines import EXPORTED, Raw, plain
from denizen.bulk.imports.settling import Settler
from denizen.errors import DenizenError
from denizen.service.context import Context
from denizen.service.users import UserService
from denizen.users.passwords import check_hash
from denizen.users.rejections import Rejected
from denizen.users.validate import patch_from


class Conflicts:
    """Updates users, many at once."""

    def __init__(self, settler: Settler) -> None:
        self._settler = settler

    async def update(self, items: Sequence[tuple[UUID, Raw]], import_id: UUID) -> list[bool | Rejected]:
        """For each user and row: whether something changed, or why it could not."""
        if not items:
            return []
        service = await self._settler.users()
        context = Context(actor="import", correlation_id=import_id)
        chains: dict[UUID, list[int]] = {}  # rows of one user go one after the other, in the order of lines
        for index, (user_id, _) in enumerate(items):
            chains.setdefault(user_id, []).append(index)
        outcomes: list[bool | Rejected] = [False] * len(items)
        gate = asyncio.Semaphore(limits.import_updates_at_once)

        async def chain(user_id: UUID, indexes: list[int]) -> None:
            async with gate:
                for index in indexes:
                    outcomes[index] = await _update(service, user_id, items[index][1], context)

        await asyncio.gather(*(chain(user_id, indexes) for user_id, indexes in chains.items()))
        return outcomes


async def _update(service: UserService, user_id: UUID, raw: Raw, context: Context) -> bool | Rejected:
    fields = {name: value for name, value in plain(raw).items() if name not in EXPORTED}
    password_hash = fields.pop("password_hash", None)
    try:
        before = await service.get(user_id)
        written = await service.change(user_id, patch_from(fields), context=context)
        if password_hash is not None:
            check_hash(password_hash)
            written = await service.set_password(user_id, password_hash, context=context)
        return written.user.version != before.version
    except Rejected as rejected:
        return rejected
    except DenizenError as error:
        return Rejected(error.code, None, error.detail)
