"""An API server without nodes, and what benchmarks do with it: the operator beside it, jobs in it, pods that end well.

The API server (with its etcd) is the benchmark's own, and pods end when the benchmark says so. All else is
real: the operator's process, MLflow on PostgreSQL and MinIO of the cluster.
"""

import json
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from cluster import GROUP, PLURALS, ROOT, VERSION, BenchError, Seen, Watch
from kubernetes import client, config
from report import say

from localcluster.apiserver import ApiServer
from localcluster.operator_process import OperatorProcess

NAMESPACE = "nodeless"
LIMIT_SECONDS = 900.0


class Nodeless:
    """The API server, with our kinds and a namespace that has the key to the object store."""

    def __init__(self, server: ApiServer, keys: Mapping[str, str], store: Any) -> None:
        self.store = store
        kubectl = [str(server.kubectl), f"--kubeconfig={server.kubeconfig}"]
        for arguments in (["apply", "-f", str(ROOT / "crds")], ["wait", "--for=condition=Established", "crd", "--all"]):
            subprocess.run([*kubectl, *arguments], check=True, stdout=subprocess.DEVNULL)
        api = config.new_client_from_config(str(server.kubeconfig))
        api.configuration.proxy = None
        self.core, self.custom = client.CoreV1Api(api), client.CustomObjectsApi(api)
        self.core.create_namespace(client.V1Namespace(metadata=client.V1ObjectMeta(name=NAMESPACE)))
        meta = client.V1ObjectMeta(name="lakeloop-storage")
        self.core.create_namespaced_secret(NAMESPACE, client.V1Secret(metadata=meta, string_data=dict(keys)))

    def pods(self) -> Watch:
        """Every pod's events."""
        return Watch(lambda **how: self.core.list_namespaced_pod(NAMESPACE, **how), "pods")

    def jobs(self) -> Watch:
        """Every TrainingJob's events."""
        where = (GROUP, VERSION, NAMESPACE, PLURALS["TrainingJob"])
        return Watch(lambda **how: self.custom.list_namespaced_custom_object(*where, **how), "trainingjobs")

    def create(self, specs: Mapping[str, Mapping[str, Any]]) -> None:
        """TrainingJobs by name, all at once, as fast as a user with eight hands."""

        def one(name: str) -> None:
            meta = {"name": name}
            body = {"apiVersion": f"{GROUP}/{VERSION}", "kind": "TrainingJob", "metadata": meta, "spec": specs[name]}
            where = (GROUP, VERSION, NAMESPACE, PLURALS["TrainingJob"])
            self.custom.create_namespaced_custom_object(*where, body, _preload_content=False)

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(one, specs))

    def complete(self, pod: Mapping[str, Any]) -> None:
        """The pod ends as a driver does that went well, once its sidecar has said that all logs are in the store."""
        for sidecar in pod["spec"].get("initContainers") or ():
            env = {each["name"]: each.get("value") for each in sidecar["env"]}
            bucket, _, folder = str(env["LAKELOOP_LOG_URI"]).removeprefix("s3a://").partition("/")
            log = str(env["LAKELOOP_LOG_NAME"])
            marker = json.dumps({"container": log, "complete": True}).encode()
            self.store.put_object(Bucket=bucket, Key=f"{folder}/{log}.json", Body=marker)
        labels = pod["metadata"]["labels"]
        result = {
            "uid": labels["lakeloop.io/run-uid"],
            "attempt": int(labels["lakeloop.io/attempt"]),
            "outcome": "Succeeded",
            "inputs": [],
            "metrics": {"test_roc_auc": 0.9},
            "objective": {"metric": "roc_auc", "value": 0.9},
            "model": {"modelId": "m-0", "artifactUri": "s3://mlflow/none", "digest": "sha256:0"},
        }
        terminated = {"exitCode": 0, "message": json.dumps(result), "containerID": "x://1"}
        container = {"name": "driver", "image": "x", "imageID": "x", "ready": False, "restartCount": 0}
        status = {
            "phase": "Succeeded",
            "containerStatuses": [{**container, "state": {"terminated": terminated}}],
        }
        # Read raw, since the client's models take more CPU than the API server's work
        self.core.patch_namespaced_pod_status(
            pod["metadata"]["name"], NAMESPACE, {"status": status}, _preload_content=False
        )


