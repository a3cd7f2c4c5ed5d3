"""When to repeat a request, and how long to wait before: pure, with the randomness given to it.

Waits grow exponentially, and each is drawn evenly between nothing and its bound ("full jitter"), so that clients that
failed together do not come back together. The gateway's `Retry-After` is the least wait. Attempts are bounded.
"""

from collections.abc import Callable

from msgspec import Struct


class RetryPolicy(Struct, frozen=True):
    """How often and how patiently: the n-th wait is at most `first_wait_s` times 2^n, never more than `wait_s_max`."""

    attempts_max: int = 6
    first_wait_s: float = 0.1
    wait_s_max: float = 5.0
    retry_after_s_max: float = 30.0

    def wait_s(self, attempt: int, retry_after_s: float | None, random: Callable[[], float]) -> float | None:
        """Seconds to wait after this failed attempt (counted from 1); None: give up."""
        if attempt >= self.attempts_max:
            return None
        if retry_after_s is not None and retry_after_s > self.retry_after_s_max:
            return None
        wait = random() * min(self.wait_s_max, self.first_wait_s * 2.0 ** (attempt - 1))
        return wait + (retry_after_s or 0.0)


NO_RETRIES = RetryPolicy(attempts_max=1)
