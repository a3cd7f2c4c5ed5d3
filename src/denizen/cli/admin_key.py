"""`denizen admin-key`: a way back in when the admin key is lost, for whoever may read the data directory."""

import asyncio
import json as json_module

from cyclopts import App

from denizen.cli.options import DataOption, JsonOption, data_directory
from denizen.deployment.admin_key import create_admin_key
from denizen.deployment.layout import Deployment
from denizen.deployment.lock import holder
from denizen.errors import BadDeployment

app = App(
    name="admin-key",
    help="Make another admin key, from the data directory.",
    help_epilogue="""
For the one who runs the deployment, when the key of the first start is lost.
The deployment must run. Revoke the lost key afterwards: denizen keys --help.

Examples:

    denizen admin-key
    denizen admin-key --data ./people
""",
    help_format="plaintext",
)


@app.default
def admin_key(*, data: DataOption = None, json: JsonOption = False) -> None:
    """Make a key with the scope `admin` and print it, once."""
    deployment = Deployment.load(data_directory(data))
    if not deployment.record.born or holder(deployment.lock_path) is None:
        raise BadDeployment(f"the deployment in {deployment.directory} does not run: start it with `denizen up`")
    secret = asyncio.run(create_admin_key(deployment))
    print(json_module.dumps({"admin_key": secret}) if json else secret)
