"""A worker process of an import: takes windows, makes people of their lines, writes them in rounds, reports.

It ends when its parent does, however that ends: the kernel kills it, and its open transactions are undone. It holds
the journal's lock as well, so that nobody can resume the import while any process of it still lives.
"""

import asyncio
import gc
import sys
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Final

import asyncpg

from denizen import limits
from denizen.bulk.imports import lines
from denizen.bulk.imports.conflicts import Conflicts
from denizen.bulk.imports.dry_run import DryRun
from denizen.bulk.imports.fates import IMPORTED, Imported, Taken
from denizen.bulk.imports.inbox import Inbox
from denizen.bulk.imports.lines import Row
from denizen.bulk.imports.messages import Left, Plan, Problem, Ready, Report, Window, decode_for_worker
from denizen.bulk.imports.people import Maker
from denizen.bulk.imports.rounds import Round, Rounds
from denizen.bulk.imports.settling import Settler
from denizen.bulk.shards import Shards
from denizen.deployment.layout import Deployment
from denizen.errors import DenizenError
from denizen.events.lanes import BROKEN
from denizen.processes.frames import Trouble, first_cause, pipes, read_frame
from denizen.processes.parenthood import run_worker
from denizen.users.login_names import LoginNameKind
from denizen.users.rejections import Rejected

SETTINGS: Final = {
    "application_name": "denizen import",
    "idle_in_transaction_session_timeout": str(limits.import_idle_timeout_ms),
    "transaction_timeout": str(limits.import_transaction_timeout_ms),
}


