"""The `denizen` command: one application, its sub-commands loaded only when they are called.

Every command that prints takes `--json`. Exit codes: 0 done, 1 the answer is no (differences found, rows rejected, a
request refused) or it cannot be done here, 2 it was called wrongly (`CalledWrongly`), 130 interrupted.
"""

import errno
import os
import sys
from typing import Final

from cyclopts import App

from denizen import __version__
from denizen.cli.errors import CalledWrongly
from denizen.errors import DenizenError

app = App(
    name="denizen",
    help="The place where an application's users live: sharded, event-sourced, on plain PostgreSQL.",
    version=__version__,
)

app.command("denizen.cli.up:app", name="up", help="Start a deployment on this machine.")
app.command("denizen.cli.status:app", name="status", help="What runs, and how it is.")
app.command("denizen.cli.down:app", name="down", help="Stop the deployment that runs on this machine.")
app.command("denizen.cli.logs:app", name="logs", help="Show the logs of a deployment's processes.")
app.command(
    "denizen.cli.gateway:app", name="gateway", help="Serve the HTTP API of a deployment, as a process of its own."
)
app.command("denizen.cli.users:app", name="users", help="Create, find and change users through the API.")
app.command("denizen.cli.reading:changes_app", name="changes", help="Follow every change of every user.")
app.command("denizen.cli.keys:app", name="keys", help="Create, list and revoke API keys.")
app.command("denizen.cli.erasures:app", name="erasures", help="Users that were erased; certificates; scrubbing.")
app.command(
    "denizen.cli.keyring:app", name="keyring", help="The keys under which the users' keys lie: list, rotate, drop."
)
app.command("denizen.cli.import_:app", name="import", help="Import people from a file, while the service serves.")
app.command("denizen.cli.export:app", name="export", help="Write all users to a file.")
app.command("denizen.cli.backup:app", name="backup", help="Copy everything to a new directory, while it serves.")
app.command("denizen.cli.verify:app", name="verify", help="Check that events, state and login names agree.")
app.command("denizen.cli.shards:app", name="shards", help="The deployment's shards: list, add, drain, weigh.")
app.command("denizen.cli.rebalance:app", name="rebalance", help="Make the shards even, while the service serves.")
app.command("denizen.cli.buckets:app", name="buckets", help="Who owns which bucket; move some by hand.")
app.command("denizen.cli.bench:app", name="bench", help="Measure it on this machine.")
app.command("denizen.cli.demo:app", name="demo", help="A narrated tour, on a deployment of its own.")
app.command("denizen.cli.raft:app", name="raft", help="A replicated key-value service on Denizen's own Raft.")
app.command(
    "denizen.cli.projector:app", name="projector", help="Keep a deployment's read models, as a process of its own."
)
app.command(
    "denizen.cli.projections:app", name="projections", help="How the read models are; pause, resume, retry, skip."
)
app.command(
    "denizen.cli.replay:app", name="replay", help="Make a read model anew from all events, beside the live one."
)
app.command("denizen.cli.control:app", name="control", help="Run one voter of the control plane.")
app.command("denizen.cli.relay:app", name="relay", help="Publish a deployment's events, as a process of its own.")


_FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def main() -> None:
    """Run the command line; an expected error is one clear message, never a traceback."""
    try:
        try:
            app()
        except SystemExit:
            sys.stdout.flush()  # here, where what goes wrong with it can still be told
            raise
    except DenizenError as error:
        print(f"denizen: {_said(error)}", file=sys.stderr)
        sys.exit(2 if isinstance(error, CalledWrongly) else 1)
    except BrokenPipeError:  # whoever read our output, such as `head`, has enough
        _write_no_more()
        sys.exit(141)
    except OSError as error:
        if error.errno not in _FULL:
            raise
        _write_no_more()
        print(f"denizen: cannot write: {error.strerror}; what was written is not whole", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


def _said(error: DenizenError) -> str:
    """The error in words, one line for each field at fault."""
    details = [fault["detail"] for fault in error.facts.get("errors") or ()]
    return "\n         ".join(details) if len(details) > 1 else str(error)


def _write_no_more() -> None:
    """Let what is still buffered for standard output go nowhere: Python would try again at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
