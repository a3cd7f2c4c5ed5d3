"""A child that keeps ending is started less and less often; the lock names its holder."""

from pathlib import Path

import pytest

from denizen import limits
from denizen.deployment.keeping import FIRST_DELAY_SECONDS, HEALTHY_SECONDS, describe_exit, next_delay
from denizen.deployment.lock import DirectoryLock, holder
from denizen.errors import BadDeployment


def test_waits_double_up_to_a_limit() -> None:
    delay, waits = 0.0, []
    for _ in range(12):
        delay = next_delay(delay, lived_seconds=0.1)
        waits.append(delay)
    assert waits[:3] == [FIRST_DELAY_SECONDS, 2 * FIRST_DELAY_SECONDS, 4 * FIRST_DELAY_SECONDS]
    assert waits[-1] == limits.restart_delay_s_max


def test_a_child_that_lived_long_is_started_at_once_again() -> None:
    assert next_delay(limits.restart_delay_s_max, lived_seconds=HEALTHY_SECONDS) == FIRST_DELAY_SECONDS


def test_ends_are_told_in_words() -> None:
    assert describe_exit(-9) == "killed by signal 9"
    assert describe_exit(3) == "exit code 3"


def test_a_held_lock_refuses_and_names_its_holder_and_a_released_one_does_not(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert holder(path) is None
    first, second = DirectoryLock(path), DirectoryLock(path)
    first.acquire()
    pid = holder(path)
    assert pid is not None
    with pytest.raises(BadDeployment, match=rf"runs already \(pid {pid}\)"):
        second.acquire()
    first.release()
    assert holder(path) is None
    second.acquire()
    second.release()
