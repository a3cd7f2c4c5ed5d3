"""Mending what only two shards together can have wrong: the rows of login names that live elsewhere than their users.

The user's state is the truth, as it is for the sweeper. This is needed after a restore: the backups of two shards are
of two moments, and a change between the two is on one of them only.
"""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from denizen import limits
from denizen.bulk.shards import Shards
from denizen.bulk.verification.differences import Difference
from denizen.deployment.layout import Deployment
from denizen.errors import DenizenError
from denizen.service.login_names import LoginNames
from denizen.sharding.ids import UserId
from denizen.users.login_names import LoginName, LoginNameKind


def mendable(differences: Sequence[Difference]) -> list[Difference]:
    """Those that `repair` can do something about."""
    return [each for each in differences if each.field is not None]


async def repair(data: Path, differences: Sequence[Difference]) -> None:
    """Make the rows of these login names what their users' states say; what cannot be done is left as it is.

    Nothing else is touched, and a name that somebody else has by now stays with them. It serves online users as any
    gateway does. Raises `DenizenError` if no shard can be reached.
    """
    shards = Shards(Deployment.load(data), {})
    router = shards.router()
    await router.start()
    try:
        names = LoginNames(router, shards.kinds)
        gate = asyncio.Semaphore(limits.repairs_at_once)
        await asyncio.gather(*(_mend(names, each, gate) for each in mendable(differences)))
    finally:
        await router.stop()


async def _mend(names: LoginNames, wrong: Difference, gate: asyncio.Semaphore) -> None:
    if wrong.field is None or wrong.user_id is None or wrong.login_name is None:
        return
    name = LoginName(LoginNameKind.from_word(wrong.field), wrong.login_name)
    async with gate:
        try:
            await names.mend(name, UserId(wrong.user_id), has=wrong.kind == "name_missing")
        except DenizenError:
            return  # the next verification tells it again
