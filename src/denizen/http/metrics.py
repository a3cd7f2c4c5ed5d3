"""Metrics of the gateway in Prometheus' text format, and the process's own.

Routes are labelled by their template, never by a path: no personal data, and no more series than routes. A gateway
has a registry of its own, so that several can live in one process.
"""

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_BUCKETS_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


class GatewayMetrics:
    """What the gateway counts."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "denizen_http_requests", "Requests answered", ["route", "method", "status"], registry=self.registry
        )
        self._seconds = Histogram(
            "denizen_http_request_seconds", "Time to answer", ["route"], buckets=_BUCKETS_S, registry=self.registry
        )
        self.in_flight = Gauge("denizen_http_requests_in_flight", "Requests being answered", registry=self.registry)
        self.password_jobs = Gauge(
            "denizen_password_jobs", "Passwords being hashed or verified, or waiting for it", registry=self.registry
        )
        self.log_lines_lost = Counter(
            "denizen_access_log_lines_lost", "Access log lines dropped, the log too slow", registry=self.registry
        )
        self._counters: dict[tuple[str, str, int], Counter] = {}
        self._histograms: dict[str, Histogram] = {}

    def answered(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count one answer."""
        labels = (route, method, status)
        counter = self._counters.get(labels)
        if counter is None:
            counter = self._counters[labels] = self._requests.labels(*labels)
        counter.inc()
        histogram = self._histograms.get(route)
        if histogram is None:
            histogram = self._histograms[route] = self._seconds.labels(route)
        histogram.observe(seconds)

    def render(self) -> str:
        """The gateway's metrics, then those of the process (Python, memory, and whatever other parts registered)."""
        return (generate_latest(self.registry) + generate_latest(REGISTRY)).decode()
