"""From the request to the driver pod: a TrainingJob beside `spark-submit --deploy-mode cluster`, on the same cluster.

    make up && uv run --project operator python benchmarks/submit_bench.py [--rounds 9]

Rounds alternate. Both clocks start before the first byte is sent (the TrainingJob's creation; the start of the
spark-submit process) and end when a watch on this machine sees the driver pod. The TrainingJob is the quickstart's, new
in each round, so that the time holds all that the operator does before: run number, file list, pinned inputs, MLflow
run, service account, role, settings. spark-submit makes a pod of the same image and looks at no program of it.

Neither pod ever starts: a node selector that no node meets keeps the machine quiet.
"""

import base64
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import quickstart
import yaml
from cluster import (
    KUBECONFIG,
    ROOT,
    STAMP,
    BenchError,
    Cluster,
    OperatorUse,
    Watch,
    labelled,
    named,
    operator_use,
    run,
    run_of,
)
from report import Report, Row, Split, arguments, finish, median_round, number, say, spread, total

NAMESPACE = "lakeloop-bench-submit"
MODEL = "lakeloop-bench-submit"
NOWHERE = {"lakeloop.io/bench": "no-node-has-this"}
TIMEOUT = 60.0
SETTLE_SECONDS = 1.0


@dataclass(frozen=True)
class Submission:
    """One spark-submit."""

    seconds: float
    peak_mib: float
    cpu_seconds: float


