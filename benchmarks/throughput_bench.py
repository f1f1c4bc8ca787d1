"""Many TrainingJobs at once, on an API server without nodes: driver pods created per minute, and the operator at rest.

    make up && uv run --project operator python benchmarks/throughput_bench.py [--jobs 500] [--idle 100 5000]

It is an admission rate: the API server (with its etcd) is one of the benchmark's own and has no node, and the benchmark
has each pod end well twenty seconds after it came, which is sooner than a driver on a node does. All else is real: the
operator's process, MLflow on PostgreSQL and MinIO of the cluster. The clock runs from before the first TrainingJob is
sent until a watch has seen the last driver pod. Beside it `spark-submit --deploy-mode cluster` on the same API server,
as many side by side as there are cores.

At rest: jobs that are done, first few, then many, and nothing that changes.
"""

import base64
import os
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import yaml
from cluster import STAMP, Cluster, empty_folder, run, run_of
from lake import Lake
from nodeless import (
    NAMESPACE,
    Nodeless,
    Tally,
    at_rest,
    completing,
    driver,
    operator,
    spec,
    telling,
    token_of,
    wait,
)
from report import Report, Row, arguments, finish, number
from submit_bench import restricted_template, spark_submit

from localcluster.apiserver import ApiServer

TABLE = "lakeloop-bench-throughput"
SUBMISSIONS = 6
RUN_SECONDS = 20.0
"""From a driver pod's creation to its end. The quickstart's takes 24 s."""


def submissions(server: ApiServer, folder: Path) -> float:
    """spark-submits per minute, side by side; the time to each one's end, which does not wait for the pod."""
    (folder / "token").write_text(token_of(server, "submitter"))
    about = yaml.safe_load(server.kubeconfig.read_text())["clusters"][0]["cluster"]
    ca = about.get("certificate-authority-data")
    (folder / "ca.crt").write_bytes(base64.b64decode(ca) if ca else Path(about["certificate-authority"]).read_bytes())
    prefix = "spark.kubernetes.authenticate.submission"
    settings = {
        "spark.kubernetes.namespace": NAMESPACE,
        "spark.kubernetes.container.image": "localhost/lakeloop/trainer:bench",
        "spark.kubernetes.driver.podTemplateFile": str(restricted_template(folder)),
        "spark.kubernetes.submission.waitAppCompletion": "false",
        f"{prefix}.oauthTokenFile": str(folder / "token"),
        f"{prefix}.caCertFile": str(folder / "ca.crt"),
    }
    command = spark_submit()

    def one(index: int) -> None:
        own = {**settings, "spark.kubernetes.driver.pod.name": f"spark-submit-{index}"}
        options = [part for key, value in own.items() for part in ("--conf", f"{key}={value}")]
        master = ["--master", f"k8s://{about['server']}", "--deploy-mode", "cluster", "--name", f"s{index}"]
        subprocess.run(
            [*command, *master, *options, "local:///none.py"],
            check=True,
            capture_output=True,
            env={**os.environ, "KUBECONFIG": os.devnull},
        )

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        begun = time.monotonic()
        list(pool.map(one, range(SUBMISSIONS)))
        return 60 * SUBMISSIONS / (time.monotonic() - begun)


def main() -> None:
    """The burst, spark-submit beside it, and the operator at rest."""
    parser = arguments(__doc__)
    parser.add_argument("--jobs", type=int, default=500, help="TrainingJobs applied at once")
    parser.add_argument("--idle", type=int, nargs=2, default=(100, 5000), help="idle jobs: few, and many")
    parser.add_argument("--rest", type=float, default=60.0, help="seconds of rest to look at the operator")
    options = parser.parse_args()
    cluster = Cluster("lakeloop-bench-throughput")
    lake = Lake.of(cluster)
    experiment = f"{TABLE}-{STAMP}"
    few, many = options.idle
    found = Report("throughput")

    def jobs_of(kind: str, count: int) -> dict[str, dict[str, Any]]:
        return {f"{kind}-{index}": spec(TABLE, experiment) for index in range(count)}

    with tempfile.TemporaryDirectory() as temporary, ApiServer() as server:
        folder = Path(temporary)
        nodeless = Nodeless(server, lake.keys, cluster.store())
        lake.write(TABLE, "overwrite")
        try:
            with (
                telling(operator(server, folder, cluster.mlflow_url, lake.endpoint)) as process,
                nodeless.jobs() as jobs,
                nodeless.pods() as pods,
                completing(nodeless, pods, RUN_SECONDS),
            ):
                nodeless.create(jobs_of("few", few))
                done = Tally(jobs, lambda seen: run_of(seen.obj).get("phase") == "Succeeded")
                started = Tally(pods, driver)
                wait("first jobs done", done, few)
                few_mib, few_cpu = at_rest(process, options.rest)
                begun, cpu = time.monotonic(), process.cpu_seconds()
                nodeless.create(jobs_of("burst", options.jobs))
                wait("driver pods", started, few + options.jobs)
                took = time.monotonic() - begun
                used = process.cpu_seconds() - cpu
                wait("jobs done", done, few + options.jobs)
                theirs = submissions(server, folder)
                if many > few + options.jobs:
                    nodeless.create(jobs_of("many", many - few - options.jobs))
                    wait("idle jobs", done, many)
                many_mib, many_cpu = at_rest(process, options.rest)
        finally:
            empty_folder(cluster.store(), "lake", f"{TABLE}/")
            cluster.forget_experiment(experiment)
    rate = 60 * options.jobs / took
    found.rows = [
        Row(f"{options.jobs} TrainingJobs at once: driver pods created per minute (an admission rate)", "pods/min",
            rate, theirs, "spark-submit", more_is_better=True, ratio_at_least=5.0),
        Row(f"operator with {few} idle TrainingJobs, resident", "MiB", few_mib),
        Row(f"operator with {many} idle TrainingJobs, resident", "MiB", many_mib, at_most=few_mib * 1.3),
        Row(f"operator with {many} idle TrainingJobs, of one core", "%", many_cpu, at_most=2.0),
    ]  # fmt: skip
    kept = "kept" if rate >= 900 else "not kept"
    found.notes = [
        f"{options.jobs} driver pods in {number(took)} s ({number(used)} s of CPU in the operator); promised are 900 a "
        f"minute: {kept}. Pods were made to end well {RUN_SECONDS:.0f} s after they came. "
        f"At rest with {few} jobs {number(few_cpu)} % of one core."
    ]
    finish(found, options.json)


if __name__ == "__main__":
    run(main)
