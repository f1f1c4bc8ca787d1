"""Prometheus metrics of all worker processes together.

prometheus_client decides when it is imported whether values are shared between processes: set
`PROMETHEUS_MULTIPROC_DIR` first (`main` does), and import this module only then. The files outlive a worker that dies,
so that counters never go back.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.multiprocess import MultiProcessCollector

CONTENT_TYPE = CONTENT_TYPE_LATEST
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.35, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Metrics:
    """What a server counts. `route` is one of a fixed list, `code` the HTTP status, times are in seconds."""

    def __init__(self, model: str, version: str) -> None:
        own = CollectorRegistry()
        self._labels = (model, version)
        names = ("model", "version")
        self.requests = Counter(
            "lakeloop_server_requests_total",
            "Requests answered, by route and HTTP status",
            (*names, "route", "code"),
            registry=own,
        )
        self.duration = Histogram(
            "lakeloop_server_request_duration_seconds",
            "Time from a request's head to the end of its answer",
            (*names, "route"),
            registry=own,
            buckets=_BUCKETS,
        )
        self._in_flight = Gauge(
            "lakeloop_server_in_flight",
            "Prediction requests being answered or waiting for a thread",
            names,
            registry=own,
            multiprocess_mode="livesum",
        )
        self._info = Gauge(
            "lakeloop_server_model_info",
            "1 for the model that is served",
            (*names, "digest"),
            registry=own,
            multiprocess_mode="max",
        )
        self._load = Gauge(
            "lakeloop_server_load_seconds",
            "Time from the start of the process until it could serve, by phase",
            (*names, "phase"),
            registry=own,
            multiprocess_mode="max",
        )
        self._failures = Counter(
            "lakeloop_server_model_failures_total",
            "Predictions in which the model's own code raised",
            names,
            registry=own,
        )
        self._overloads = Counter(
            "lakeloop_server_overloads_total", "Requests refused because the queue was full", names, registry=own
        )
        self.in_flight = self._in_flight.labels(*self._labels)
        self.failures = self._failures.labels(*self._labels)
        self.overloads = self._overloads.labels(*self._labels)

    def loaded(self, digest: str, phases: dict[str, float]) -> None:
        """Says which model is served, and how long each phase of its start took."""
        self._info.labels(*self._labels, digest).set(1)
        for phase, seconds in phases.items():
            self._load.labels(*self._labels, phase).set(seconds)

    def answered(self, route: str, code: int, seconds: float) -> None:
        """Counts one answer."""
        self.requests.labels(*self._labels, route, str(code)).inc()
        self.duration.labels(*self._labels, route).observe(seconds)


def exposition() -> bytes:
    """The metrics of all workers, in the text format of Prometheus."""
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return generate_latest(registry)
