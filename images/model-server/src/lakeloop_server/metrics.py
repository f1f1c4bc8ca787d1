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
_STAGE_BUCKETS = (0.00005, 0.0002, 0.001, 0.005, 0.025, 0.1, 0.5, 2.5, 10.0)
_ROW_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 1024)
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
        self._waiting = Gauge(
            "lakeloop_server_waiting",
            "Prediction requests that wait for a thread",
            names,
            registry=own,
            multiprocess_mode="livesum",
        )
        self._stages = Histogram(
            "lakeloop_server_stage_seconds",
            "Time of a prediction's stages: parse, predict, serialise; way: mlflow, or numbers without a DataFrame",
            (*names, "stage", "way"),
            registry=own,
            buckets=_STAGE_BUCKETS,
        )
        self._batch_rows = Histogram(
            "lakeloop_server_batch_rows",
            "Rows of batches, of requests that waited for a thread at the same time",
            names,
            registry=own,
            buckets=_ROW_BUCKETS,
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
        self.waiting = self._waiting.labels(*self._labels)
        self.batch_rows = self._batch_rows.labels(*self._labels)
        # To look a child up by its labels takes as long as to count
        self._answered: dict[tuple[str, int], tuple[Counter, Histogram]] = {}

    def loaded(self, digest: str, phases: dict[str, float]) -> None:
        """Says which model is served, and how long each phase of its start took."""
        self._info.labels(*self._labels, digest).set(1)
        for phase, seconds in phases.items():
            self._load.labels(*self._labels, phase).set(seconds)

    def stages(self, way: str) -> dict[str, Histogram]:
        """What to tell the seconds of a prediction's stages, by stage."""
        return {stage: self._stages.labels(*self._labels, stage, way) for stage in ("parse", "predict", "serialise")}

    def answered(self, route: str, code: int, seconds: float) -> None:
        """Counts one answer."""
        found = self._answered.get((route, code))
        if found is None:
            found = (
                self.requests.labels(*self._labels, route, str(int(code))),
                self.duration.labels(*self._labels, route),
            )
            self._answered[route, code] = found
        found[0].inc()
        found[1].observe(seconds)


def exposition() -> bytes:
    """The metrics of all workers, in the text format of Prometheus."""
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return generate_latest(registry)
