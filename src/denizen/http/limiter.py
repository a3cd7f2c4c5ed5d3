"""The rate of each API key: a token bucket, and the header fields that tell the client about it.

A key with `rate_per_s` may spend that many requests a second, and one second's worth at once (one request at least). A
batch costs one token per item and may run the bucket into debt, so that a large batch is possible but paid for before
the next request. A key without a rate has no limit. Each gateway counts for itself: with n gateways behind a balancer
a key can reach n times its rate.

Header fields as in draft-ietf-httpapi-ratelimit-headers: `RateLimit-Policy: "key";q=<quota>;w=<seconds>` and
`RateLimit: "key";r=<remaining>;t=<seconds until the quota is whole again>`.
"""

import math
from collections import OrderedDict
from collections.abc import Callable
from time import monotonic

from denizen.errors import RateLimited
from denizen.limits import rate_buckets_max


class TokenBucket:
    """Tokens that come back at `rate_per_s`, up to `burst`; pure but for the times given to it."""

    __slots__ = ("_at", "_tokens", "burst", "rate_per_s")

    def __init__(self, rate_per_s: float, now: float) -> None:
        self.rate_per_s = rate_per_s
        self.burst = max(1, math.ceil(rate_per_s))
        self._tokens = float(self.burst)
        self._at = now

    def take(self, now: float) -> float:
        """Take one token: 0.0 if there was one, else the seconds until there will be."""
        self._refill(now)
        if self._tokens >= 1.0:
            self._tokens -= 1.0
            return 0.0
        return (1.0 - self._tokens) / self.rate_per_s

    def charge(self, tokens: int) -> None:
        """Take more tokens for a request that was let in; the bucket may owe them."""
        self._tokens -= tokens

    def remaining(self) -> int:
        """Whole tokens left at the last `take`."""
        return max(0, math.floor(self._tokens))

    def full_in_s(self) -> int:
        """Seconds until the bucket is full again, rounded up."""
        return math.ceil((self.burst - self._tokens) / self.rate_per_s)

    def _refill(self, now: float) -> None:
        self._tokens = min(float(self.burst), self._tokens + (now - self._at) * self.rate_per_s)
        self._at = now


class Limiter:
    """The token buckets of the API keys in use; the longest unused is forgotten first (it is full again anyway)."""

    def __init__(self, clock: Callable[[], float] = monotonic, buckets_max: int = rate_buckets_max) -> None:
        self._clock = clock
        self._buckets_max = buckets_max
        self._buckets: OrderedDict[str, TokenBucket] = OrderedDict()

    def bucket(self, key_id: str, rate_per_s: float) -> TokenBucket:
        """The bucket of this key; a new one if its rate was changed."""
        bucket = self._buckets.get(key_id)
        if bucket is None or bucket.rate_per_s != rate_per_s:
            bucket = self._buckets[key_id] = TokenBucket(rate_per_s, self._clock())
            if len(self._buckets) > self._buckets_max:
                self._buckets.popitem(last=False)
        self._buckets.move_to_end(key_id)
        return bucket

    def admit(self, bucket: TokenBucket) -> None:
        """Take one token, or raise `RateLimited`."""
        wait_s = bucket.take(self._clock())
        if wait_s:
            detail = f"this key may send {bucket.rate_per_s:g} requests per second"
            raise RateLimited(detail, retry_after_s=math.ceil(wait_s))


def rate_headers(bucket: TokenBucket) -> list[tuple[str, str]]:
    """The `RateLimit` fields of a response."""
    window_s = math.ceil(bucket.burst / bucket.rate_per_s)
    return [
        ("ratelimit-policy", f'"key";q={bucket.burst};w={window_s}'),
        ("ratelimit", f'"key";r={bucket.remaining()};t={bucket.full_in_s()}'),
    ]
