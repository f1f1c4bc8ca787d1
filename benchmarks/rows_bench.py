"""Millions of rows: read and learned from per second, by scikit-learn and by Spark ML, and the most memory it took.

    make up && uv run --project operator python benchmarks/rows_bench.py [--rows 10000000] [--limit 600]

For each number of rows a run with a script makes a Delta table: ten columns of random numbers, and a class of two that
is a noisy sum of them. Two runs learn from it, one after the other, by standardising and a logistic regression: one
with scikit-learn (Spark reads, and hands the rows over to one process), one with Spark ML (the rows stay on the
executor). Both have one executor of two cores, and memory by the number of rows, as a user would give it.

Rows per second are those of the run's own metrics in MLflow: `lakeloop/read_seconds` (of all rows; with scikit-learn
until they are in its process, with Spark ML until they are counted and kept on the executor) and `lakeloop/fit_seconds`
(of the training rows). Memory is the most that the containers' control groups counted, the kernel's copies of files
included: the driver's as the run tells it, the executor's as it was seen last, every few seconds.

With several numbers of rows, a way to train that fails or takes longer than the limit is not tried with more.
"""

import math
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from cluster import STAMP, BenchError, Cluster, Watch, empty_folder, named, pod_phase, run, run_of, training_over
from lake import Lake
from report import Report, Row, arguments, finish, number, say

from lakeloop.cli.demo import DemoError

NAMESPACE = "lakeloop-bench-rows"
FOLDER = "lakeloop-bench-rows"
EXPERIMENT = f"{NAMESPACE}/{STAMP}"
COLUMNS = [f"x{index}" for index in range(10)]
ROW_BYTES = 8 * (len(COLUMNS) + 2)
LOOK_SECONDS = 3.0
MAKE_SECONDS = 900.0
EXECUTOR = {"instances": 1, "cores": 2}
MAKE = """
import sys

from lakeloop_run import spark

rows, uri = int(sys.argv[1]), sys.argv[2]
numbers = [f"randn({index}) AS x{index}" for index in range(10)]
total = " + ".join(f"x{index} * {(index - 4.5) / 5}" for index in range(10))
made = spark.range(0, rows, 1, max(2, rows // 1_000_000)).selectExpr(*numbers)
made.selectExpr("*", f"CAST({total} + randn(10) > 0 AS INT) AS target").write.format("delta").save(uri)
"""
WAYS: Mapping[str, Mapping[str, Any]] = {
    "sklearn": {
        "library": "sklearn",
        "steps": [
            {"class": "sklearn.preprocessing.StandardScaler"},
            {"class": "sklearn.linear_model.LogisticRegression"},
        ],
    },
    "spark": {
        "library": "spark",
        "steps": [
            {"class": "pyspark.ml.feature.StandardScaler", "params": {"withMean": True}},
            {"class": "pyspark.ml.classification.LogisticRegression"},
        ],
    },
}
NAMES = {"sklearn": "scikit-learn", "spark": "Spark ML"}


@dataclass(frozen=True)
class Learned:
    """One run: its own metrics, and MiB by role."""

    metrics: Mapping[str, float]
    seconds: float
    """From the request until the run was over."""
    memory: Mapping[str, float]
    given: str
    """How much memory its pods were given."""


def mebibytes(size: float) -> str:
    """As a quantity, rounded up."""
    return f"{math.ceil(size / 2**20)}Mi"


def memory(way: str, rows: int) -> dict[str, Any]:
    """`spec.spark` with room for the rows."""
    table = rows * ROW_BYTES
    if way == "sklearn":
        # the JVM hands no more over than 60 % of its heap; the process needs three times the rows
        heap = max(2**30, table / 0.6)
        driver = {"memory": mebibytes(heap), "memoryOverhead": mebibytes(heap / 4 + 400 * 2**20 + 3 * table)}
        return {"driver": driver, "executor": {**EXECUTOR, "memory": "2Gi"}}
    # on the executor they are kept twice: as they were read, and as the learner wants them
    executor = {**EXECUTOR, "memory": mebibytes(max(2 * 2**30, 4 * table))}
    return {"driver": {"memory": "1Gi", "memoryOverhead": "600Mi"}, "executor": executor}


