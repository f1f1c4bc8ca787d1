"""The quickstart's run: driver pod started → model registered, and where the time goes.

    make up && uv run --project operator python benchmarks/quickstart_bench.py [--rounds 3]

Each round is a new TrainingJob that ingests the sample's five rows into a new Delta table, trains with one executor,
logs and registers. The clock begins when a watch on this machine sees the driver's container run, and ends when it sees
the registered version in status. Between are the moments at which the driver says that a stage begins.
"""

import re
import statistics
from dataclasses import dataclass
from typing import Any

import quickstart
from cluster import STAMP, Cluster, Seen, Watch, labelled, named, pod_phase, run, training_over
from report import Report, Row, Split, arguments, finish, say, spread, total

NAMESPACE = "lakeloop-bench-quickstart"
MODEL = "lakeloop-bench-quickstart"
TIMEOUT = 240.0
STAGES = {
    "Starting": "Python, JVM, Spark session",
    "Ingesting": "files → Delta table",
    "Reading": "table → rows (executor)",
    "Training": "fit",
    "Evaluating": "metrics",
    "Logging": "model, plots, result to MLflow",
}
_STAGE = re.compile(r'"stage": ?"(\w+)"')
_LINE = re.compile(r"^  (\S.*?) +([0-9.]+) +([0-9.]+)$")


@dataclass(frozen=True)
class Run:
    """One round, in seconds."""

    before: list[tuple[str, float]]
    """From the request until the driver's container ran."""
    parts: list[tuple[str, float]]
    """From then on."""
    executor: list[tuple[str, float]]
    driver: list[tuple[str, float, float]]
    """The driver's own measurements: name, when it began, how long it took. Some overlap."""

    @property
    def seconds(self) -> float:
        """Driver started → registered."""
        return total(self.parts)


def stage(seen: Seen) -> str:
    """The stage that the driver has written on its pod; empty before it did."""
    annotations = seen.obj["metadata"].get("annotations") or {}
    found = _STAGE.search(annotations.get("lakeloop.io/progress", ""))
    return found[1] if found else ""


def measured(log: str) -> list[tuple[str, float, float]]:
    """The table at the end of the driver's log."""
    _, _, table = log.partition("where the time went (s)")
    found = (_LINE.match(line) for line in table.splitlines())
    return [(match[1], float(match[2]), float(match[3])) for match in found if match]


def lengths(moments: dict[str, float], begun: float) -> list[tuple[str, float]]:
    """How long each part took, from the moments at which they ended."""
    ends = list(moments.items())
    starts = [begun, *(at for _, at in ends)]
    return [(name, at - start) for (name, at), start in zip(ends, starts, strict=False)]


def train(cluster: Cluster, jobs: Watch, pods: Watch, name: str, model: str) -> Run:
    """Creates the TrainingJob and follows it to the registered model. Raises BenchError where the run fails."""
    spec: dict[str, Any] = quickstart.spec(name, model)
    cluster.create("TrainingJob", name, spec)
    stored = jobs.until(named(name, "ADDED"), TIMEOUT, name).at
    registered = jobs.until(lambda seen: named(name)(seen) and training_over(seen), TIMEOUT, f"the run of {name}").at

    def first(role: str, wanted: str, *phases: str) -> Seen:
        def holds(seen: Seen) -> bool:
            ours = labelled(seen, "lakeloop.io/training-job", name) and labelled(seen, "lakeloop.io/role", role)
            return ours and (not phases or pod_phase(seen.obj) in phases) and (wanted in ("", stage(seen)))

        return pods.until(holds, 5.0, f"{role} of {name} {phases} {wanted}")

    created, running = first("driver", ""), first("driver", "", "Running")
    entered = [first("driver", each).at for each in list(STAGES)[1:]]
    over = first("driver", "", "Succeeded").at
    ends = dict(zip(STAGES.values(), [*entered, over], strict=True))
    executor, ready = first("executor", ""), first("executor", "", "Running")
    log = cluster.kubectl("-n", NAMESPACE, "logs", created.obj["metadata"]["name"])
    return Run(
        lengths({"operator: request → pod": created.at, "node: pod → container": running.at}, stored),
        lengths({**ends, "operator: version registered, alias moved": registered}, running.at),
        lengths({"driver started → pod": executor.at, "pod → container": ready.at}, running.at),
        measured(log),
    )


def report(runs: list[Run]) -> Report:
    """What the rounds come to."""
    seconds = [each.seconds for each in runs]
    whole = [run.seconds + total(run.before) for run in runs]
    typical = sorted(runs, key=lambda each: each.seconds)[(len(runs) - 1) // 2]
    found = Report("quickstart")
    found.rows = [
        Row("quickstart run, driver started → model registered, median", "s", statistics.median(seconds), at_most=40.0),
        Row("quickstart run, created → model registered, median", "s", statistics.median(whole)),
    ]  # fmt: skip
    found.splits = [
        Split("Quickstart, before the driver runs, the median round", typical.before),
        Split("Quickstart, driver started → model registered, the same round", typical.parts),
        Split("Beside it, the executor", typical.executor),
    ]
    lines = [f"{name:<28} {begun:6.2f} {took:6.2f}" for name, begun, took in typical.driver]
    inside = "\n".join(["                              began   took", *lines])
    found.notes = [
        f"Quickstart, driver started → model registered, s: {spread(seconds)}. The untuned prototype took 84 s.",
        f"Inside the driver of the median round (what overlaps runs side by side), s:\n\n```\n{inside}\n```",
    ]
    return found


def main() -> None:
    """Runs one after the other."""
    parser = arguments(__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    cluster = Cluster(NAMESPACE)
    runs: list[Run] = []
    with cluster.own_namespace(), quickstart.raw_data(cluster):
        try:
            with cluster.watch("TrainingJob") as jobs, cluster.watch_pods() as pods:
                for number in range(options.rounds):
                    name = f"quickstart-{STAMP}-{number}"
                    runs.append(train(cluster, jobs, pods, name, MODEL))
                    say(f"round {number}: {runs[-1].seconds:.1f} s from driver started to model registered")
                    cluster.delete("TrainingJob", name)
                    jobs.until(named(name, "DELETED"), TIMEOUT, f"the end of {name}")
                    cluster.kubectl("-n", NAMESPACE, "wait", "pods", "--all", "--for=delete", "--timeout=60s")
        finally:
            cluster.forget_model(MODEL)
            for number in range(options.rounds):
                cluster.forget_experiment(f"{NAMESPACE}/quickstart-{STAMP}-{number}")
    finish(report(runs), options.json)


if __name__ == "__main__":
    run(main)
