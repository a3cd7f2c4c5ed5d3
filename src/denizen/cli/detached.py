"""`denizen up --detach`: the same command in the background, followed until everything runs.

The child writes its narration as JSON lines to a pipe that only we read, so the admin key is shown here and stored
nowhere. When it is ready we end, and it goes on in a session of its own; whatever it has to say later is in
`logs/denizen.log`.
"""

import json
import subprocess
import sys
from typing import Any

import msgspec

from denizen.cli.narration import ConsoleNarrator, JsonNarrator
from denizen.deployment.layout import Deployment
from denizen.deployment.supervisor import Ready


def start_detached(deployment: Deployment, arguments: list[str], *, as_json: bool) -> int:
    """Start `denizen up` in the background and tell what it does until it is ready; return our exit code."""
    narrator = JsonNarrator() if as_json else ConsoleNarrator(detached=True)
    command = [sys.executable, "-P", "-m", "denizen", "up", *arguments, "--json"]
    # Errors before the log exists must not get lost: they go to the file that `denizen logs` shows.
    with (deployment.logs / "denizen.log").open("ab") as log:
        where = log.tell()
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, cwd="/", start_new_session=True
        )
    try:
        if _follow(child, narrator):
            return 0
    except KeyboardInterrupt:
        child.terminate()
    code = child.wait()
    with (deployment.logs / "denizen.log").open("rb") as log:
        log.seek(where)
        said = log.read().decode(errors="replace")
    errors = said[max(said.find("denizen: "), 0) :] if code > 0 else ""  # else it was asked to stop: no error
    print(errors.strip() or "denizen: stopped before it was ready", file=sys.stderr)
    return 1


def _follow(child: "subprocess.Popen[bytes]", narrator: ConsoleNarrator | JsonNarrator) -> bool:
    """Pass the child's narration on; return whether it became ready."""
    assert child.stdout is not None  # noqa: S101  we asked for a pipe
    for line in child.stdout:
        event: dict[str, Any] = json.loads(line)
        kind = event.pop("kind")
        if kind == "ready":
            narrator.ready(msgspec.convert(event, Ready))
            return True
        getattr(narrator, kind)(event["text"])
    return False
