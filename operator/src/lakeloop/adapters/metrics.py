"""What Prometheus reads of the operator."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
ROLLOUT_SECONDS = (1, 2, 5, 10, 15, 20, 30, 45, 60, 120, 300, 600)


class Metrics:
    """All of the operator's metrics, in a registry of their own so that tests can have several."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.reconciles = Counter(
            "lakeloop_reconciles", "Passes over an object.", ["kind", "outcome"], registry=self.registry
        )
        self.reconcile_errors = Counter(
            "lakeloop_reconcile_errors", "Passes that failed, by error.", ["kind", "error"], registry=self.registry
        )
        self.phase_seconds = Histogram(
            "lakeloop_reconcile_phase_seconds",
            "Time of one phase of a pass: queue (waiting while due), reconcile (the whole pass), or one of its parts.",
            ["kind", "phase"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self.queue_depth = Gauge("lakeloop_queue_depth", "Objects due and not yet in work.", registry=self.registry)
        self.runs = Counter("lakeloop_runs", "Runs that ended, by outcome.", ["outcome"], registry=self.registry)
        self.rollouts = Counter(
            "lakeloop_rollouts", "Roll-outs that ended, by outcome.", ["outcome"], registry=self.registry
        )
        self.alias_to_serving = Histogram(
            "lakeloop_alias_to_serving_seconds",
            "From the move of an alias in the registry, or from when it was seen, until the new version alone serves.",
            buckets=ROLLOUT_SECONDS,
            registry=self.registry,
        )
        self.webhooks = Counter(
            "lakeloop_registry_webhooks", "Deliveries from the registry.", ["outcome"], registry=self.registry
        )
        self.leader = Gauge("lakeloop_leader", "1 where this process holds the lease.", registry=self.registry)

    def watch_depth(self, depth: Callable[[], int]) -> None:
        """Have the queue's depth read when Prometheus asks."""
        self.queue_depth.set_function(depth)

    def passed(self, kind: str, outcome: str, waited: float, took: float, error: str | None) -> None:
        """One pass over an object; see `reconcile.runtime.Observer`."""
        self.reconciles.labels(kind, outcome).inc()
        self.phase_seconds.labels(kind, "queue").observe(waited)
        self.phase_seconds.labels(kind, "reconcile").observe(took)
        if outcome == "error":
            self.reconcile_errors.labels(kind, error or "").inc()

    def phase(self, kind: str, name: str, seconds: float) -> None:
        """One part of a pass: gather, decide, apply."""
        self.phase_seconds.labels(kind, name).observe(seconds)

    def rollout(self, outcome: str, seconds: float | None = None) -> None:
        """A roll-out that ended: `completed` (with its time, where an alias was moved) or `rejected`."""
        self.rollouts.labels(outcome).inc()
        if seconds is not None:
            self.alias_to_serving.observe(seconds)

    def run(self, outcome: str) -> None:
        """A run that ended: `Succeeded`, `Failed`, `Stopped`."""
        self.runs.labels(outcome).inc()

    def exposition(self) -> bytes:
        """The text format of Prometheus."""
        return generate_latest(self.registry)
