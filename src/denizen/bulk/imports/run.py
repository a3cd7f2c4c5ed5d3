"""An import from beginning to end, as the parent process runs it.

One thread reads and cuts the input; each worker has a few windows at a time; what a worker reports is durable and goes
into the file of rejected rows and the journal, in this order. A stop (Ctrl-C) lets the windows that are begun finish.
"""

import asyncio
import os
import signal
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

from msgspec import Struct

from denizen import limits
from denizen.bulk.imports import journal as journals
from denizen.bulk.imports.columns import read_header, resolve
from denizen.bulk.imports.dry_run import duplicates
from denizen.bulk.imports.feed import Feed
from denizen.bulk.imports.journal import Journal
from denizen.bulk.imports.lines import csv_rows, ndjson_rows
from denizen.bulk.imports.messages import Enough, Plan, Problem, Report, decode_for_parent
from denizen.bulk.imports.rejects import Rejects
from denizen.bulk.imports.source import STANDARD_INPUT, Source, UnreadableError, head_hash, open_source
from denizen.bulk.imports.windows import Cut, cut
from denizen.deployment.layout import Deployment
from denizen.errors import BadDeployment, LoginNameTaken
from denizen.processes.frames import Hand, start_hands
from denizen.users.rejections import Rejected

_WORKER = "denizen.bulk.imports.worker"
COUNTS = ("rows", "imported", "before", "updated", "unchanged", "skipped", "rejected")


class Options(Struct, frozen=True):
    """What is asked for. `rejects`: None for the usual place; `resume`: the id of an import, None to find it."""

    input: str
    data: Path
    csv: bool = False
    delimiter: str = ","
    mapping: dict[str, str] = {}
    ignore: tuple[str, ...] = ()
    on_conflict: str = "skip"  # skip, update, fail
    dry_run: bool = False
    rejects: Path | None = None
    resume: str | None = None
    fresh: bool = False
    workers: int = 1


class Summary(Struct):
    """How it went. The counts are of the whole import, with what earlier runs of it did."""

    import_id: str
    rows: int = 0
    imported: int = 0
    updated: int = 0
    unchanged: int = 0
    skipped: int = 0
    rejected: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0  # of all our processes
    rows_per_second: int = 0
    resumed: bool = False
    complete: bool = False
    dry_run: bool = False
    rejects: str | None = None


class Progress(Protocol):
    """What watches an import."""

    def begin(self, size: int | None, summary: Summary) -> None:
        """It begins, or goes on with what an earlier run did."""
        ...

    def advance(self, position: int, summary: Summary) -> None:
        """A window is durable."""
        ...

    def note(self, text: str) -> None:
        """Something that people should know."""
        ...