def restricted_template(folder: Path) -> Path:
    """A pod template that meets the restricted level, as a user of spark-submit has to write it."""
    container = {
        "name": "driver",
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    security = {"runAsNonRoot": True, "runAsUser": 10001, "seccompProfile": {"type": "RuntimeDefault"}}
    spec = {"securityContext": security, "containers": [container], "nodeSelector": NOWHERE}
    path = folder / "driver.yaml"
    path.write_text(yaml.safe_dump({"apiVersion": "v1", "kind": "Pod", "spec": spec}))
    return path


def spark_submit() -> list[str]:
    """PySpark's own command, of the trainer's lock."""
    uv = os.environ.get("UV", "uv")
    look = "import pyspark, sys; print(pyspark.__path__[0])"
    where = [uv, "run", "--quiet", "--frozen", "--project", str(ROOT / "images/trainer"), "python", "-c", look]
    home = subprocess.run(where, capture_output=True, text=True, check=True).stdout.strip()
    return [f"{home}/bin/spark-submit"]


def credentials(cluster: Cluster, folder: Path) -> dict[str, str]:
    """A user for spark-submit: a token. The kubeconfig's own key may be of a kind that Spark's client cannot read."""
    kubectl = cluster.kubectl
    kubectl("-n", NAMESPACE, "create", "serviceaccount", "submitter")
    user = f"--serviceaccount={NAMESPACE}:submitter"
    kubectl("-n", NAMESPACE, "create", "rolebinding", "submitter", "--clusterrole=edit", user)
    (folder / "token").write_text(kubectl("-n", NAMESPACE, "create", "token", "submitter", "--duration=2h"))
    about = yaml.safe_load(KUBECONFIG.read_text())["clusters"][0]["cluster"]
    (folder / "ca.crt").write_bytes(base64.b64decode(about["certificate-authority-data"]))
    prefix = "spark.kubernetes.authenticate.submission"
    return {f"{prefix}.oauthTokenFile": str(folder / "token"), f"{prefix}.caCertFile": str(folder / "ca.crt")}


def submission_settings(cluster: Cluster, folder: Path) -> dict[str, str]:
    """What a pod like the operator's takes, in spark-submit's words."""
    return {
        "spark.kubernetes.namespace": NAMESPACE,
        "spark.kubernetes.container.image": cluster.trainer_image(),
        "spark.kubernetes.driver.podTemplateFile": str(restricted_template(folder)),
        "spark.kubernetes.driver.podTemplateContainerName": "driver",
        "spark.kubernetes.submission.waitAppCompletion": "false",
        "spark.driver.memory": "1g",
        "spark.executor.instances": "1",
        **credentials(cluster, folder),
    }


def submit(command: list[str], cluster: Cluster, pods: Watch, name: str, settings: Mapping[str, str]) -> Submission:
    """Runs spark-submit to its end, which does not wait for the pod. Raises BenchError where it fails."""
    template = Path(settings["spark.kubernetes.driver.podTemplateFile"])
    own = {"spark.kubernetes.driver.pod.name": name}
    options = [part for key, value in {**settings, **own}.items() for part in ("--conf", f"{key}={value}")]
    full = [*command, "--master", f"k8s://{cluster.server}", "--deploy-mode", "cluster", "--name", name, *options]
    log = template.with_name(f"{name}.log")
    with log.open("wb") as out:
        begun = time.monotonic()
        process = subprocess.Popen(
            [*full, "local:///opt/lakeloop/none.py"],
            stdout=out,
            stderr=subprocess.STDOUT,
            env={**os.environ, "KUBECONFIG": os.devnull},
        )
        # Of the process and its children: bash, the launcher, the JVM that submits. The highest of them is the last.
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise BenchError(f"spark-submit failed: {log.read_text()[-2000:]}")
    seen = pods.until(named(name, "ADDED"), TIMEOUT, f"spark-submit's pod {name}")
    return Submission(seen.at - begun, used.ru_maxrss / 1024, used.ru_utime + used.ru_stime)


def declare(cluster: Cluster, jobs: Watch, pods: Watch, name: str) -> list[tuple[str, float]]:
    """Creates a TrainingJob. Returns how long each part took until its driver pod was there."""
    spec: dict[str, Any] = quickstart.spec(name, MODEL)
    spec["spark"] = {"driver": {"template": {"spec": {"nodeSelector": NOWHERE}}}}
    begun = time.monotonic()
    cluster.create("TrainingJob", name, spec)

    def status_has(key: str) -> float:
        wanted = lambda seen: named(name)(seen) and key in run_of(seen.obj)  # noqa: E731
        return jobs.until(wanted, TIMEOUT, f"status.run.{key} of {name}").at

    pod = pods.until(
        lambda seen: seen.type == "ADDED" and labelled(seen, "lakeloop.io/training-job", name),
        TIMEOUT,
        f"the driver pod of {name}",
    )
    moments = {
        "stored by the API server": jobs.until(named(name, "ADDED"), TIMEOUT, name).at,
        "run numbered": status_has("uid"),
        "files listed, inputs pinned": status_has("inputs"),
        "MLflow run made": status_has("mlflow"),
        "account, role, settings, driver pod": pod.at,
    }
    parts, before = [], begun
    for part, at in moments.items():
        parts.append((part, at - before))
        before = at
    return parts


def remove(cluster: Cluster, jobs: Watch, pods: Watch, job: str, pod: str) -> None:
    """Takes both sides' objects away, and waits until the operator has nothing left to do."""
    cluster.delete("TrainingJob", job)
    cluster.delete_pod(pod)
    jobs.until(named(job, "DELETED"), TIMEOUT, f"the end of {job}")
    pods.until(named(pod, "DELETED"), TIMEOUT, f"the end of {pod}")
    cluster.kubectl("-n", NAMESPACE, "wait", "pods", "--all", "--for=delete", "--timeout=60s")
    time.sleep(SETTLE_SECONDS)


def report(
    ours: list[list[tuple[str, float]]], theirs: list[Submission], uses: tuple[OperatorUse, OperatorUse]
) -> Report:
    """What the rounds come to."""
    before, after = uses
    took = [total(parts) for parts in ours]
    cpu = (after.cpu_seconds - before.cpu_seconds) / (len(ours) + 1)
    found = Report("submit")
    found.rows = [
        Row("request → driver pod created, median", "s", statistics.median(took),
            statistics.median(each.seconds for each in theirs), "spark-submit", at_most=1.0, ratio_at_least=5.0),
        Row("memory of what submits (peak resident)", "MiB", after.peak_mib,
            statistics.median(each.peak_mib for each in theirs), "spark-submit, each time"),
        Row("CPU of one submission", "s", cpu, statistics.median(each.cpu_seconds for each in theirs), "spark-submit"),
    ]  # fmt: skip
    found.splits = [Split("Request → driver pod created, the median round", median_round(ours))]
    found.notes = [
        f"Request → driver pod created, s: {spread(took)}; spark-submit {spread([each.seconds for each in theirs])}.",
        f"Operator's resident memory before and after {len(ours) + 1} submissions: {number(before.resident_mib)} and "
        f"{number(after.resident_mib)} MiB; its peak since its start: {number(after.peak_mib)} MiB.",
    ]
    return found


def main() -> None:
    """Alternates between the two, a first round of each not counted."""
    parser = arguments(__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    cluster, command = Cluster(NAMESPACE), spark_submit()
    ours: list[list[tuple[str, float]]] = []
    theirs: list[Submission] = []
    experiments: list[str] = []
    with tempfile.TemporaryDirectory() as folder, cluster.own_namespace(), quickstart.raw_data(cluster):
        settings = submission_settings(cluster, Path(folder))
        try:
            before = operator_use(cluster)
            with cluster.watch("TrainingJob") as jobs, cluster.watch_pods() as pods:
                for number_ in range(options.rounds + 1):
                    job, pod = f"submit-{STAMP}-{number_}", f"spark-submit-{number_}"
                    experiments.append(f"{NAMESPACE}/{job}")
                    parts = declare(cluster, jobs, pods, job)
                    submission = submit(command, cluster, pods, pod, settings)
                    remove(cluster, jobs, pods, job, pod)
                    say(f"round {number_}: TrainingJob {total(parts):.2f} s, spark-submit {submission.seconds:.2f} s")
                    if number_:
                        ours.append(parts)
                        theirs.append(submission)
            after = operator_use(cluster)
        finally:
            for experiment in experiments:
                cluster.forget_experiment(experiment)
    finish(report(ours, theirs, (before, after)), options.json)


if __name__ == "__main__":
    run(main)
