"""Metrics of the gateway in Prometheus' text format, and the process's own.

Routes are labelled by their template, never by a path: no personal data, and no more series than routes. A gateway
has a registry of its own, so that several can live in one process. What is counted for every request is kept as plain
numbers and made into metrics when somebody asks: the library's own counters cost a tenth of a read.
"""

import time
from bisect import bisect_left
from collections.abc import Iterator
from itertools import accumulate

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Metric, generate_latest
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_BUCKETS_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


class GatewayMetrics:
    """What the gateway counts."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._answers = _Answers()
        self.answered = self._answers.answered
        self.registry.register(self._answers)
        self.in_flight = Gauge("denizen_http_requests_in_flight", "Requests being answered", registry=self.registry)
        self.password_jobs = Gauge(
            "denizen_password_jobs", "Passwords being hashed or verified, or waiting for it", registry=self.registry
        )
        self.log_lines_lost = Counter(
            "denizen_access_log_lines_lost", "Access log lines dropped, the log too slow", registry=self.registry
        )

    def render(self) -> str:
        """The gateway's metrics, then those of the process (Python, memory, and whatever other parts registered)."""
        return (generate_latest(self.registry) + generate_latest(REGISTRY)).decode()


class _Answers(Collector):
    """How many requests were answered, and in what time."""

    def __init__(self) -> None:
        self._since = time.time()
        self._counts: dict[tuple[str, str, int], int] = {}
        self._times: dict[str, list[int]] = {}  # of each route, how many fell between two bounds
        self._seconds: dict[str, float] = {}

    def answered(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count one answer."""
        labels = (route, method, status)
        self._counts[labels] = self._counts.get(labels, 0) + 1
        times = self._times.get(route)
        if times is None:
            times, self._seconds[route] = self._times.setdefault(route, [0] * (len(_BUCKETS_S) + 1)), 0.0
        times[bisect_left(_BUCKETS_S, seconds)] += 1
        self._seconds[route] += seconds

    def collect(self) -> Iterator[Metric]:
        """The two metrics."""
        requests = CounterMetricFamily(
            "denizen_http_requests", "Requests answered", labels=["route", "method", "status"]
        )
        for (route, method, status), count in self._counts.items():
            requests.add_metric([route, method, str(status)], count, created=self._since)
        yield requests
        times = HistogramMetricFamily("denizen_http_request_seconds", "Time to answer", labels=["route"])
        bounds = [*map(str, _BUCKETS_S), "+Inf"]
        for route, counts in self._times.items():
            cumulative = list(zip(bounds, map(float, accumulate(counts)), strict=True))
            times.add_metric([route], cumulative, self._seconds[route])
            times.add_sample("denizen_http_request_seconds_created", {"route": route}, self._since)
        yield times