def table_of(rows: int) -> str:
    """Below the bucket."""
    return f"{FOLDER}/{rows}"


def made_by(rows: int) -> dict[str, Any]:
    """The TrainingJob that makes the table. It has to have an input, and reads nothing of it."""
    return {
        "inputs": [{"name": "none", "uri": f"s3a://lake/{FOLDER}/none"}],
        "script": {
            "configMapRef": {"name": "make"},
            "path": "make.py",
            "args": [str(rows), f"s3a://lake/{table_of(rows)}"],
        },
        "tracking": {"experiment": EXPERIMENT},
        "spark": {"executor": {**EXECUTOR, "memory": "2Gi"}},
        "runPolicy": {"retries": {"infrastructure": 0}, "activeDeadlineSeconds": int(MAKE_SECONDS)},
    }


def learned_by(way: str, rows: int, limit: float) -> dict[str, Any]:
    """The TrainingJob that learns from it."""
    return {
        "inputs": [{"name": "points", "uri": f"s3a://lake/{table_of(rows)}"}],
        "dataset": {"target": "target"},
        "estimator": dict(WAYS[way]),
        "tracking": {"experiment": EXPERIMENT},
        "spark": memory(way, rows),
        "runPolicy": {
            "retries": {"infrastructure": 0},
            "activeDeadlineSeconds": int(limit),
            "startDeadlineSeconds": 60,  # a pod for which the node has no room
        },
    }


