"""The parts of the service that decide without a cluster: batches, the time of leases, watches."""

import asyncio
from typing import Any

import msgspec
import pytest

from denizen.raft import errors as raft
from denizen.raft.kv import errors
from denizen.raft.kv.batching import Batcher
from denizen.raft.kv.leasing import LeaseClock
from denizen.raft.kv.limits import BATCH_BYTES_MAX, BATCH_REQUESTS_MAX
from denizen.raft.kv.machine import KeyValueMachine, encode_batch
from denizen.raft.kv.model import Delete, Lease, Put, PutResult, Request
from denizen.raft.kv.service import WatchedMachine
from denizen.raft.kv.watching import WatchQuery


class Log:
    """A log of one node: what is proposed is applied when `commit` says so."""

    def __init__(self, *, as_lists: bool = False) -> None:
        self.machine = KeyValueMachine()
        self.sizes: list[int] = []
        self.bytes: list[int] = []
        self._as_lists = as_lists
        self._committed = asyncio.Event()
        self.error: raft.RaftError | None = None

    def commit(self) -> None:
        self._committed.set()

    async def propose(self, command: bytes) -> Any:
        self.bytes.append(len(command))
        await self._committed.wait()
        if self.error is not None:
            raise self.error
        results = self.machine.apply(0, command)
        self.sizes.append(len(results))
        return msgspec.to_builtins(results, builtin_types=(bytes,)) if self._as_lists else results


def put(number: int, size: int = 1) -> Request:
    return Request(Put(b"k%d" % number, b"v" * size))


@pytest.mark.parametrize("as_lists", [False, True], ids=["from this node", "from another node"])
async def test_requests_that_come_together_share_entries_and_get_their_own_results(as_lists: bool) -> None:
    log = Log(as_lists=as_lists)
    batcher = Batcher(log.propose)
    count = BATCH_REQUESTS_MAX + 10
    waiting = [asyncio.create_task(batcher.submit(put(number))) for number in range(count)]
    log.commit()
    assert await asyncio.gather(*waiting) == [PutResult(number + 2) for number in range(count)]
    assert log.sizes == [BATCH_REQUESTS_MAX, 10]
    await batcher.close()


async def test_entries_stay_within_their_bytes() -> None:
    log = Log()
    batcher = Batcher(log.propose)
    log.commit()
    await asyncio.gather(*(batcher.submit(put(number, 100_000)) for number in range(20)))
    assert max(log.bytes) <= BATCH_BYTES_MAX
    await batcher.close()


async def test_full_queue_refuses_and_changes_nothing() -> None:
    log = Log()
    batcher = Batcher(log.propose, in_flight_max=1, waiting_max=5)
    waiting = [asyncio.create_task(batcher.submit(put(number))) for number in range(3)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    waiting += [asyncio.create_task(batcher.submit(put(number))) for number in range(3, 8)]
    await asyncio.sleep(0)
    with pytest.raises(errors.Overloaded):
        await batcher.submit(put(99))
    log.commit()
    await asyncio.gather(*waiting)
    assert b"k99" not in log.machine.keyspace.current
    await batcher.close()


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (raft.OutcomeUnknown("?"), errors.OutcomeUnknown),
        (raft.NoLeader("?"), errors.NoLeader),
        (raft.Overloaded("?"), errors.Overloaded),
        (raft.NotMember("?"), errors.NotAMember),
        (raft.Stopped("?"), errors.Unavailable),
    ],
)
async def test_error_of_a_batch_reaches_every_request_in_it(error: raft.RaftError, kind: type[Exception]) -> None:
    log = Log()
    log.error = error
    log.commit()
    batcher = Batcher(log.propose)
    answers = await asyncio.gather(*(batcher.submit(put(number)) for number in range(3)), return_exceptions=True)
    assert [type(answer) for answer in answers] == [kind] * 3
    await batcher.close()


async def test_request_whose_client_has_gone_is_not_proposed() -> None:
    log = Log()
    batcher = Batcher(log.propose)
    gone, stays = (asyncio.create_task(batcher.submit(put(number))) for number in range(2))
    await asyncio.sleep(0)
    gone.cancel()
    log.commit()
    await stays
    assert list(log.machine.keyspace.current) == [b"k1"]
    await batcher.close()


