"""Where the API is and with which key: options, then environment, then the deployment on this machine."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar

from cyclopts import Parameter

from denizen.cli.errors import CalledWrongly
from denizen.cli.options import data_directory
from denizen.client import Client
from denizen.deployment.layout import Deployment
from denizen.errors import BadConfiguration, BadDeployment

T = TypeVar("T")

URL_VARIABLE = "DENIZEN_URL"
KEY_VARIABLE = "DENIZEN_KEY"


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Connection:
    """Which deployment to talk to."""

    server: Annotated[
        str | None, Parameter(help="Address of the API. Default: $DENIZEN_URL, else the deployment on this machine.")
    ] = None
    key: Annotated[str | None, Parameter(help="API key. Default: $DENIZEN_KEY.")] = None
    data: Annotated[Path | None, Parameter(help="Data directory of the deployment on this machine.")] = None
    json: Annotated[bool, Parameter(negative="", help="Print JSON instead of text.")] = False

    @property
    def url(self) -> str:
        """The address. `BadConfiguration` says what to do if there is none."""
        given = self.server or (None if self.data else os.environ.get(URL_VARIABLE))
        if given:
            return given.strip()
        try:
            found = Deployment.load(data_directory(self.data)).gateway_url
        except BadDeployment as error:
            raise BadConfiguration(f"no server: give --server or set {URL_VARIABLE} ({error})") from error
        if found is None:
            raise BadConfiguration(
                f"no gateway runs here: start one with `denizen up`, give --server or {URL_VARIABLE}"
            )
        return found

    @property
    def given_key(self) -> str | None:
        """The key of the option or the environment, without the line end that a file may have put behind it."""
        return (self.key or os.environ.get(KEY_VARIABLE, "")).strip() or None

    def client(self) -> Client:
        """A client of that deployment. `CalledWrongly` without a key, or if the key or the address cannot be one."""
        key = self.given_key
        if key is None:
            raise CalledWrongly(
                f"no API key: give --key or set {KEY_VARIABLE}; "
                "`denizen keys create NAME --scope admin` makes one on the machine of the deployment"
            )
        url = self.url
        try:
            return Client(url, key)
        except BadConfiguration as error:
            raise CalledWrongly(error.detail) from None

    def run(self, work: Callable[[Client], Awaitable[T]]) -> T:
        """Do `work` with a client, and close it."""

        async def do() -> T:
            async with self.client() as client:
                return await work(client)

        return asyncio.run(do())


HERE = Connection()
