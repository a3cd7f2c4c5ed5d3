"""A worker process of an import: takes a window, makes people of its lines, writes them in rounds, reports.

It ends when its parent does, however that ends: the kernel kills it, and its open transactions are undone. It holds
the journal's lock as well, so that nobody can resume the import while any process of it still lives.
"""

import asyncio
import gc
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import asyncpg
import uvloop

from denizen import limits
from denizen.bulk.imports import lines
from denizen.bulk.imports.conflicts import Conflicts
from denizen.bulk.imports.dry_run import DryRun
from denizen.bulk.imports.fates import Imported, Taken
from denizen.bulk.imports.messages import Plan, Problem, Ready, Report, Window, decode_for_worker
from denizen.bulk.imports.people import Maker, Name, Person
from denizen.bulk.imports.rounds import Rounds
from denizen.bulk.imports.settling import Settler
from denizen.bulk.shards import Shards
from denizen.deployment.layout import Deployment
from denizen.errors import DenizenError
from denizen.events.lanes import BROKEN
from denizen.users.login_names import LoginNameKind
from denizen.users.rejections import Rejected
from denizen.workers.frames import Trouble, first_cause, pipes, read_frame
from denizen.workers.parenthood import die_with_parent

SETTINGS: Final = {
    "application_name": "denizen import",
    "idle_in_transaction_session_timeout": str(limits.import_idle_timeout_ms),
    "transaction_timeout": str(limits.import_transaction_timeout_ms),
}
Row = tuple[int, lines.Raw, bytes]  # line, document, itself


class _Round:
    """People of one round, their names elsewhere, and by line the documents and raw rows that they come from."""

    def __init__(self) -> None:
        self.people: list[Person] = []
        self.names: list[Name] = []
        self.raws: dict[int, tuple[lines.Raw, bytes]] = {}


class Worker:
    """Everything that a worker has; `open` it, then give it windows."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._shards = Shards(Deployment.load(Path(plan.data)), SETTINGS)
        self._maker = Maker(plan.key, plan.import_id, plan.started_ms, self._shards.hash_seed, self._shards.kinds)
        self._settler = Settler(self._shards)
        self._rounds = Rounds(
            self._shards,
            self._maker,
            self._settler,
            resumed=plan.resumed,
        )
        self._dry_run = DryRun(self._shards, Path(plan.scratch)) if plan.dry_run else None
        self._conflicts = Conflicts(self._settler)
        self._round_lines = plan.round_lines

    async def open(self) -> None:
        """Reach every shard. Raises `BadDeployment`."""
        await self._shards.start()

    async def close(self) -> None:
        """Close every connection."""
        await self._settler.close()
        await self._shards.close()
        if self._dry_run is not None:
            self._dry_run.close()

    async def work(self, window: Window) -> Report:
        """Import a window; its rows are durable when this returns."""
        report = Report(window.first_line, window.lines, problems=[])
        rows = self._rows(window, report)
        made = await self._take(rows, report)
        while made.people:
            writing = asyncio.ensure_future(self._write(made))
            try:
                following = await self._take(rows, report)  # while the servers work
            finally:
                await writing
            await self._tell(made, report)
            made = following
        report.rejected = sum(not problem.conflict for problem in report.problems)
        return report

    async def _write(self, made: _Round) -> None:
        if self._dry_run is not None:
            await self._dry_run.look(made.people, made.names)
        else:
            await self._rounds.write(made.people, made.names)
            self._adapt()

    def _rows(self, window: Window, report: Report) -> Iterator[Row]:
        plan = self._plan
        if not plan.csv:
            for line, raw in lines.ndjson_rows(window.first_line, window.data):
                yield line, raw, raw
            return
        for line, document, raw in lines.csv_rows(window.first_line, window.data, plan.columns, plan.delimiter):
            if isinstance(document, Rejected):
                report.rows += 1
                report.problems.append(_problem(line, document, raw))
            else:
                yield line, document, raw

    async def _take(self, rows: Iterator[Row], report: Report) -> _Round:
        """People of the next rows, as many as a round has."""
        made = _Round()
        for line, document, raw in rows:
            report.rows += 1
            try:
                registration, suspended = lines.registration(document)
                person, elsewhere = self._maker.person(line, registration, suspended=suspended)
            except Rejected as rejected:
                report.problems.append(_problem(line, rejected, raw))
                continue
            made.people.append(person)
            made.names += elsewhere
            made.raws[line] = (document, raw)
            if len(made.people) >= self._round_lines:
                break
            if len(made.people) % limits.import_people_at_a_time == 0:
                await asyncio.sleep(0)
        return made

    def _adapt(self) -> None:
        """Names should not stay unsettled for long: smaller rounds where the servers are slow."""
        took = self._rounds.unsettled_s
        if took > limits.import_names_unsettled_s:
            self._round_lines = max(self._round_lines // 2, limits.import_round_lines_min)
        elif took < limits.import_names_unsettled_s / 4:
            self._round_lines = min(self._round_lines * 2, self._plan.round_lines)

    async def _tell(self, made: _Round, report: Report) -> None:
        """Count what became of them; conflicts are treated as the plan says."""
        raws = made.raws
        conflicts: list[tuple[Person, Taken]] = []
        for person in made.people:
            match person.fate:
                case Imported(before=True):
                    report.before += 1
                case Imported():
                    report.imported += 1
                case Taken() as taken:
                    conflicts.append((person, taken))
                case _:
                    detail = "another change of one of its login names is under way; import the row again"
                    report.problems.append(_problem(person.line, Rejected("busy", None, detail), raws[person.line][1]))
        if self._plan.on_conflict == "update":
            await self._update(conflicts, raws, report)
            return
        for person, taken in conflicts:
            word = LoginNameKind(taken.kind).word
            rejected = Rejected("login_name_taken", word, f"another user has this {word}")
            report.problems.append(_problem(person.line, rejected, raws[person.line][1], conflict=True))
        report.skipped += len(conflicts)

    async def _update(
        self, conflicts: list[tuple[Person, Taken]], raws: dict[int, tuple[lines.Raw, bytes]], report: Report
    ) -> None:
        if self._dry_run is not None:
            report.updated += len(conflicts)
            return
        items = [(taken.owner, raws[person.line][0]) for person, taken in conflicts]
        outcomes = await self._conflicts.update(items, self._plan.import_id)
        for (person, _), outcome in zip(conflicts, outcomes, strict=True):
            if isinstance(outcome, Rejected):
                report.problems.append(_problem(person.line, outcome, raws[person.line][1]))
            elif outcome:
                report.updated += 1
            else:
                report.unchanged += 1


def _problem(line: int, rejected: Rejected, raw: bytes, *, conflict: bool = False) -> Problem:
    text = raw[: limits.import_raw_bytes_max].decode(errors="replace")
    return Problem(line, rejected.code, rejected.field, rejected.detail, text, conflict)


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
        worker = Worker(plan)
        await worker.open()
        send(Ready())
        while (content := await read_frame(reader)) is not None:
            window = decode_for_worker(content)
            if isinstance(window, Window):
                send(await worker.work(window))
                window = None
                gc.collect()
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
    die_with_parent(signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides when to stop
    gc.freeze()
    gc.disable()  # rows have no cycles; what else there is, is collected between windows
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve())


if __name__ == "__main__":
    main()
    sys.exit(0)
