"""In a rush relay and projector let the writers go first; never for longer than they may, and nothing is lost."""

from pathlib import Path

import pytest

from denizen import limits
from denizen.bus.rush import GivingWay, Processors, Rush
from denizen.testing.bus import collect

from .plane import Plane
from .waiting import until

LARGE, SMALL = limits.rush_group_writes, limits.rush_group_writes - 1


class Clock:
    """A clock that goes when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Machine:
    """A machine with two processors, as `/proc/stat` tells of it; all of them are busy, or none."""

    def __init__(self, file: Path, clock: Clock) -> None:
        self.file, self.clock = file, clock
        self._idle_s = 0.0
        self._told = clock.now
        self.busy = True
        self.tell()

    def tell(self) -> None:
        self._idle_s += 0 if self.busy else 2 * (self.clock.now - self._told)
        self._told = self.clock.now
        self.file.write_text(f"cpu  10 20 30 {int(self._idle_s * 100)} 0 0 0 0 0 0\ncpu0 5 10 15 0 0 0 0 0 0 0\n")


class Scene:
    """A rush as hints, a machine and a clock make it."""

    def __init__(self, file: Path) -> None:
        self.clock = Clock()
        self.machine = Machine(file, self.clock)
        self.rush = Rush(Processors(file), self.clock)

    def look(self) -> None:
        """Let it look at the processors for a first time: only a second look tells how many are free."""
        self.hints(0.2)
        self.hints(1.0, SMALL)

    def hints(self, seconds: float, group: float = LARGE, *, busy: bool = True) -> None:
        """Hints for so long, twenty a second."""
        self.machine.busy = busy
        for _ in range(round(seconds * 20)):
            self.clock.now += 0.05
            self.machine.tell()
            self.rush.hear(group)


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path / "stat")


def test_large_groups_on_full_processors_are_a_rush(scene: Scene) -> None:
    scene.hints(1.0)
    assert scene.rush.on


def test_small_groups_are_none(scene: Scene) -> None:
    scene.hints(1.0, SMALL)
    assert not scene.rush.on


def test_large_groups_where_a_processor_is_free_are_none(scene: Scene) -> None:
    scene.hints(1.0, busy=False)
    assert not scene.rush.on


def test_a_moment_is_no_rush(scene: Scene) -> None:
    scene.hints(1.0, SMALL)
    scene.hints(0.2)
    assert not scene.rush.on
    scene.hints(1.0, SMALL)
    scene.hints(0.2)
    assert not scene.rush.on


def test_moments_with_small_groups_between_them_are_none(scene: Scene) -> None:
    for _ in range(10):
        scene.hints(0.2)
        scene.hints(0.1, SMALL)
        assert not scene.rush.on


def test_a_rush_is_settled_while_nothing_breaks_it(scene: Scene) -> None:
    scene.look()
    scene.hints(limits.rush_settles_s - 0.1)
    assert scene.rush.on
    assert not scene.rush.settled
    scene.hints(0.2)
    assert scene.rush.settled
    scene.hints(0.05, SMALL)
    scene.hints(limits.rush_settles_s - 0.1)
    assert scene.rush.on
    assert not scene.rush.settled
    scene.hints(0.2)
    assert scene.rush.settled


def test_a_rush_is_over_soon_after_its_last_sign(scene: Scene) -> None:
    scene.hints(1.0)
    scene.hints(limits.rush_over_s - 0.1, SMALL)
    assert scene.rush.on
    scene.hints(0.2, SMALL)
    assert not scene.rush.on


def test_nobody_gives_way_on_a_machine_that_does_not_tell_how_busy_it_is(tmp_path: Path) -> None:
    scene = Scene(tmp_path / "stat")
    rush = Rush(Processors(tmp_path / "nothing"), scene.clock)
    for _ in range(40):
        scene.clock.now += 0.05
        rush.hear(LARGE)
    assert not rush.on


def test_who_gives_way_does_little_at_a_time_and_rests(scene: Scene) -> None:
    giving_way = GivingWay(scene.rush, 10.0)
    assert giving_way.events_max(2_000) == 2_000
    assert giving_way.rest(far_behind=True) == 0
    scene.hints(1.0)
    assert giving_way.events_max(2_000) == limits.rush_batch_events_max
    assert giving_way.events_max(50) == 50
    assert giving_way.rest(far_behind=True) == limits.rush_rest_s


def test_nothing_is_put_off_before_a_rush_is_settled(scene: Scene) -> None:
    giving_way = GivingWay(scene.rush, 5.0)
    scene.look()
    scene.hints(limits.rush_settles_s - 0.1)
    assert giving_way.events_max(2_000) == 2_000
    assert giving_way.rest(far_behind=False) == limits.rush_rest_s
    assert giving_way.rest(far_behind=True) == 0


def test_when_patience_ends_everything_is_done_at_a_time_and_the_rest_is_as_long(scene: Scene) -> None:
    giving_way = GivingWay(scene.rush, 5.0)
    scene.hints(1.0)
    assert giving_way.rest(far_behind=True) > 0
    scene.hints(4.5)
    assert giving_way.rest(far_behind=True) > 0
    scene.hints(1.0)
    assert giving_way.events_max(2_000) == 2_000
    assert giving_way.rest(far_behind=False) == limits.rush_rest_s
    assert giving_way.rest(far_behind=True) == 0
    scene.hints(2.0, SMALL)
    assert giving_way.rest(far_behind=False) == 0


def test_patience_is_had_anew_only_after_the_rush_when_all_is_done(scene: Scene) -> None:
    giving_way = GivingWay(scene.rush, 5.0)
    scene.hints(1.0)
    giving_way.rest(far_behind=False)
    scene.hints(6.0)
    assert not giving_way.patient
    giving_way.caught_up()  # the rush goes on
    scene.hints(1.0)
    assert not giving_way.patient
    scene.hints(2.0, SMALL)  # it is over, and not everything is done
    scene.hints(1.0)
    assert scene.rush.on
    assert not giving_way.patient
    scene.hints(2.0, SMALL)
    giving_way.caught_up()
    scene.hints(1.0)
    assert giving_way.patient


def test_without_patience_nobody_gives_way(scene: Scene) -> None:
    scene.hints(1.0)
    assert scene.rush.on
    giving_way = GivingWay(scene.rush, 0.0)
    assert not giving_way.patient
    assert giving_way.rest(far_behind=False) == 0


async def test_a_relay_that_gives_way_is_late_and_nobody_overtakes_it(
    plane: Plane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it says is not published yet is not read from PostgreSQL, which would cost the writers as much."""
    monkeypatch.setattr(limits, "rush_batch_events_max", 10)
    scene = Scene(tmp_path / "stat")
    scene.hints(1.0)
    scene.clock.now -= 0.01
    plane.start_relays(scene.rush)
    async with plane.feed() as feed:
        await until(lambda: feed.listening and all(relay.level for relay in plane.relays))
        await plane.append(1)
        got = await collect(feed, 1)
        await until(lambda: all(healer.heard > 0 for healer in feed._healers.values()))  # now it trusts the relays
        before = dict(feed.counts())
        await plane.append(150)
        late = [relay for relay in plane.relays if not relay.level]
        assert late
        await until(lambda: all(relay.level for relay in plane.relays), seconds=30)
        await collect(feed, 151, into=got)
        assert feed.counts() == {"bus": before["bus"] + 150, "postgres": before["postgres"]}
