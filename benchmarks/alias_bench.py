"""The registry's alias moves → every request is answered by the new version. And none is lost meanwhile.

    make up && uv run --project operator python benchmarks/alias_bench.py [--moves 5]

A ModelDeployment with one server follows an alias; the alias goes to and fro between two versions (one training, and
its files registered twice). Two callers ask the Service's NodePort all the time: one with a new connection for each
request, one that keeps its connection for as long as the server lets it. The clock begins before the registry is asked
to move the alias and ends with the last answer of the old version, which is known once its pods are gone.
"""

import http.client
import json
import statistics
import threading
import time
import urllib.parse
from dataclasses import dataclass, field
from typing import Any

import quickstart
from cluster import STAMP, BenchError, Cluster, Seen, Watch, labelled, named, run, training_over
from report import Report, Row, Split, arguments, finish, median_round, say, spread, total

from lakeloop.cli.demo import address, condition, fresh

NAMESPACE = "lakeloop-bench-alias"
MODEL = "lakeloop-bench-alias"
NAME = "served"
ALIAS = "champion"
TRAINED = f"trained-{STAMP}"
PAUSE_SECONDS = 0.02
TIMEOUT = 120.0


@dataclass(frozen=True)
class Answer:
    """Who answered, and when that was over."""

    at: float
    model: str


@dataclass
class Caller:
    """Asks without end, some fifty times a second; keeps every answer and every failure."""

    url: str
    keep_alive: bool
    answers: list[Answer] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    _over: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> "Caller":
        self._thread = threading.Thread(target=self._ask_on)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _ask_on(self) -> None:
        where = urllib.parse.urlparse(self.url)
        body = json.dumps({"dataframe_split": {"columns": ["feature"], "data": [[1]]}})
        headers = {"Content-Type": "application/json"}
        if not self.keep_alive:
            headers["Connection"] = "close"
        connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=10)
        while not self._over.is_set():
            try:
                connection.request("POST", "/invocations", body, headers)
                answer = connection.getresponse()
                answer.read()
                if answer.status == 200:
                    self.answers.append(Answer(time.monotonic(), answer.headers["x-lakeloop-model"]))
                else:
                    self.failures.append(f"HTTP {answer.status}")
                # Where the answer says that the server closes, the next request opens a new connection by itself.
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(repr(error))
                connection.close()
            self._over.wait(PAUSE_SECONDS)
        connection.close()

    def last_of(self, model: str) -> float:
        """When that version answered last."""
        return max(each.at for each in self.answers if each.model == model)


def serves(version: int) -> Any:
    """Whether a ModelDeployment serves that version, and nothing is under way."""

    def holds(seen: Seen) -> bool:
        obj = seen.obj
        stable = obj.get("status", {}).get("stable") or {}
        rolling = condition(obj, "RollingOut").get("status") == "True"
        return named(NAME)(seen) and fresh(obj) and stable.get("version") == version and not rolling

    return holds


def two_versions(cluster: Cluster) -> tuple[int, int]:
    """Trains once, and registers the same files again under the next number."""
    with cluster.watch("TrainingJob") as jobs:
        cluster.create("TrainingJob", TRAINED, quickstart.spec(TRAINED, MODEL))
        job = jobs.until(lambda seen: named(TRAINED)(seen) and training_over(seen), 300.0, "the training")
    number = int(job.obj["status"]["run"]["model"]["version"])
    first = cluster.mlflow("GET", "model-versions/get", name=MODEL, version=str(number))["model_version"]
    again = {key: first[key] for key in ("source", "run_id", "model_id") if first.get(key)}
    made = cluster.mlflow("POST", "model-versions/create", name=MODEL, tags=first["tags"], **again)["model_version"]
    return number, int(made["version"])


def pod_of(watch: Watch, version: int, since: float, phase: str) -> float:
    """When a server of that version, made since then, was created, running or ready."""

    def holds(seen: Seen) -> bool:
        status = seen.obj.get("status", {})
        ready = any(each["type"] == "Ready" and each["status"] == "True" for each in status.get("conditions", ()))
        reached = {"created": True, "running": status.get("phase") == "Running", "ready": ready}[phase]
        return seen.at >= since and reached and labelled(seen, "lakeloop.io/model-version", str(version))

    return watch.until(holds, TIMEOUT, f"a server of version {version} {phase}").at


