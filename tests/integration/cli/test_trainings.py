"""`kubectl lakeloop` as its user runs it: a real API server, MLflow and a store behind port-forwards.

Only the kubelet is not real: logs and forwards of pods come from `fake_kubelet`.
"""

import importlib.util
import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from fake_kubelet import FakeKubelet
from kubectl import Kubectl, eventually
from mlflow_process import MlflowProcess

from builders import training_job_dict
from lakeloop.cli.commands import cli
from localcluster.apiserver import ApiServer, certificates_dir

NAMESPACE = "cli-trainings"
NODE = "cli-node"
ROOT = Path(__file__).parents[3]
TABLE = "s3a://lake/sales.db/customers"
ME = {"metadata": {"namespace": NAMESPACE}}


def s3_stub() -> ModuleType:
    """The store in memory that the trainer's image is built with."""
    spec = importlib.util.spec_from_file_location("s3_stub", ROOT / "images/trainer/cds/s3_stub.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["s3_stub"] = module
    spec.loader.exec_module(module)
    return module


@dataclass
class Done:
    """What a command left."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)


@dataclass
class Place:
    """One namespace with a platform in it."""

    kubectl: Kubectl
    kubelet: FakeKubelet
    mlflow_url: str
    objects: dict[str, bytes]
    pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1))

    def command(self, *words: str) -> list[str]:
        # The program that is installed beside this Python, as kubectl finds it on PATH.
        program = Path(sys.executable).with_name("kubectl-lakeloop")
        options = ["--kubeconfig", str(self.kubectl.kubeconfig)]
        own = [] if words[0] in ("completion", "__complete") else options
        return [str(program), *words, *own]

    def __call__(self, *words: str) -> Done:
        """In this process: a new one takes a second to import its clients."""
        done = CliRunner().invoke(cli, self.command(*words)[1:], prog_name="kubectl-lakeloop")
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exc_info
        return Done(done.exit_code, done.stdout, done.stderr)

    def starts(self, *words: str) -> "Future[Done]":
        """While the test does the operator's part."""
        return self.pool.submit(self, *words)

    def process(self, *words: str) -> "subprocess.Popen[str]":
        """The program itself, whose output is read while it runs."""
        return subprocess.Popen(self.command(*words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def mlflow(self, path: str, **values: Any) -> Mapping[str, Any]:
        """POST to MLflow itself, past the forward."""
        request = urllib.request.Request(
            f"{self.mlflow_url}/api/2.0/mlflow/{path}",
            json.dumps(values).encode(),
            {"Content-Type": "application/json", "Host": f"mlflow.{NAMESPACE}.svc:5000"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            found: Mapping[str, Any] = json.load(answer)
        return found

    def status(self, name: str, **status: Any) -> None:
        self.kubectl.patch_status("trainingjob", name, status)

    def job(self, name: str, **parts: Any) -> None:
        self.kubectl.apply(training_job_dict(name, **parts, **{"metadata": {"namespace": NAMESPACE, "uid": None}}))

    def pod(self, name: str, labels: Mapping[str, str], container: str, port: int = 0, phase: str = "Running") -> None:
        """A pod that is ready, or over, by its status alone."""
        ports = {"ports": [{"name": "http", "containerPort": port}]} if port else {}
        meta = {"name": name, "namespace": NAMESPACE, "labels": dict(labels)}
        spec = {"nodeName": NODE, "containers": [{"name": container, "image": "x", **ports}]}
        self.kubectl.apply({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec})
        self.pod_status(name, container, phase)

    def pod_status(self, name: str, container: str, phase: str) -> None:
        now = "2026-11-25T12:00:00Z"
        states = {"Running": {"running": {"startedAt": now}}, "Pending": {"waiting": {"reason": "ErrImagePull"}}}
        state = states.get(phase, {"terminated": {"exitCode": 0}})
        one = {"name": container, "image": "x", "imageID": "x", "ready": True, "restartCount": 0, "state": state}
        ready = [{"type": "Ready", "status": "True"}]
        status = {"phase": phase, "conditions": ready, "containerStatuses": [one]}
        self.kubectl.patch_status("pod", name, status)

    def driver(self, job: str, number: int, attempt: int, phase: str = "Running") -> str:
        """A driver pod of a run."""
        name = f"{job}-{number}-{attempt}-driver"
        labels = {
            "app.kubernetes.io/managed-by": "lakeloop",
            "lakeloop.io/training-job": job,
            "lakeloop.io/run": str(number),
            "lakeloop.io/attempt": str(attempt),
            "lakeloop.io/role": "driver",
        }
        self.pod(name, labels, "driver", phase=phase)
        return name

    def tracked(
        self, job: str, number: int, *, metric: float, c: str = "1", table: int = 3, **more: str
    ) -> dict[str, Any]:
        """A run in MLflow with its model in the store, as operator and driver leave them; the run of its status."""
        experiment = f"{NAMESPACE}/{job}"
        try:
            experiment_id = self.mlflow("experiments/create", name=experiment)["experiment_id"]
        except urllib.error.HTTPError:
            path = f"{self.mlflow_url}/api/2.0/mlflow/experiments/get-by-name?experiment_name={experiment}"
            request = urllib.request.Request(path, headers={"Host": f"mlflow.{NAMESPACE}.svc:5000"})
            with urllib.request.urlopen(request, timeout=30) as answer:
                experiment_id = json.load(answer)["experiment"]["experiment_id"]
        uid = f"{job}-{number}"
        own = {
            "run-uid": uid, "training-job": f"{NAMESPACE}/{job}", "run": str(number), "trigger": "Manual",
            "code-digest": f"sha256:code-of-{c}", "spec-hash": "abc", "seed": "7", "image": "trainer:1", **more,
        }  # fmt: skip
        tags = [{"key": f"lakeloop.io/{key}", "value": value} for key, value in own.items()]
        run = self.mlflow(
            "runs/create", experiment_id=experiment_id, run_name=uid, start_time=1_800_000_000_000, tags=tags
        )["run"]["info"]
        metrics = {"test_roc_auc": metric, "roc_auc": metric}
        self.mlflow(
            "runs/log-batch",
            run_id=run["run_id"],
            params=[{"key": "0.C", "value": c}, {"key": "dataset.rows.train", "value": "455"}],
            metrics=[{"key": key, "value": value, "timestamp": 1, "step": 0} for key, value in metrics.items()],
        )
        self.mlflow("runs/update", run_id=run["run_id"], status="FINISHED", end_time=1_800_000_100_000)
        model = f"models/{uid}"
        artifacts = run["artifact_uri"].removeprefix("s3://mlflow/")
        written = {
            "inputs": [{"name": "customers", "uri": TABLE}],
            "dataset": {"target": "churned"},
            "estimator": {"steps": [{"class": "sklearn.linear_model.LogisticRegression"}]},
            "register": {"model": job},
            "spark": {},
        }
        result = {"model": {"artifactUri": f"s3://mlflow/{model}", "digest": f"sha256:{uid}"}, "metrics": metrics}
        self.objects |= {
            f"{artifacts}/lakeloop/run.json": json.dumps(
                {"written": written, "tracking": {"experiment": experiment}}
            ).encode(),
            f"{artifacts}/lakeloop/result.json": json.dumps(result).encode(),
            f"{model}/MLmodel": f"run_id: {run['run_id']}\nflavors: {{sklearn: {{}}}}\n".encode(),
            f"{model}/model.pkl": f"coefficients for {c}".encode(),
            f"{model}/requirements.txt": b"scikit-learn==1.8.0\n",
            f"{model}/python_env.yaml": b"python: 3.11.14\n",
        }
        return {
            "number": number,
            "uid": uid,
            "trigger": "Manual",
            "phase": "Succeeded",
            "attempt": 1,
            "inputs": [{"name": "customers", "uri": TABLE, "version": table}],
            "metrics": metrics,
            "mlflow": {"runId": run["run_id"], "url": f"http://mlflow/{run['run_id']}"},
            "startTime": "2026-11-25T12:00:00Z",
            "completionTime": "2026-11-25T12:00:45Z",
        }

    def registered(self, job: str, run: Mapping[str, Any], version: int) -> dict[str, Any]:
        """The run's model in the registry; the run with it."""
        if version == 1:
            self.mlflow("registered-models/create", name=job)
        (table,) = run["inputs"]
        own = {
            "training-job": f"{NAMESPACE}/{job}",
            "run": str(run["number"]),
            "metric.roc_auc": repr(run["metrics"]["roc_auc"]),
            "input.customers": f"{table['uri']}@{table['version']}",
            "digest": f"sha256:{run['uid']}",
            "image": "trainer:1",
            "image-id": "sha256:image",
        }
        tags = [{"key": f"lakeloop.io/{key}", "value": value} for key, value in own.items()]
        made = self.mlflow(
            "model-versions/create",
            name=job,
            source=f"s3://mlflow/models/{run['uid']}",
            run_id=run["mlflow"]["runId"],
            tags=tags,
        )
        assert made["model_version"]["version"] == str(version)
        digest = f"sha256:{run['uid']}"
        return {**run, "model": {"name": job, "version": version, "uri": "x", "digest": digest}}


@pytest.fixture(scope="module")
def place(apiserver: ApiServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """The namespace, its platform and its kubelet, for all tests here."""
    folder = tmp_path_factory.mktemp("cli")
    content = yaml.safe_load(apiserver.kubeconfig.read_text())
    content["contexts"][0]["context"]["namespace"] = NAMESPACE
    kubeconfig = folder / "kubeconfig"
    kubeconfig.write_text(yaml.safe_dump(content))
    kubectl = Kubectl(apiserver.kubectl, kubeconfig, NAMESPACE)
    certificates = certificates_dir()
    store, endpoint = s3_stub().serve({})
    with (
        FakeKubelet(certificates / "apiserver.crt", certificates / "apiserver.key") as kubelet,
        MlflowProcess(folder, f"mlflow.{NAMESPACE}.svc:5000") as mlflow,
    ):
        kubectl.create_namespace(NAMESPACE)
        kubectl.storage_secret()
        kubectl.apply({"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}})
        addresses = [{"type": "InternalIP", "address": "127.0.0.1"}, {"type": "Hostname", "address": "127.0.0.1"}]
        node = {"addresses": addresses, "daemonEndpoints": {"kubeletEndpoint": {"Port": kubelet.port}}}
        kubectl.patch_status("node", NODE, node)
        made = Place(kubectl, kubelet, mlflow.uri, store.RequestHandlerClass.objects)
        platform = (("mlflow", 5000, mlflow.uri), ("minio", 9000, endpoint))
        for name, port, url in platform:
            labels = {"app": name}
            spec = {"selector": labels, "ports": [{"name": "http", "port": port, "targetPort": "http"}]}
            meta = {"name": name, "namespace": NAMESPACE}
            kubectl.apply({"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": spec})
            made.pod(f"{name}-0", labels, name, port)
            kubelet.ports[f"{name}-0", port] = int(url.rpartition(":")[2])
        kubectl.apply(operator_deployment())
        yield made
    store.shutdown()


def operator_deployment() -> dict[str, Any]:
    """As far as the command line reads it."""
    env = {
        "LAKELOOP_TRACKING_URI": f"http://mlflow.{NAMESPACE}.svc:5000",
        "LAKELOOP_TRACKING_UI_URL": "http://node:30500",
        "LAKELOOP_STORAGE_ENDPOINT": f"http://minio.{NAMESPACE}.svc:9000",
    }
    container = {"name": "operator", "image": "x", "env": [{"name": k, "value": v} for k, v in env.items()]}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "lakeloop-operator", "namespace": NAMESPACE},
        "spec": {
            "selector": {"matchLabels": {"app": "operator"}},
            "template": {"metadata": {"labels": {"app": "operator"}}, "spec": {"containers": [container]}},
        },
    }


TO_THE_PLATFORM = ("--operator-namespace", NAMESPACE)


def ends(asked: "Future[Done]") -> Done:
    return asked.result(150)


# -- runs, run, stop


def test_runs(place: Place) -> None:
    place.job("listed")
    run = {"number": 1, "uid": "u", "trigger": "SpecChange", "phase": "Running", "attempt": 2,
           "progress": {"percent": 40}, "startTime": "2026-11-25T12:00:00Z"}  # fmt: skip
    place.status("listed", run=run)
    done = place("runs", "listed")
    assert done.code == 0, done.err
    title, line = done.out.splitlines()
    assert title.split()[:4] == ["JOB", "RUN", "TRIGGER", "PHASE"]
    assert line.split()[:5] == ["listed", "1", "SpecChange", "Running", "40%"]
    everywhere = place("runs", "-A", "-o", "json").document
    assert everywhere["kind"] == "RunList"
    found = [each for each in everywhere["items"] if (each["namespace"], each["job"]) == (NAMESPACE, "listed")]
    assert [each["attempt"] for each in found] == [2]
    assert yaml.safe_load(place("runs", "listed", "-o", "yaml").out)["items"] == found or found


def test_what_is_not_there_is_told_in_a_sentence(place: Place) -> None:
    for words in (("runs", "nobody"), ("run", "nobody"), ("stop", "nobody"), ("logs", "nobody")):
        done = place(*words)
        assert done.code == 1
        assert f"there is no TrainingJob nobody in namespace {NAMESPACE}" in done.err
        assert "Traceback" not in done.err
    assert place("runs", "-n", "empty").err.strip() == "No runs in namespace empty."
    assert place("diff", "one").code == 1
    assert place("runs", "--frob").code == 2


def answers_run_now(place: Place, name: str, **outcome: Any) -> None:
    """The operator's part: takes the action, and the run ends like this."""

    def asked() -> str:
        annotations = place.kubectl.get("trainingjob", name)["metadata"].get("annotations") or {}
        return str(annotations.get("lakeloop.io/run-now", ""))

    eventually(lambda: bool(asked()))
    run = {"number": 2, "uid": "u2", "trigger": "Manual", "triggerKey": asked(), "attempt": 1,
           "startTime": "2026-11-25T12:00:00Z"}  # fmt: skip
    place.status(name, lastHandled={"run-now": asked()}, run={**run, "phase": "Running", "progress": {"percent": 40}})
    time.sleep(0.7)  # the command looks every half second; it may miss this, and that does not matter
    place.status(name, run={**run, "completionTime": "2026-11-25T12:00:45Z", "progress": None, **outcome})


def test_run_waits_for_the_run_that_it_started(place: Place) -> None:
    place.job("awaited")
    waiting = place.starts("run", "awaited", "--wait")
    metrics = {"test_roc_auc": 0.91, "roc_auc": 0.91}
    answers_run_now(
        place, "awaited", phase="Succeeded", metrics=metrics, model={"name": "churn", "version": 3, "uri": "x"}
    )
    done = ends(waiting)
    assert done.code == 0, done.err
    assert "run 2 Succeeded after 45s" in done.out
    assert "roc_auc 0.91" in done.out
    assert "churn/3" in done.out


def test_a_run_that_fails_is_exit_code_1_and_says_why(place: Place) -> None:
    place.job("failing")
    waiting = place.starts("run", "failing", "--wait")
    failure = {
        "class": "Data",
        "reason": "ColumnNotFound",
        "message": "there is no column x",
        "field": "spec.dataset.target",
    }
    answers_run_now(place, "failing", phase="Failed", failure=failure)
    done = ends(waiting)
    assert done.code == 1
    assert "Data/ColumnNotFound: spec.dataset.target: there is no column x" in done.out


def test_run_gives_up_after_its_timeout(place: Place) -> None:
    place.job("ignored")
    done = place("run", "ignored", "--wait", "--timeout", "1")
    assert done.code == 1
    assert "is not over after 1 s" in done.err
    assert place.kubectl.get("trainingjob", "ignored")["metadata"]["annotations"]["lakeloop.io/run-now"]


def test_stop(place: Place) -> None:
    place.job("stopped")
    assert "No run of stopped is at work." in place("stop", "stopped").err
    run = {"number": 1, "uid": "u", "trigger": "SpecChange", "attempt": 1, "startTime": "2026-11-25T12:00:00Z"}
    place.status("stopped", run={**run, "phase": "Running"})
    waiting = place.starts("stop", "stopped", "--wait")

    def asked() -> bool:
        return "lakeloop.io/stop" in place.kubectl.get("trainingjob", "stopped")["metadata"].get("annotations", {})

    eventually(asked)
    place.status("stopped", run={**run, "phase": "Stopped"})
    done = ends(waiting)
    assert (done.code, done.out.strip()) == (0, "run 1 of stopped: Stopped")


def test_completion_of_the_names_of_jobs(place: Place) -> None:
    place.job("completed-one")
    words = ("__complete", "runs", "--kubeconfig", str(place.kubectl.kubeconfig), "completed")
    assert place(*words).out.splitlines() == ["completed-one", ":4"]
    assert place("__complete", "runs", "--kubeconfig", "/nowhere", "c").out.splitlines() == [":4"]
    for shell in ("bash", "zsh", "fish", "kubectl"):
        assert "kubectl-lakeloop" in place("completion", shell).out


# -- logs


def test_logs_while_the_pod_is_there(place: Place) -> None:
    place.job("told")
    place.status("told", run={"number": 1, "uid": "u", "trigger": "Manual", "phase": "Succeeded", "attempt": 1})
    pod = place.driver("told", 1, 1, "Succeeded")
    place.kubelet.logs[pod, "driver"] = ["one", "two [bold]", "three"]
    assert place("logs", "told").out == "one\ntwo [bold]\nthree\n"
    assert place("logs", "told", "--tail", "1").out == "three\n"
    assert place("logs", "told", "--all").out == "[driver] one\n[driver] two [bold]\n[driver] three\n"
    assert place("logs", "told", "-f").out == "one\ntwo [bold]\nthree\n"
    assert "told has no run 7; there is 1" in place("logs", "told", "--run", "7").err


def test_logs_are_followed_over_attempts_until_the_run_is_over(place: Place) -> None:
    place.job("followed")
    run = {"number": 1, "uid": "u", "trigger": "Manual", "attempt": 1}
    place.status("followed", run={**run, "phase": "Running"})
    first = place.driver("followed", 1, 1)
    lines = place.kubelet.logs.setdefault((first, "driver"), ["first"])
    place.kubelet.running.add(first)
    following = place.process("logs", "followed", "-f")
    assert following.stdout is not None
    assert following.stdout.readline() == "first\n"
    lines.append("evicted")
    assert following.stdout.readline() == "evicted\n"
    place.pod_status(first, "driver", "Failed")
    place.kubelet.running.discard(first)
    place.status("followed", run={**run, "phase": "Pending", "attempt": 2})
    second = place.driver("followed", 1, 2)
    place.kubelet.logs[second, "driver"] = ["second"]
    assert following.stdout.readline() == "second\n"
    place.pod_status(second, "driver", "Succeeded")
    place.status("followed", run={**run, "phase": "Succeeded", "attempt": 2})
    out, err = following.communicate(timeout=150)
    assert (following.returncode, out) == (0, "")
    assert "--- driver, attempt 2" in err


def test_logs_of_a_pod_that_never_started(place: Place) -> None:
    place.job("stuck")
    failure = {"class": "Submission", "reason": "ErrImagePull", "message": "no such image"}
    run = {"number": 1, "uid": "u", "trigger": "Manual", "phase": "Failed", "attempt": 1, "failure": failure}
    place.status("stuck", run=run)
    place.pod_status(place.driver("stuck", 1, 1), "driver", "Pending")
    for words in (("logs", "stuck"), ("logs", "stuck", "-f")):
        done = place(*words)
        assert (done.code, done.out) == (0, "")
        assert "started: Failed" in done.err


def test_logs_of_a_run_that_left_the_history(place: Place) -> None:
    place.job("forgotten")
    place.tracked("forgotten", 1, metric=0.8, logs="s3a://mlflow/logs/forgotten-1")
    place.status("forgotten", run={"number": 2, "uid": "u", "trigger": "Manual", "phase": "Succeeded", "attempt": 1})
    place.objects["logs/forgotten-1/driver-1.000001.log"] = b"long ago\n"
    done = place("logs", "forgotten", "--run", "1", *TO_THE_PLATFORM)
    assert done.out == "long ago\n", done.err


def test_logs_outlive_the_pods(place: Place) -> None:
    place.job("archived")
    run = {"number": 1, "uid": "u", "trigger": "Manual", "phase": "Succeeded", "attempt": 2}
    place.status("archived", run=run)
    assert "was not archived" in place("logs", "archived", *TO_THE_PLATFORM).err
    place.status("archived", run={**run, "logs": {"uri": "s3a://mlflow/logs/archived-1", "complete": True}})
    assert "there is nothing" in place("logs", "archived", *TO_THE_PLATFORM).err
    place.objects |= {
        "logs/archived-1/driver-1.000001.log": b"the first attempt\n",
        "logs/archived-1/driver-1.json": b'{"complete": false}',
        "logs/archived-1/driver-2.000001.log": b"one\ntw",
        "logs/archived-1/driver-2.000002.log": b"o\nthree\n",
        "logs/archived-1/driver-2.json": b'{"complete": true}',
        "logs/archived-1/executor-2-1.000001.log": b"work\n",
        "logs/archived-1/executor-2-1.json": b'{"complete": true}',
        "logs/archived-1/events/eventlog_v2_x/events_1_x": b"{}",
    }
    done = place("logs", "archived", *TO_THE_PLATFORM)
    assert (done.code, done.out, done.err) == (0, "one\ntwo\nthree\n", "")
    assert place("logs", "archived", "--tail", "1", *TO_THE_PLATFORM).out == "three\n"
    assert place("logs", "archived", "--executor", "1", *TO_THE_PLATFORM).out == "work\n"
    first = place("logs", "archived", "--attempt", "1", *TO_THE_PLATFORM)
    assert first.out == "the first attempt\n"
    assert "the end is missing" in first.err
    assert place("logs", "archived", "-f", "--all", *TO_THE_PLATFORM).out.splitlines() == [
        "[driver, attempt 2] one",
        "[driver, attempt 2] two",
        "[driver, attempt 2] three",
        "[executor 1, attempt 2] work",
    ]


# -- models


@pytest.fixture(scope="module")
def trained(place: Place) -> list[dict[str, Any]]:
    """A job with two registered runs; the second one is the champion, and is served."""
    place.job("model")
    first = place.registered("model", place.tracked("model", 1, metric=0.9, table=3), 1)
    second = place.registered("model", place.tracked("model", 2, metric=0.95, c="2", table=4), 2)
    place.status("model", run=second, history=[second, first])
    place.mlflow("registered-models/alias", name="model", alias="champion", version="2")
    deployment = {
        "apiVersion": "lakeloop.io/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": "shop", "namespace": NAMESPACE},
        "spec": {"model": {"name": "model", "alias": "champion"}},
    }
    place.kubectl.apply(deployment)
    place.kubectl.patch_status("modeldeployment", "shop", {"stable": {"version": 2}})
    return [first, second]


def test_leaderboard(place: Place, trained: Any) -> None:
    done = place("leaderboard", "--model", "model", *TO_THE_PLATFORM)
    assert done.code == 0, done.err
    title, *lines = done.out.splitlines()
    assert title.split() == ["RANK", "MODEL", "ROC_AUC", "ALIASES", "JOB", "RUN", "TABLES", "AGE"]
    assert [line.split()[:3] for line in lines] == [["1", "model/2", "0.95"], ["2", "model/1", "0.9"]]
    assert "champion" in lines[0]
    assert "customers@4" in lines[0]
    (best,) = place("leaderboard", "-A", "--limit", "1", "-o", "json", *TO_THE_PLATFORM).document["items"]
    assert (best["model"], best["version"], best["aliases"]) == ("model", 2, ["champion"])
    other = place("leaderboard", "--metric", "rmse", *TO_THE_PLATFORM)
    assert "was trained for rmse; there are roc_auc" in other.err


def test_lineage_of_a_model(place: Place, trained: Any) -> None:
    for asked in ("model", "model/2", "model@champion"):
        done = place("lineage", asked, "-o", "json", *TO_THE_PLATFORM)
        assert done.code == 0, done.err
        found = done.document
        assert (found["model"], found["version"], found["aliases"]) == ("model", 2, ["champion"])
        assert found["inputs"] == [{"name": "customers", "uri": TABLE, "version": 4}]
        assert (found["job"], found["run"], found["trigger"]) == (f"{NAMESPACE}/model", 2, "Manual")
        assert found["code"] == {"digest": "sha256:code-of-2", "specHash": "abc"}
        assert found["image"] == {"name": "trainer:1", "id": "sha256:image"}
        assert found["mlflow"]["url"].startswith("http://node:30500/#/experiments/")
        assert found["parameters"]["0.C"] == "2"
        assert found["seed"] == "7"
        assert found["environment"] == {"python": "3.11.14", "requirements": ["scikit-learn==1.8.0"]}
        assert found["servedBy"] == [{"namespace": NAMESPACE, "name": "shop", "role": "stable"}]
    words = place("lineage", "model/1", *TO_THE_PLATFORM).out
    assert f"customers  {TABLE}@3" in words
    for unknown in ("model/9", "model@nobody", "nobody"):
        done = place("lineage", unknown, *TO_THE_PLATFORM)
        assert done.code == 1
        assert "Traceback" not in done.err


def test_lineage_of_a_table(place: Place, trained: Any) -> None:
    def models(*words: str) -> list[tuple[str, int, int]]:
        done = place("lineage", *words, "-o", "json", *TO_THE_PLATFORM)
        assert done.code == 0, done.err
        return [(each["model"], each["version"], len(each["servedBy"])) for each in done.document["items"]]

    assert models(TABLE) == [("model", 2, 1), ("model", 1, 0)]
    assert models(f"{TABLE}@3") == [("model", 1, 0)]
    assert models("--table", "sales.customers@4") == [("model", 2, 1)]
    done = place("lineage", TABLE, *TO_THE_PLATFORM)
    assert f"{NAMESPACE}/shop" in done.out
    assert "No registered model" in place("lineage", "s3a://lake/none", *TO_THE_PLATFORM).err


def test_diff(place: Place, trained: Any) -> None:
    done = place("diff", "model", "--run", "1", "--run", "2", "-o", "json", *TO_THE_PLATFORM)
    assert done.code == 0, done.err
    unlike = {(each["what"], each["name"]): (each["a"], each["b"]) for each in done.document["items"]}
    assert unlike["data", "customers"] == (f"{TABLE}@3", f"{TABLE}@4")
    assert unlike["parameter", "0.C"] == ("1", "2")
    assert unlike["metric", "roc_auc"] == (0.9, 0.95)
    assert unlike["code", "code-digest"] == ("sha256:code-of-1", "sha256:code-of-2")
    assert ("code", "seed") not in unlike
    assert "rows.train" in place("diff", "model:1", "model:2", "--all", *TO_THE_PLATFORM).out
    assert "are the same" in place("diff", "model:1", "model:1", *TO_THE_PLATFORM).err


def test_a_run_that_left_the_history_is_found_in_mlflow(place: Place, trained: Any) -> None:
    place.tracked("model", 9, metric=0.8)
    done = place("diff", "model:9", "model:2", "-o", "json", *TO_THE_PLATFORM)
    assert done.code == 0, done.err
    unlike = {(each["what"], each["name"]): (each["a"], each["b"]) for each in done.document["items"]}
    assert unlike["metric", "roc_auc"] == (0.8, 0.95)
    assert unlike["run", "model"] == (None, "model/2")
    # One that was registered is found by its MLflow run.
    place.status("model", history=None)
    old = place("diff", "model:1", "model:2", "-o", "json", *TO_THE_PLATFORM).document["items"]
    assert ("model/1", "model/2") in [(each["a"], each["b"]) for each in old]
    place.status("model", history=list(reversed(trained)))
    assert "neither in its status nor in MLflow" in place("diff", "model:8", "model:2", *TO_THE_PLATFORM).err


def reproduced(place: Place, number: int, run: Mapping[str, Any], *words: str) -> Done:
    """Asks for it, and does the operator's part: the job that is made runs like this."""
    name = f"model-repro-{number}"
    asked = place.starts("reproduce", "model", "--run", str(number), *words, *TO_THE_PLATFORM)

    def made() -> bool:
        return name in [each["metadata"]["name"] for each in place.kubectl.items("trainingjob")]

    eventually(lambda: made() or asked.done())
    if made():
        place.status(name, run=dict(run))
    return ends(asked)


def test_a_record_is_run_again_and_is_the_same(place: Place, trained: Any) -> None:
    again = {**place.tracked("model-repro-1", 1, metric=0.9 + 1e-12, c="1"), "number": 1}
    done = reproduced(place, 1, again, "--keep")
    assert done.code == 0, done.out + done.err
    assert "model:1: all metrics are equal within the tolerance" in done.out
    assert "the same to the last bit, apart from times and names of the run" in done.out
    spec = place.kubectl.get("trainingjob", "model-repro-1")["spec"]
    assert spec["inputs"] == [{"name": "customers", "uri": TABLE, "version": 3}]
    assert spec["tracking"]["experiment"] == f"{NAMESPACE}/model"
    assert spec["spark"]["image"] == "trainer:1"
    assert "register" not in spec
    there = place("reproduce", "model", "--run", "1", *TO_THE_PLATFORM)
    assert there.code == 1
    assert "is there already" in there.err
    place.kubectl("delete", "trainingjob", "model-repro-1")


def test_a_record_that_comes_out_otherwise_is_exit_code_1(place: Place, trained: Any) -> None:
    again = {**place.tracked("model-repro-2", 1, metric=0.94, c="3"), "number": 1}
    done = reproduced(place, 2, again, "-o", "json")
    assert done.code == 1, done.err
    assert not done.document["equal"]
    assert done.document["model"] == {"same": False, "message": "not the same to the last bit in model.pkl"}
    there = [each["metadata"]["name"] for each in place.kubectl.items("trainingjob")]
    assert "model-repro-2" not in there, "the job that ran the record again is deleted"


def test_a_record_whose_data_is_gone_says_so(place: Place, trained: Any) -> None:
    failure = {"class": "Data", "reason": "VersionNotFound", "message": "has versions 7 to 9, not 4"}
    run = {"number": 1, "uid": "u", "trigger": "SpecChange", "phase": "Failed", "attempt": 1, "failure": failure}
    done = reproduced(place, 2, run)
    assert done.code == 1
    assert "Data/VersionNotFound: has versions 7 to 9, not 4" in done.err


def test_mlflow_elsewhere(place: Place) -> None:
    done = place("leaderboard", "--tracking-uri", "http://127.0.0.1:1", *TO_THE_PLATFORM)
    assert done.code == 1
    assert "MLflow at http://127.0.0.1:1 does not answer: [Errno 111] Connection refused;" in done.err