class Memory:
    """Looks into the running pods every few seconds for the most memory that their control groups counted."""

    FILES = ("/sys/fs/cgroup/memory.peak", "/sys/fs/cgroup/memory/memory.max_usage_in_bytes")

    def __init__(self, cluster: Cluster, pods: Watch) -> None:
        self.cluster, self.pods = cluster, pods
        self.mib: dict[str, float] = {}
        self._over = threading.Event()

    @contextmanager
    def watching(self, job: str) -> Iterator[None]:
        """While a run of the job is on."""
        thread = threading.Thread(target=self._watch, args=(job,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            thread.join(30)

    def _watch(self, job: str) -> None:
        while not self._over.wait(LOOK_SECONDS):
            for name, role in self._running(job).items():
                with suppress(DemoError, ValueError):  # it ended meanwhile
                    command = ["cat", *self.FILES]
                    shell = f"{' '.join(command)} 2>/dev/null | head -1"
                    where = ("-n", self.cluster.namespace, "exec", name, "-c", role, "--", "sh", "-c", shell)
                    self.mib[role] = max(self.mib.get(role, 0.0), int(self.cluster.kubectl(*where)) / 2**20)

    def _running(self, job: str) -> dict[str, str]:
        """Roles of the job's running pods, by name."""
        newest = {seen.obj["metadata"]["name"]: seen for seen in self.pods.events()}
        labels = {name: seen.obj["metadata"].get("labels", {}) for name, seen in newest.items()}
        return {
            name: labels[name]["lakeloop.io/role"]
            for name, seen in newest.items()
            if labels[name].get("lakeloop.io/training-job") == job
            and seen.type != "DELETED"
            and pod_phase(seen.obj) == "Running"
        }


def follow(cluster: Cluster, jobs: Watch, name: str, spec: Mapping[str, Any], limit: float) -> tuple[float, Any]:
    """Seconds of the job's run, and its end. Raises BenchError where it fails or takes too long."""
    cluster.create("TrainingJob", name, spec)
    begun = jobs.until(named(name, "ADDED"), 30.0, name).at
    over = jobs.until(lambda seen: named(name)(seen) and training_over(seen), limit + 120.0, f"the run of {name}")
    return over.at - begun, over.obj


def forget(cluster: Cluster, jobs: Watch, name: str) -> None:
    """Takes the job and its pods away: their memory is the next one's."""
    cluster.delete("TrainingJob", name)
    jobs.until(named(name, "DELETED"), 120.0, f"the end of {name}")
    cluster.kubectl("-n", NAMESPACE, "wait", "pods", "--all", "--for=delete", "--timeout=120s")


def learn(cluster: Cluster, jobs: Watch, pods: Watch, way: str, rows: int, limit: float) -> Learned:
    """One run. Raises BenchError where it fails or takes too long."""
    name, seen = f"{way}-{rows}-{STAMP}", Memory(cluster, pods)
    spec = learned_by(way, rows, limit)
    try:
        with seen.watching(name):
            seconds, job = follow(cluster, jobs, name, spec, limit)
        told = cluster.mlflow("GET", "runs/get", run_id=run_of(job)["mlflow"]["runId"])["run"]["data"]["metrics"]
    finally:
        forget(cluster, jobs, name)
    metrics = {each["key"]: float(each["value"]) for each in told}
    peak = metrics.get("lakeloop/driver_memory_peak_bytes", 0.0) / 2**20
    found = {**seen.mib, "driver": max(peak, seen.mib.get("driver", 0.0))}
    driver, executor = spec["spark"]["driver"], spec["spark"]["executor"]
    given = f"driver {driver['memory']} and {driver['memoryOverhead']} beside its heap, executor {executor['memory']}"
    return Learned(metrics, seconds, found, given)


def rows_of(way: str, rows: int, found: Learned) -> list[Row]:
    """The figures of one run."""
    what = f"{rows / 1e6:g} million rows, {NAMES[way]}"
    train = rows * 0.8  # the split's default
    return [
        Row(f"{what}: read", "rows/s", rows / found.metrics["lakeloop/read_seconds"], more_is_better=True),
        Row(f"{what}: trained", "rows/s", train / found.metrics["lakeloop/fit_seconds"], more_is_better=True),
        Row(f"{what}: created → over", "s", found.seconds),
        *(Row(f"{what}: memory peak, {role}", "MiB", mib) for role, mib in sorted(found.memory.items())),
    ]


def note(way: str, rows: int, found: Learned) -> str:
    """Where the time of one run went."""
    parts = ", ".join(
        f"{part} {number(found.metrics[f'lakeloop/{part}_seconds'])}"
        for part in ("read", "fit", "evaluate")
        if f"lakeloop/{part}_seconds" in found.metrics
    )
    return (
        f"{rows / 1e6:g} million rows, {NAMES[way]}: {number(found.seconds)} s from request to end, of these {parts}; "
        f"ROC AUC of the test rows {found.metrics['test_roc_auc']:.4f}; memory given: {found.given}."
    )


def main() -> None:
    """For each number of rows: makes the table, learns from it each way, takes it away."""
    parser = arguments(__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000_000], help="in rising order")
    parser.add_argument("--limit", type=float, default=600.0, help="seconds that a run may take")
    options = parser.parse_args()
    cluster, found = Cluster(NAMESPACE), Report("rows")
    lake, ways = Lake.of(cluster), list(WAYS)
    try:
        lake.write(f"{FOLDER}/none", "overwrite")
        with cluster.own_namespace(), cluster.watch("TrainingJob") as jobs, cluster.watch_pods() as pods:
            cluster.config_map("make", {"make.py": MAKE})
            for rows in options.rows:
                if not ways:
                    break
                made = f"make-{rows}-{STAMP}"
                seconds, _ = follow(cluster, jobs, made, made_by(rows), MAKE_SECONDS)
                forget(cluster, jobs, made)
                say(f"{rows} rows made in {seconds:.0f} s")
                for way in list(ways):
                    try:
                        learned = learn(cluster, jobs, pods, way, rows, options.limit)
                    except BenchError as error:
                        ways.remove(way)
                        found.notes.append(f"{NAMES[way]} stops scaling here at {rows / 1e6:g} million rows: {error}.")
                        say(found.notes[-1])
                        continue
                    found.rows += rows_of(way, rows, learned)
                    found.notes.append(note(way, rows, learned))
                    say(found.notes[-1])
                empty_folder(cluster.store(), "lake", f"{table_of(rows)}/")
    finally:
        empty_folder(cluster.store(), "lake", f"{FOLDER}/")
        cluster.forget_experiment(EXPERIMENT)
    if not found.rows:
        raise BenchError(" ".join(found.notes))
    finish(found, options.json)


if __name__ == "__main__":
    run(main)
