"""What `denizen up` shows: the step at work, a line for each step done, and the banner when everything runs."""

import json
import os
import sys
import time
from pathlib import Path
from shlex import quote
from typing import Any

import msgspec
from rich.console import Console
from rich.markup import escape

from denizen.deployment.layout import usual_data_directory
from denizen.deployment.supervisor import Ready


class ConsoleNarrator:
    """For people: lines on standard output, the step at work as a spinner where that is a terminal."""

    def __init__(self, *, detached: bool = False) -> None:
        self._console = Console(highlight=False)
        self._status: Any = None
        self._began = time.monotonic()
        self._detached = detached

    def step(self, text: str) -> None:
        """Show what is being done."""
        self._began = time.monotonic()
        if not self._console.is_terminal:
            return
        if self._status is None:
            self._status = self._console.status("")
            self._status.start()
        self._status.update(f"{escape(text)} …")

    def done(self, text: str) -> None:
        """Show what is done, and how long it took."""
        self._end_status()
        seconds = time.monotonic() - self._began
        self._console.print(f"[green]✓[/] {escape(text)} [dim]{seconds:.1f} s[/]", soft_wrap=True)

    def note(self, text: str) -> None:
        """Show something that happened, with the time of day."""
        self._end_status()
        self._console.print(f"[yellow]![/] [dim]{time.strftime('%H:%M:%S')}[/] {escape(text)}", soft_wrap=True)

    def ready(self, ready: Ready) -> None:
        """Show the banner."""
        self._end_status()
        self._console.print(banner(ready, detached=self._detached), soft_wrap=True, markup=True)

    def _end_status(self) -> None:
        if self._status is not None:
            self._status.stop()
            self._status = None


class JsonNarrator:
    """For programs: one JSON object a line on standard output, each with its `kind`."""

    def step(self, text: str) -> None:
        """Write what is being done."""
        self._write("step", {"text": text})

    def done(self, text: str) -> None:
        """Write what is done."""
        self._write("done", {"text": text})

    def note(self, text: str) -> None:
        """Write something that happened."""
        self._write("note", {"text": text})

    def ready(self, ready: Ready) -> None:
        """Write everything that the banner shows."""
        self._write("ready", msgspec.to_builtins(ready))

    def _write(self, kind: str, facts: dict[str, Any]) -> None:
        print(json.dumps({"kind": kind, **facts}), flush=True)


class LoggedNarrator:
    """Passes on to another narrator, and keeps all but the admin key in `logs/denizen.log`."""

    def __init__(self, inner: ConsoleNarrator | JsonNarrator, log: Path) -> None:
        self._inner = inner
        self._log = log

    def step(self, text: str) -> None:
        """Pass on; steps are not kept."""
        self._pass("step", text)

    def done(self, text: str) -> None:
        """Pass on and keep."""
        self._keep(text)
        self._pass("done", text)

    def note(self, text: str) -> None:
        """Pass on and keep."""
        self._keep(text)
        self._pass("note", text)

    def ready(self, ready: Ready) -> None:
        """Pass on and keep the address."""
        self._keep(f"ready on {ready.url or 'its shards only'} after {ready.seconds} s")
        self._pass("ready", ready)

    def _pass(self, kind: str, content: str | Ready) -> None:
        try:
            getattr(self._inner, kind)(content)
        except OSError:
            # Whoever was reading has gone (a closed terminal, the command that detached us): the deployment goes on.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    def _keep(self, text: str) -> None:
        with self._log.open("a", encoding="utf-8") as file:
            file.write(f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {text}\n")


def banner(ready: Ready, *, detached: bool) -> str:
    """Return what people need now: the address, the key, a first command, and how to stop."""
    count = f"{len(ready.shards)} shards" if len(ready.shards) > 1 else "1 shard"
    where = f" on [bold]{ready.url}[/]" if ready.url else ", without a gateway"
    lines = ["", f"[bold green]Denizen runs[/] with {count}{where}  [dim]data {escape(ready.data)}[/]"]
    if ready.admin_key:
        lines += ["", f"Admin key, shown only now: [bold]{escape(ready.admin_key)}[/]"]
    if ready.url:
        lines += ["", "Try it:"]
        if Path(ready.data) != usual_data_directory():
            lines += [f"  export DENIZEN_DATA={escape(quote(ready.data))}"]
        lines += [f"  export DENIZEN_URL={ready.url} DENIZEN_KEY={escape(ready.admin_key or '<your key>')}"]
        lines += [escape(line) for line in FIRST_COMMANDS]
    lines += ["", "Stop it: denizen down" if detached else "Stop it: Ctrl-C"]
    return "\n".join(lines)


FIRST_COMMANDS = (
    '  curl -s $DENIZEN_URL/v1/users -H "Authorization: Bearer $DENIZEN_KEY" '
    """-H 'Content-Type: application/json' -d '{"email": "ada@example.org"}'""",
    "  denizen users find email ada@example.org",
)