def gone(cluster: Cluster, version: int) -> None:
    """Waits until no server of that version is left."""
    selector = f"lakeloop.io/model-version={version}"
    cluster.kubectl("-n", NAMESPACE, "wait", "pods", "-l", selector, "--for=delete", f"--timeout={TIMEOUT:.0f}s")


def move(
    cluster: Cluster, deployments: Watch, pods: Watch, callers: list[Caller], old: int, new: int
) -> tuple[list[float], list[tuple[str, float]]]:
    """One move. Seconds until the old version's last answer, for each caller; and the parts of the longest."""
    begun = time.monotonic()
    cluster.mlflow("POST", "registered-models/alias", name=MODEL, alias=ALIAS, version=str(new))
    moments = {
        "registry → server pod created": pod_of(pods, new, begun, "created"),
        "pod created → container running": pod_of(pods, new, begun, "running"),
        "container running → loaded, warm, ready": pod_of(pods, new, begun, "ready"),
    }
    deployments.until(lambda seen: seen.at >= begun and serves(new)(seen), TIMEOUT, f"version {new}")
    gone(cluster, old)
    last = [caller.last_of(f"{MODEL}/{old}") for caller in callers]
    moments["ready → last answer of the old version"] = max(last)
    parts, before = [], begun
    for name, at in moments.items():
        parts.append((name, at - before))
        before = at
    return [at - begun for at in last], parts


def report(moves: list[tuple[list[float], list[tuple[str, float]]]], callers: list[Caller]) -> Report:
    """What the moves come to."""
    new_connections, kept = ([each[0][i] for each in moves] for i in range(2))
    failures = [failure for caller in callers for failure in caller.failures]
    found = Report("alias")
    found.rows = [
        Row("alias moved → new version answers all, median", "s",
            statistics.median(total(parts) for _, parts in moves), at_most=10.0),
        Row("the same, for callers who connect anew each time, median", "s", statistics.median(new_connections)),
        Row("requests lost in all moves", "requests", len(failures), at_most=0),
    ]  # fmt: skip
    found.splits = [
        Split("Alias moved → new version answers all, the median move", median_round([parts for _, parts in moves]))
    ]
    answers = sum(len(caller.answers) for caller in callers)
    found.notes = [
        f"Alias moved → last answer of the old version, s: new connections {spread(new_connections)}; kept ones "
        f"{spread(kept)}. {answers} requests were answered meanwhile, {len(failures)} were not"
        + (f": {sorted(set(failures))}." if failures else "."),
    ]
    return found


def measure(cluster: Cluster, moves: int) -> Report:
    """To and fro, a first move not counted."""
    old, new = two_versions(cluster)
    cluster.mlflow("POST", "registered-models/alias", name=MODEL, alias=ALIAS, version=str(old))
    with cluster.watch("ModelDeployment") as deployments, cluster.watch_pods() as pods:
        cluster.create("ModelDeployment", NAME, {"model": {"name": MODEL, "alias": ALIAS}, "replicas": 1})
        deployments.until(serves(old), TIMEOUT, "the first roll-out")
        url = address(cluster.kubectl, NAME, NAMESPACE)
        found = []
        with Caller(url, keep_alive=False) as fresh_ones, Caller(url, keep_alive=True) as kept:
            callers = [fresh_ones, kept]
            for number in range(moves + 1):
                took, parts = move(cluster, deployments, pods, callers, old, new)
                say(f"move {number}: {took[0]:.1f} s for new connections, {took[1]:.1f} s for kept ones")
                if number:
                    found.append((took, parts))
                old, new = new, old
        for caller in callers:
            if not caller.answers:
                raise BenchError(f"{url} never answered: {caller.failures[:3]}")
    return report(found, callers)


def main() -> None:
    """Trains, serves, moves, and takes all of it away again."""
    parser = arguments(__doc__)
    parser.add_argument("--moves", type=int, default=5)
    options = parser.parse_args()
    cluster = Cluster(NAMESPACE)
    with cluster.own_namespace(), quickstart.raw_data(cluster):
        try:
            found = measure(cluster, options.moves)
        finally:
            cluster.forget_model(MODEL)
            cluster.forget_experiment(f"{NAMESPACE}/{TRAINED}")
    finish(found, options.json)


if __name__ == "__main__":
    run(main)
