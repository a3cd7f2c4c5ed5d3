"""What the commands about read models share: the deployment, opened, and how one that does not answer is said."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from denizen.cli.options import data_directory
from denizen.deployment.layout import Deployment
from denizen.errors import BadDeployment

if TYPE_CHECKING:
    from denizen.projections.control import Control

T = TypeVar("T")


def with_control(data: Path | None, work: "Callable[[Control], Awaitable[T]]") -> T:
    """Do this with the read models of the deployment in the data directory; `BadDeployment` if they do not answer."""
    from denizen.deployment.replaying import control_of

    async def main(deployment: Deployment) -> T:
        async with control_of(deployment) as control:
            return await work(control)

    return with_deployment(data, main)


def with_deployment(data: Path | None, work: Callable[[Deployment], Awaitable[T]]) -> T:
    """The same with the deployment itself."""
    import asyncpg
    import uvloop

    async def main() -> T:
        return await work(Deployment.load(data_directory(data)))

    away = (
        OSError,
        asyncpg.InterfaceError,
        asyncpg.PostgresConnectionError,
        asyncpg.OperatorInterventionError,  # it starts, or stops
        asyncpg.InvalidCatalogNameError,
        asyncpg.InsufficientResourcesError,
    )
    try:
        return uvloop.run(main())
    except away as error:
        raise BadDeployment(
            f"the read database does not answer ({error or type(error).__name__}): "
            "start it with `denizen up`, see `denizen status`"
        ) from error