class Import:
    """One run of an import. `run` it once; `begun`: `summary` says how far it came, even if `run` raised."""

    def __init__(self, options: Options, progress: Progress) -> None:
        self._options = options
        self._progress = progress
        self._deployment = Deployment.load(options.data)
        self._stopping = asyncio.Event()
        self._failure: LoginNameTaken | None = None
        self.begun = False
        self.summary = Summary("", dry_run=options.dry_run)
        self._done_here = 0
        self._began = time.monotonic()

    async def run(self) -> Summary:
        """Import. Raises `DenizenError`; what was done until then stays, is in `summary`, and can be gone on with."""
        with open_source(self._options.input) as source:
            columns, first_line = self._columns(source)  # before the journal: a wrong call leaves nothing behind
            cuts = cut(source, csv=self._options.csv, first_line=first_line)
            with self._scratch() as scratch, self._journal() as journal:
                plan = self._plan(journal, columns, scratch)
                self.summary.import_id = str(plan.import_id)
                rejects = Rejects(self._rejects_path(plan), journal.rejects_bytes if journal else 0, source.status)
                if journal is not None:
                    self._count(journal.totals())
                    self.summary.resumed = journal.resumed
                self._progress.begin(source.size, self.summary)
                if rejects.shorter:
                    self._progress.note(
                        f"{rejects.path} has lost rows that an earlier run rejected; they are not told again"
                    )
                inherited = [] if journal is None else [journal.handle]
                hands = await start_hands(self._options.workers, _WORKER, decode_for_parent, plan, inherited)
                self.begun = True
                try:
                    with self._signals(hands):
                        await self._drive(hands, cuts, journal, rejects)
                finally:
                    await asyncio.gather(*(hand.stop() for hand in hands))
                    self._finish(plan, journal, rejects, source)
        if self._failure is not None:
            raise self._failure
        return self.summary

    def stop(self) -> None:
        """Stop after the windows in hand."""
        self._stopping.set()

    async def _drive(self, hands: list[Hand], cuts: Iterator[Cut], journal: Journal | None, rejects: Rejects) -> None:
        done = frozenset() if journal is None else frozenset(journal.done)
        feed = Feed(cuts, done, len(hands), self._stopping)
        left: list[Cut] = []

        async def keep_busy(hand: Hand) -> None:
            while (piece := await feed.next()) is not None:
                report = await hand.ask(piece.window)
                if isinstance(report, Report):
                    self._take(report, piece, journal, rejects)
                else:
                    left.append(piece)

        async def stop() -> None:
            await self._stopping.wait()
            for hand in hands:
                hand.tell(Enough())

        stopping = asyncio.ensure_future(stop())
        tasks = [asyncio.ensure_future(keep_busy(hand)) for _ in range(limits.import_windows_ahead) for hand in hands]
        try:
            await asyncio.gather(*tasks)
        except BaseException:
            stopping.cancel()
            self._stopping.set()
            await asyncio.gather(*tasks, return_exceptions=True)  # what others have in hand is worth keeping
            raise
        finally:
            stopping.cancel()
        self.summary.complete = feed.exhausted and not left and self._failure is None

    def _take(self, report: Report, piece: Cut, journal: Journal | None, rejects: Rejects) -> None:
        conflict = next((problem for problem in report.problems if problem.conflict), None)
        if self._options.on_conflict == "fail" and conflict is not None:
            if self._failure is None:
                detail = f"line {conflict.line}: {conflict.detail}; go on with --on-conflict skip or update"
                self._failure = LoginNameTaken(detail, line=conflict.line)
            self._stopping.set()
            imported = report.imported + report.before  # the window's other rows are told when it is done whole
            self._count({"rows": imported, "imported": imported})
            return
        report.rows += len(piece.problems)
        report.rejected += len(piece.problems)
        rejects.add([*piece.problems, *report.problems])
        if journal is not None:
            journal.add(report, rejects.bytes)
        self._done_here += report.rows
        self._count({name: getattr(report, name) for name in COUNTS})
        self._progress.advance(piece.position, self.summary)

    def _count(self, counts: dict[str, int]) -> None:
        summary = self.summary
        for name, count in counts.items():
            name = "imported" if name == "before" else name  # noqa: PLW2901  one import, whichever run did it
            setattr(summary, name, getattr(summary, name) + count)
        summary.seconds = round(time.monotonic() - self._began, 3)
        summary.rows_per_second = round(self._done_here / summary.seconds) if summary.seconds else 0

    def _finish(self, plan: Plan, journal: Journal | None, rejects: Rejects, source: Source) -> None:
        summary = self.summary
        if plan.dry_run and summary.complete:
            self._tell_duplicates(plan, rejects, source)
        self._count({})
        rejects.close()
        summary.cpu_seconds = _cpu_seconds()
        summary.rejects = str(rejects.path) if rejects.exists else None
        if journal is not None and summary.complete:
            journal.finish(summary)

    def _tell_duplicates(self, plan: Plan, rejects: Rejects, source: Source) -> None:
        """Rows whose login names appear earlier in the file count as the conflicts that they would be."""
        found = dict(duplicates(Path(plan.scratch)))
        left = dict(found)
        if found and source.size is not None:  # a file: what its rows are is read once more
            with suppress(UnreadableError):
                for rows in self._rows_again(plan):
                    rejects.add([_double(line, left.pop(line), raw) for line, raw in rows if line in left])
        rejects.add([_double(line, earlier, b"") for line, earlier in left.items()])
        self.summary.imported -= len(found)
        if self._options.on_conflict == "update":
            self.summary.updated += len(found)
        else:
            self.summary.skipped += len(found)

    def _rows_again(self, plan: Plan) -> Iterator[Iterable[tuple[int, bytes]]]:
        """Each window's rows, with their lines."""
        with open_source(self._options.input) as source:
            _, first_line = self._columns(source)
            for window in (piece.window for piece in cut(source, csv=plan.csv, first_line=first_line)):
                if plan.csv:
                    records = csv_rows(window.first_line, window.data, plan.columns, plan.delimiter)
                    yield ((line, raw) for line, _, raw in records)
                else:
                    yield ndjson_rows(window.first_line, window.data)

    def _columns(self, source: Source) -> tuple[list[str | None], int]:
        options = self._options
        if not options.csv:
            if source.is_json_array:
                raise UnreadableError(
                    f"{source.name} is one JSON array; an import takes an object a line: `jq -c '.[]' FILE` makes them"
                )
            return [], 1
        header = read_header(source.readline(limits.import_line_bytes_max), options.delimiter)
        return resolve(header, options.mapping, options.ignore), 2

    def _plan(self, journal: Journal | None, columns: list[str | None], scratch: str) -> Plan:
        options = self._options
        header = journal.header if journal is not None else None
        return Plan(
            data=str(self._deployment.directory),
            import_id=header.id if header else uuid4(),
            key=header.key if header else b"dry run",
            started_ms=header.started_ms if header else time.time_ns() // 1_000_000,
            csv=options.csv,
            columns=columns,
            delimiter=options.delimiter,
            on_conflict=options.on_conflict,
            dry_run=options.dry_run,
            resumed=journal is not None and journal.resumed,
            round_lines=min(limits.import_window_lines_max, limits.import_rounds_lines_max // options.workers),
            scratch=scratch,
        )

    @contextmanager
    def _journal(self) -> Iterator[Journal | None]:
        """The journal of the import to resume, or a new one; none for a dry run."""
        options = self._options
        if options.dry_run:
            yield None
            return
        directory = self._deployment.directory / "imports"
        about = {"csv": options.csv, "delimiter": options.delimiter, "window_lines": limits.import_window_lines_max}
        standard = options.input == STANDARD_INPUT
        path, head = (None, None) if standard else (str(Path(options.input).resolve()), head_hash(options.input))
        journal = None
        if options.resume is not None:
            journal = journals.find_by_id(directory, options.resume)
        elif path is not None and head is not None and not options.fresh:
            journal = journals.find(directory, path, head)
        if journal is not None and journal.header.options != about:
            if journal.done:
                journal.close()
                raise BadDeployment(
                    f"the import {journal.header.id} was begun with another format; resume it with the same, or use"
                    " --fresh"
                )
            journal.discard()
            journal = None
        if journal is None:
            journal = journals.create(directory, path, head, about)
        try:
            yield journal
        finally:
            if self.begun or journal.resumed:
                journal.close()
            else:
                journal.discard()

    @contextmanager
    def _scratch(self) -> Iterator[str]:
        if not self._options.dry_run:
            yield ""
            return
        with tempfile.TemporaryDirectory(prefix="denizen-dry-run-") as directory:
            yield directory

    def _rejects_path(self, plan: Plan) -> Path:
        options = self._options
        if options.rejects is not None:
            return options.rejects
        if options.input == STANDARD_INPUT:
            return Path(f"import-{plan.import_id}.rejected.ndjson")
        return Path(f"{options.input}.rejected.ndjson")

    @contextmanager
    def _signals(self, hands: list[Hand]) -> Iterator[None]:
        """The first Ctrl-C stops after the windows in hand, the second at once."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        loop = asyncio.get_running_loop()

        def asked(*_: Any) -> None:
            if self._stopping.is_set():
                for hand in hands:
                    hand.kill()
                return
            self._progress.note("stopping after the rows in hand; once more to stop at once")
            self._stopping.set()

        numbers = (signal.SIGINT, signal.SIGTERM)
        for number in numbers:
            loop.add_signal_handler(number, asked)
        try:
            yield
        finally:
            for number in numbers:
                with suppress(ValueError, RuntimeError):
                    loop.remove_signal_handler(number)


def _double(line: int, earlier: int, raw: bytes) -> Problem:
    rejected = Rejected("login_name_taken", None, f"line {earlier} has the same login name")
    return Problem.of(line, rejected, raw, conflict=True)


def _cpu_seconds() -> float:
    """Processor time of this process and of the workers, which have ended."""
    times = os.times()
    return round(times.user + times.system + times.children_user + times.children_system, 3)
