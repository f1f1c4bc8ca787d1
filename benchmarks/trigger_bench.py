"""From a Delta commit to the driver pod, with many tables watched, and what watching them costs the object store.

    make up && uv run --project operator python benchmarks/trigger_bench.py [--tables 200] [--commits 20]

As many TrainingJobs as tables, each with a trigger (`minCommits: 1`) on a table of its own, on an API server without
nodes, with the operator's own defaults. The commits are five rows each, by `deltalake`, one after the other, to tables
and after pauses drawn by lot. The clock begins when the writer has its commit and ends when a watch sees the driver
pod; the debounce is taken off (it is 0, unless another is asked for: a longer one hides the wait for the next look).

At rest, a proxy on loopback between operator and object store counts the requests.
"""

import random
import statistics
import tempfile
import time
import urllib.parse
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cluster import STAMP, Cluster, Object, Watch, empty_folder, labelled, run, run_of
from counting_proxy import CountingProxy, Request
from lake import Lake
from nodeless import Nodeless, Tally, completing, driver, operator, spec, telling, wait
from report import Report, Row, arguments, finish, number, say, spread

from localcluster.apiserver import ApiServer

FOLDER = "lakeloop-bench-trigger"
TIMEOUT = 60.0
LONGEST_PAUSE_SECONDS = 4.0
"""As long as from one look at a table to the next: commits must not keep step with them."""


def table(job: str) -> str:
    """Each job's own."""
    return f"{FOLDER}/{job}"


def commit(lake: Lake, pods: Watch, job: str, debounce: float) -> float:
    """One commit. Seconds until the driver pod, beyond the debounce."""
    lake.write(table(job), "append")
    committed = time.monotonic()
    # the pod of the job's first run was there before
    pod = pods.until(
        lambda seen: driver(seen) and labelled(seen, "lakeloop.io/training-job", job) and not first(seen.obj),
        TIMEOUT + debounce,
        f"the driver pod of {job}",
    )
    return pod.at - committed - debounce


def first(pod: Object) -> bool:
    """Whether it is of a job's first run."""
    labels = pod["metadata"]["labels"]
    return bool(labels["lakeloop.io/run"] == "1")


def report(took: list[float], tables: int, debounce: int, at_rest: list[Request], seconds: float, cpu: float) -> Report:
    """What was found."""
    kinds = Counter(each.kind for each in at_rest)
    per_table = 60 * len(at_rest) / seconds / tables
    found = Report("trigger")
    beyond = f"Delta commit → driver pod created, beyond the debounce, {tables} tables watched"
    found.rows = [
        Row(f"{beyond}, median", "s", statistics.median(took), at_most=5.0),
        Row(f"{beyond}, worst of {len(took)}", "s", max(took)),
        Row(f"object-store requests per table at rest, {tables} tables watched", "requests/min", per_table),
        Row(f"operator that watches {tables} tables at rest, of one core", "%", cpu),
    ]
    told = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common()) or "none"
    found.notes = [
        f"Delta commit → driver pod created, beyond a debounce of {debounce} s, s: {spread(took)}.",
        f"Requests to the object store over {number(seconds)} s at rest with {tables} tables: {told}.",
    ]
    return found


def main() -> None:
    """The tables, the jobs, a while of rest, the commits."""
    parser = arguments(__doc__)
    parser.add_argument("--tables", type=int, default=200, help="tables watched, each by a job of its own")
    parser.add_argument("--commits", type=int, default=20, help="at most as many as tables")
    parser.add_argument("--debounce", type=int, default=0, help="debounceSeconds")
    parser.add_argument("--rest", type=float, default=60.0, help="seconds in which requests are counted")
    options = parser.parse_args()
    cluster = Cluster("lakeloop-bench-trigger")
    lake = Lake.of(cluster)
    store = urllib.parse.urlparse(lake.endpoint)
    experiment, lot = f"{FOLDER}-{STAMP}", random.Random(0)  # noqa: S311 (no secret)
    names = [f"watched-{index}" for index in range(options.tables)]
    parts = {
        "triggers": {"delta": {"input": "points", "minCommits": 1, "debounceSeconds": options.debounce}},
        # pods that never run leave none, and to wait for them asks the store too
        "runPolicy": {"logs": {"tailBytes": 0}},
    }
    try:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda name: lake.write(table(name), "overwrite"), names))
        say(f"{len(names)} tables")
        with (
            tempfile.TemporaryDirectory() as folder,
            ApiServer() as server,
            CountingProxy(store.hostname or "", store.port or 80) as proxy,
        ):
            nodeless = Nodeless(server, lake.keys, cluster.store())
            with (
                telling(operator(server, Path(folder), cluster.mlflow_url, proxy.url)) as process,
                nodeless.jobs() as jobs,
                nodeless.pods() as pods,
                completing(nodeless, pods),
            ):
                nodeless.create({name: spec(table(name), experiment, **parts) for name in names})
                done = Tally(jobs, lambda seen: run_of(seen.obj).get("phase") == "Succeeded")
                wait("first runs done", done, len(names))
                time.sleep(options.rest / 4)  # what was under way is over
                begun, cpu = time.monotonic(), process.cpu_seconds()
                time.sleep(options.rest)
                ended, used = time.monotonic(), process.cpu_seconds() - cpu
                say(f"{len(proxy.between(begun, ended))} requests in {ended - begun:.0f} s of rest")
                took = []
                for job in lot.sample(names, options.commits):
                    time.sleep(lot.uniform(0, LONGEST_PAUSE_SECONDS))
                    took.append(commit(lake, pods, job, options.debounce))
                    say(f"commit to {job}: driver pod after {took[-1]:.2f} s")
    finally:
        empty_folder(cluster.store(), "lake", f"{FOLDER}/")
        cluster.forget_experiment(experiment)
    rest = ended - begun
    finish(
        report(took, len(names), options.debounce, proxy.between(begun, ended), rest, 100 * used / rest), options.json
    )


if __name__ == "__main__":
    run(main)