class Worker:
    """Everything that a worker has; `open` it, then let it `work`."""

    def __init__(self, plan: Plan, inbox: Inbox, send: Callable[[Report | Left], None]) -> None:
        self._plan = plan
        self._inbox = inbox
        self._send = send
        self._shards = Shards(Deployment.load(Path(plan.data)), SETTINGS)
        self._maker = Maker(plan.key, plan.import_id, plan.started_ms, self._shards.hash_seed, self._shards.kinds)
        self._settler = Settler(self._shards)
        self._dry_run = DryRun(self._shards, Path(plan.scratch)) if plan.dry_run else None
        self._rounds = self._dry_run or Rounds(self._shards, self._maker, self._settler, resumed=plan.resumed)
        self._conflicts = Conflicts(self._settler)
        self._round_lines = plan.round_lines
        self._report: Report | None = None  # of the window that rounds are made of
        self._rows: Iterator[Row] = iter(())
        self._left = 0  # windows that will not be begun

    async def open(self) -> None:
        """Reach every shard. Raises `BadDeployment`."""
        await self._shards.start()

    async def close(self) -> None:
        """Close every connection."""
        await self._settler.close()
        await self._shards.close()
        if self._dry_run is not None:
            self._dry_run.close()

    async def work(self) -> None:
        """Import windows until there are no more; each is reported when its rows are durable.

        While a round is written, the next one is made, of the same window or of the one behind it.
        """
        made: Round | None = None
        while True:
            if made is not None and made.starts and self._inbox.enough:
                self._left += 1
                made = self._report = None
            if made is None and self._rounds.idle:
                self._tell_what_is_left()
                window = await self._inbox.next()
                if window is None:
                    return
                if self._inbox.enough:
                    self._left += 1
                else:
                    made = await self._make(window)
                continue
            writing = asyncio.ensure_future(self._rounds.push(made))
            try:
                made = await self._make(self._inbox.at_hand() if self._report is None else None)
            finally:
                written = await writing
            if written is not None:
                await self._tell(written)

    async def _make(self, window: Window | None) -> Round | None:
        """The next round, of the window in hand or of this one; None if there is neither."""
        starts = window is not None
        if window is not None:
            self._report = Report(window.first_line, window.lines, problems=[])
            self._rows = self._rows_of(window, self._report)
        if self._report is None:
            return None
        made = await self._take(self._report, starts=starts)
        if made.ends:
            self._report = None
        return made

    def _tell_what_is_left(self) -> None:
        for _ in range(self._left):
            self._send(Left())
        self._left = 0

    def _rows_of(self, window: Window, report: Report) -> Iterator[Row]:
        plan = self._plan
        if not plan.csv:
            for line, raw in lines.ndjson_rows(window.first_line, window.data):
                yield line, raw, raw
            return
        for line, document, raw in lines.csv_rows(window.first_line, window.data, plan.columns, plan.delimiter):
            if isinstance(document, Rejected):
                report.rows += 1
                report.problems.append(Problem.of(line, document, raw))
            else:
                yield line, document, raw

    async def _take(self, report: Report, *, starts: bool) -> Round:
        """People of the window's next rows, as many as a round has."""
        made = Round(report, starts=starts)
        people, rows, names = made.people, made.rows, made.names
        for row in self._rows:
            if len(people) >= self._round_lines:
                self._rows = chain((row,), self._rows)
                return made
            line, document, raw = row
            report.rows += 1
            try:
                registration, suspended = lines.registration(document)
                person, elsewhere = self._maker.person(line, registration, suspended=suspended)
            except Rejected as rejected:
                report.problems.append(Problem.of(line, rejected, raw))
                continue
            people.append(person)
            rows.append(row)
            names += elsewhere
            if len(people) % limits.import_people_at_a_time == 0:
                await asyncio.sleep(0)
        made.ends = True
        return made

    async def _tell(self, written: Round) -> None:
        """Count what became of a round; conflicts are treated as the plan says. The last one reports the window."""
        report = written.report
        conflicts: list[tuple[Row, Taken]] = []
        for person, row in zip(written.people, written.rows, strict=True):
            fate = person.fate
            if fate is IMPORTED:
                report.imported += 1
            elif isinstance(fate, Imported):
                report.before += 1
            elif isinstance(fate, Taken):
                conflicts.append((row, fate))
            else:
                detail = "another change of one of its login names is under way; import the row again"
                report.problems.append(Problem.of(row[0], Rejected("busy", None, detail), row[2]))
        if self._plan.on_conflict == "update":
            await self._update(conflicts, report)
        else:
            for (line, _, raw), taken in conflicts:
                word = LoginNameKind(taken.kind).word
                rejected = Rejected("login_name_taken", word, f"another user has this {word}")
                report.problems.append(Problem.of(line, rejected, raw, conflict=True))
            report.skipped += len(conflicts)
        if written.ends:
            report.rejected = sum(not problem.conflict for problem in report.problems)
            self._send(report)
        self._adapt()

    async def _update(self, conflicts: list[tuple[Row, Taken]], report: Report) -> None:
        if self._dry_run is not None:
            report.updated += len(conflicts)
            return
        items = [(taken.owner, document) for (_, document, _), taken in conflicts]
        outcomes = await self._conflicts.update(items, self._plan.import_id)
        for ((line, _, raw), _), outcome in zip(conflicts, outcomes, strict=True):
            if isinstance(outcome, Rejected):
                report.problems.append(Problem.of(line, outcome, raw))
            elif outcome:
                report.updated += 1
            else:
                report.unchanged += 1

    def _adapt(self) -> None:
        """Names should not stay unsettled for long: smaller rounds where the servers are slow."""
        took = self._rounds.unsettled_s
        if took > limits.import_names_unsettled_s:
            self._round_lines = max(self._round_lines // 2, limits.import_round_lines_min)
        elif took < limits.import_names_unsettled_s / 4:
            self._round_lines = min(self._round_lines * 2, self._plan.round_lines)


async def serve() -> None:
    """Work until the parent closes the pipe."""
    reader, send = await pipes()
    first = await read_frame(reader)
    if first is None:
        return
    plan = decode_for_worker(first)
    worker = None
    try:
        if not isinstance(plan, Plan):
            raise TypeError("the first message is the plan")
        inbox = Inbox(reader)
        worker = Worker(plan, inbox, send)
        await worker.open()
        send(Ready())
        async with inbox:
            await worker.work()
    except DenizenError as error:
        send(Trouble(error.code, error.detail))
    except (*BROKEN, asyncpg.PostgresError) as error:
        send(Trouble("unavailable", f"a shard failed: {type(error).__name__}: {error}"))
    except ExceptionGroup as group:
        cause = first_cause(group)
        if not isinstance(cause, DenizenError | asyncpg.PostgresError | BROKEN):
            raise
        send(Trouble(getattr(cause, "code", "unavailable"), str(cause) or type(cause).__name__))
    finally:
        if worker is not None:
            await worker.close()


def main() -> None:
    """The process."""
    gc.set_threshold(limits.import_garbage_objects)  # rows have no cycles; what else there is, is little
    run_worker(serve)


if __name__ == "__main__":
    main()
    sys.exit(0)