class Tally:
    """Names of the objects of which an event was as wanted; each event is looked at once."""

    def __init__(self, watch: Watch, wanted: Callable[[Seen], bool]) -> None:
        self._watch, self._wanted, self._at = watch, wanted, 0
        self.names: set[str] = set()

    def new(self) -> list[Seen]:
        """Those that were not in it before."""
        fresh = self._watch.events(since=self._at)
        self._at += len(fresh)
        found = [each for each in fresh if self._wanted(each) and each.obj["metadata"]["name"] not in self.names]
        self.names.update(each.obj["metadata"]["name"] for each in found)
        return found

    def count(self) -> int:
        """How many by now."""
        self.new()
        return len(self.names)


@contextmanager
def completing(nodeless: Nodeless, pods: Watch, after: float = 0.0) -> Iterator[None]:
    """Ends every driver pod that comes, so many seconds after it came."""
    over, drivers = threading.Event(), Tally(pods, driver)
    waiting: deque[Seen] = deque()

    def work() -> None:
        while not over.wait(0.05):
            waiting.extend(drivers.new())
            while waiting and waiting[0].at + after <= time.monotonic() and not over.is_set():
                nodeless.complete(waiting.popleft().obj)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(30)


def driver(seen: Seen) -> bool:
    """The creation of a driver pod of ours."""
    return seen.type == "ADDED" and str(seen.obj["metadata"]["name"]).endswith("-driver")


def wait(what: str, tally: Tally, wanted: int) -> None:
    """Until as many are there, with a line of progress every few seconds."""
    end, told = time.monotonic() + LIMIT_SECONDS, time.monotonic()
    while (count := tally.count()) < wanted:
        if time.monotonic() > end:
            raise BenchError(f"{what}: {count} of {wanted} after {LIMIT_SECONDS:.0f} s")
        if time.monotonic() - told > 5:
            told = time.monotonic()
            say(f"  {what}: {count} of {wanted}")
        time.sleep(0.05)


def spec(table: str, experiment: str, **parts: Any) -> dict[str, Any]:
    """A driver-only job on a table that is there already, with no model to register."""
    return {
        "inputs": [{"name": "points", "uri": f"s3a://lake/{table}"}],
        "dataset": {"features": ["feature"], "target": "target", "split": {"testFraction": 0}},
        "estimator": {"steps": [{"class": "sklearn.linear_model.LogisticRegression"}]},
        "tracking": {"experiment": experiment},
        "spark": {"executor": {"instances": 0}},
        **parts,
    }


def token_of(server: ApiServer, name: str) -> str:
    """The token of a new service account in `NAMESPACE` that may do anything.

    What runs in a cluster has one, which the API server remembers; a client certificate it verifies at each request.
    """
    kubectl = [str(server.kubectl), f"--kubeconfig={server.kubeconfig}", f"--namespace={NAMESPACE}", "create"]
    user = f"--serviceaccount={NAMESPACE}:{name}"
    for words in (["serviceaccount", name], ["clusterrolebinding", name, "--clusterrole=cluster-admin", user]):
        subprocess.run([*kubectl, *words], check=True, stdout=subprocess.DEVNULL)
    return subprocess.run([*kubectl, "token", name], check=True, capture_output=True, text=True).stdout.strip()


def operator(server: ApiServer, folder: Path, mlflow: str, store: str) -> OperatorProcess:
    """The operator's process, for the namespace `NAMESPACE` and that object store."""
    settings = yaml.safe_load(server.kubeconfig.read_text())
    settings["users"][0]["user"] = {"token": token_of(server, "operator")}
    kubeconfig = folder / "operator.kubeconfig"
    kubeconfig.touch(0o600)
    kubeconfig.write_text(yaml.safe_dump(settings))
    env = {
        "LAKELOOP_NAMESPACE": "default",
        "LAKELOOP_STORAGE_ENDPOINT": store,
        "LAKELOOP_TRAINER_IMAGE": "localhost/lakeloop/trainer:bench",
        "LAKELOOP_SERVER_IMAGE": "localhost/lakeloop/model-server:bench",
        "LAKELOOP_LEADER_ELECTION": "false",
    }
    return OperatorProcess(kubeconfig, folder, namespace=NAMESPACE, tracking_uri=mlflow, env=env)


@contextmanager
def telling(process: OperatorProcess) -> Iterator[OperatorProcess]:
    """The operator, while it runs; the end of its log where something goes wrong meanwhile."""
    with process:
        try:
            yield process
        except BaseException:
            say(process.log.read_text()[-3000:])
            raise


def at_rest(process: OperatorProcess, seconds: float) -> tuple[float, float]:
    """Resident MiB, and percent of one core, over a while in which nothing changes."""
    time.sleep(seconds / 4)  # what was under way is over
    before, begun = process.cpu_seconds(), time.monotonic()
    time.sleep(seconds)
    return process.resident_mib(), 100 * (process.cpu_seconds() - before) / (time.monotonic() - begun)