async def test_closed_batcher_refuses_what_waits_and_finishes_what_is_under_way() -> None:
    log = Log()
    batcher = Batcher(log.propose, in_flight_max=1)
    first = asyncio.create_task(batcher.submit(put(1)))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    second = asyncio.create_task(batcher.submit(put(2)))
    await asyncio.sleep(0)
    closing = asyncio.create_task(batcher.close())
    await asyncio.sleep(0)
    log.commit()
    await closing
    assert await first == PutResult(2)
    with pytest.raises(errors.Unavailable):
        await second
    with pytest.raises(errors.Unavailable):
        await batcher.submit(put(3))


def test_lease_ends_a_full_time_after_it_was_granted_renewed_or_its_leader_changed() -> None:
    clock, lease = LeaseClock(), Lease(7, 10)
    renewed = Lease(7, 10, 1)

    def expired(lease: Lease, led: tuple[int, int | None], now: float) -> list[int]:
        clock.count({7: lease}, led, now)
        return clock.expired(now)

    assert expired(lease, (1, 1), 100.0) == []
    assert expired(lease, (1, 1), 109.9) == []
    assert expired(renewed, (1, 1), 109.9) == []
    assert expired(renewed, (1, 1), 119.8) == []
    assert expired(renewed, (1, 1), 119.9) == [7]
    assert expired(renewed, (2, None), 130.0) == []
    assert expired(renewed, (2, 3), 140.0) == [], "a new leader gives the full time"
    assert clock.remaining_s(7, 141.0) == 9.0
    assert expired(renewed, (2, 3), 150.0) == [7]
    assert expired(Lease(7, 10, 1), (2, 3), 150.0) == [], "one that was revoked and granted anew has its full time"
    clock.count({}, (2, 3), 150.0)
    assert clock.expired(150.0) == []
    assert clock.remaining_s(7, 150.0) is None


def apply(machine: WatchedMachine, *operations: Any) -> None:
    machine.apply(0, encode_batch([Request(operation) for operation in operations]))


async def test_watch_goes_on_over_a_restored_snapshot_without_skipping() -> None:
    ahead, behind = WatchedMachine(), WatchedMachine()
    for machine in (ahead, behind):
        apply(machine, Put(b"a", b"1"))
    changes = behind.watches.follow(WatchQuery(b"a", b"b", 2), 60.0)
    assert [event.kv.value for event in (await anext(changes)).events] == [b"1"]
    apply(ahead, Put(b"a", b"2"), Put(b"x", b"unseen"), Delete(b"a"))
    following = asyncio.create_task(anext(changes))
    await asyncio.sleep(0)
    behind.restore(b"".join(ahead.snapshot()))
    told = await following
    assert [(event.kv.mod_revision, event.is_delete) for event in told.events] == [(3, False), (5, True)]
    await changes.aclose()


async def test_watch_that_fell_behind_what_is_kept_is_told_so() -> None:
    machine = WatchedMachine(KeyValueMachine(history_events_max=10))
    changes = machine.watches.follow(WatchQuery(b"a", b"", 2), 60.0)
    apply(machine, *(Put(b"a", b"%d" % number) for number in range(30)))
    with pytest.raises(errors.CompactedRevision):
        await anext(changes)
    assert machine.watches.count == 0


async def test_idle_watch_gives_a_sign_of_life_and_a_closed_one_ends() -> None:
    machine = WatchedMachine()
    changes = machine.watches.follow(WatchQuery(b"a"), 0.01)
    assert (await anext(changes)).events == []
    machine.watches.close()
    with pytest.raises(errors.Unavailable):
        await anext(changes)


async def test_request_that_cannot_be_encoded_leaves_nobody_waiting(caplog: pytest.LogCaptureFixture) -> None:
    log = Log()
    log.commit()
    batcher = Batcher(log.propose, in_flight_max=1)
    poison = Request(Put(b"k", b"v", 2**70))
    waiting = [asyncio.create_task(batcher.submit(request)) for request in (poison, put(1))]
    for failed in await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), 5):
        assert isinstance(failed, errors.KeyValueError)
        assert failed.code == "internal"
    assert await asyncio.wait_for(batcher.submit(put(2)), 5) == PutResult(2)
    await batcher.close()
    assert "OverflowError" in caplog.text
