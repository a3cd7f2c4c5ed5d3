"""Requests that arrive together share a log entry.

While batches are on their way to being committed, new requests gather; each free slot takes what has gathered, up to
the bounds. Under load the entries grow by themselves, and a single request never waits for others.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec

from denizen.raft import errors as raft
from denizen.raft.kv import errors
from denizen.raft.kv.limits import BATCH_BYTES_MAX, BATCH_REQUESTS_MAX, BATCHES_IN_FLIGHT_MAX, WAITING_REQUESTS_MAX
from denizen.raft.kv.machine import encode_batch
from denizen.raft.kv.model import Put, Request, Result, Txn

Propose = Callable[[bytes], Awaitable[Any]]

_ENVELOPE_BYTES = 100


class Batcher:
    """Turns requests into proposals. Owns the tasks of the batches in flight; `close` ends them."""

    def __init__(
        self, propose: Propose, *, in_flight_max: int = BATCHES_IN_FLIGHT_MAX, waiting_max: int = WAITING_REQUESTS_MAX
    ) -> None:
        self._propose = propose
        self._in_flight_max = in_flight_max
        self._waiting_max = waiting_max
        self._waiting: deque[tuple[Request, asyncio.Future[Result]]] = deque()
        self._in_flight: set[asyncio.Task[None]] = set()
        self._scheduled = False
        self._closed = False
        self._loop = asyncio.get_running_loop()
        self.batches = 0
        self.requests = 0

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    async def submit(self, request: Request) -> Result:
        """Return the request's result once it is committed and applied.

        Raises the errors of `kv.errors`; after any of them but `OutcomeUnknown` the request was not applied.
        """
        if self._closed:
            raise errors.Unavailable("this node is stopping: ask another one")
        if len(self._waiting) >= self._waiting_max:
            raise errors.Overloaded(f"{self._waiting_max} requests wait already: back off and try again")
        future: asyncio.Future[Result] = self._loop.create_future()
        self._waiting.append((request, future))
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._flush)
        return await future

    async def close(self) -> None:
        """Refuse what waits; wait for what is in flight."""
        self._closed = True
        for _, future in self._waiting:
            if not future.done():
                future.set_exception(errors.Unavailable("this node is stopping: ask another one"))
        self._waiting.clear()
        if self._in_flight:
            await asyncio.wait(self._in_flight)

    def _flush(self) -> None:
        self._scheduled = False
        while self._waiting and len(self._in_flight) < self._in_flight_max:
            requests, futures = self._take()
            task = self._loop.create_task(self._carry(requests, futures))
            self._in_flight.add(task)
            task.add_done_callback(self._landed)

    def _take(self) -> tuple[list[Request], list[asyncio.Future[Result]]]:
        waiting = self._waiting
        requests: list[Request] = []
        futures: list[asyncio.Future[Result]] = []
        size = 0
        while waiting and len(requests) < BATCH_REQUESTS_MAX:
            request, future = waiting[0]
            size += _weight(request)
            if requests and size > BATCH_BYTES_MAX:
                break
            waiting.popleft()
            if not future.done():  # nobody waits for it any more
                requests.append(request)
                futures.append(future)
        return requests, futures

    async def _carry(self, requests: list[Request], futures: list[asyncio.Future[Result]]) -> None:
        if not requests:
            return
        self.batches += 1
        self.requests += len(requests)
        try:
            results = _results(await self._propose(encode_batch(requests)))
        except raft.RaftError as error:
            _fail(futures, translated(error))
            return
        except Exception:
            _fail(futures, errors.KeyValueError("a defect of ours; the node's log has the details"))
            raise
        for future, result in zip(futures, results, strict=True):
            if not future.done():
                future.set_result(result)

    def _landed(self, task: asyncio.Task[None]) -> None:
        self._in_flight.discard(task)
        if self._waiting and not self._scheduled:
            self._flush()
        if not task.cancelled():
            task.result()  # a defect of ours must not go unseen


def _fail(futures: Sequence[asyncio.Future[Result]], failure: errors.KeyValueError) -> None:
    for future in futures:
        if not future.done():
            future.set_exception(failure)


def _results(answer: Any) -> list[Result]:
    """Results come as they are from this node's state machine, and as plain lists from another node's."""
    if answer and isinstance(answer[0], list):
        return msgspec.convert(answer, list[Result])
    results: list[Result] = answer
    return results


def _weight(request: Request) -> int:
    operation = request.operation
    if isinstance(operation, Put):
        return len(operation.key) + len(operation.value) + _ENVELOPE_BYTES
    if isinstance(operation, Txn):
        branches = (*operation.success, *operation.failure)
        return _ENVELOPE_BYTES * (1 + len(operation.compare) + len(branches)) + sum(
            len(o.value) for o in branches if isinstance(o, Put)
        )
    return _ENVELOPE_BYTES


def translated(error: raft.RaftError) -> errors.KeyValueError:
    """Return what a client of the service is told about an error of Raft."""
    kind = _TRANSLATION.get(type(error), errors.Unavailable)
    return kind(_ADVICE.get(kind) or str(error), **{k: v for k, v in error.facts.items() if isinstance(v, int | str)})


_TRANSLATION: dict[type[raft.RaftError], type[errors.KeyValueError]] = {
    raft.NoLeader: errors.NoLeader,
    raft.NotMember: errors.NotAMember,
    raft.Overloaded: errors.Overloaded,
    raft.TooLarge: errors.TooLarge,
    raft.OutcomeUnknown: errors.OutcomeUnknown,
    raft.ChangeRefused: errors.ConfigurationRefused,
}
_ADVICE: dict[type[errors.KeyValueError], str] = {
    errors.NoLeader: "the cluster has no leader that this node can reach; nothing was changed: try again in a second",
    errors.OutcomeUnknown: "the write may or may not have happened: repeat it with the same session and sequence, "
    "or read the keys to see",
    errors.Overloaded: "too many writes wait already; nothing was changed: back off and try again",
}
