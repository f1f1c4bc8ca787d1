"""The demo as documented, and what follows it: the alias moves, the server rolls forward and loses no request."""

import itertools
import json
import subprocess
import time
from typing import Any

import pytest
from e2e.conftest import ROOT, manifest
from e2e.load import Load

from lakeloop.cli.demo import address, condition, fresh

pytestmark = pytest.mark.e2e


def test_demo_prints_a_served_prediction(demo: str) -> None:
    assert "the same model fitted by hand answers the same" in demo


def test_the_run_is_recorded_both_ways(platform: Any, demo: str) -> None:
    run = platform.kubectl.get("trainingjob", "quickstart")["status"]["run"]
    assert run["inputs"][0]["version"] >= 0
    logged = platform.mlflow("GET", "runs/get", run_id=run["mlflow"]["runId"])["run"]
    assert logged["info"]["status"] == "FINISHED"
    datasets = [entry["dataset"]["name"] for entry in logged["inputs"]["dataset_inputs"]]
    assert datasets == ["points"]
    params = {entry["key"]: entry["value"] for entry in logged["data"]["params"]}
    assert params["0.C"] == "1"
    version = platform.mlflow("GET", "model-versions/get", name=run["model"]["name"], version=run["model"]["version"])[
        "model_version"
    ]
    tags = {tag["key"]: tag["value"] for tag in version["tags"]}
    assert tags["lakeloop.io/input.points"] == f"s3a://lake/quickstart/points@{run['inputs'][0]['version']}"
    assert tags["lakeloop.io/run-uid"] == run["uid"]
    assert tags["lakeloop.io/digest"] == run["model"]["digest"]


def test_columns_of_kubectl_get(platform: Any, demo: str) -> None:
    table = platform.kubectl("-n", "lakeloop-demo", "get", "tj", "quickstart")
    assert table.splitlines()[0].split() == ["NAME", "RUN", "PHASE", "TABLE", "METRIC", "MODEL", "AGE"]
    assert "points@" in table
    assert "quickstart/" in table


def test_the_plugin_sends_rows_and_prints_predictions(platform: Any, demo: str) -> None:
    options = ["-n", "lakeloop-demo", "--kubeconfig", str(platform.kubeconfig)]
    rows = json.dumps([{"feature": number} for number in (1, 5)])
    command = ["kubectl-lakeloop", "predict", "quickstart", *options]
    done = subprocess.run(command, input=rows, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert [json.loads(line) in (0, 1) for line in done.stdout.splitlines()] == [True, True]
    assert done.stderr.startswith("quickstart/")
    wrong = subprocess.run(command, input='[{"nobody": 1}]', capture_output=True, text=True, check=False, timeout=120)
    assert wrong.returncode == 1
    assert "the model refuses (400)" in wrong.stderr


def test_a_new_version_takes_over_and_loses_no_request(platform: Any, demo: str) -> None:
    before = platform.kubectl.get("modeldeployment", "quickstart")["status"]["stable"]["version"]
    with Load(address(platform.kubectl, "quickstart")) as load:
        platform.kubectl(
            "-n", "lakeloop-demo", "annotate", "tj", "quickstart", f"lakeloop.io/run-now=again-{before}", "--overwrite"
        )
        run = platform.until(
            "trainingjob",
            "quickstart",
            lambda obj: (
                obj["status"]["run"].get("model", {}).get("version", before) != before
                and condition(obj, "Ready")["status"] == "True"
            ),
        )["status"]["run"]
        platform.until(
            "modeldeployment",
            "quickstart",
            lambda obj: (
                fresh(obj)
                and obj["status"]["stable"]["version"] == run["model"]["version"]
                and condition(obj, "RollingOut").get("status") != "True"
            ),
        )
        # The old server answers what still reaches it, until the node's proxy knows too that it goes.
        new = f"quickstart/{run['model']['version']}"
        end = time.monotonic() + 60
        while load.answers[-20:] != [new] * 20:
            assert time.monotonic() < end, load.answers[-20:]
            time.sleep(0.1)  # a poll
    assert load.failures == []
    assert load.answers[0] == f"quickstart/{before}"


def test_blue_green_moves_all_traffic_at_once(platform: Any, demo: str) -> None:
    """The sample, as written. Every connection is new, so that each answer is of whoever the Service selects."""
    name = "quickstart-blue-green"
    platform.kubectl("apply", "-f", str(ROOT / "samples/blue-green/serve.yaml"))
    ready = platform.until("modeldeployment", name, lambda obj: condition(obj, "Ready").get("status") == "True")
    now = ready["status"]["stable"]["version"]
    assert now > 1
    platform.until("modeldeployment", name, lambda obj: obj["status"]["stable"]["readyReplicas"] == 2)
    with Load(address(platform.kubectl, name)) as load:
        platform.mlflow("POST", "registered-models/alias", name="quickstart", alias="champion", version="1")
        both = platform.until(
            "modeldeployment",
            name,
            lambda obj: (
                obj["status"]["stable"]["version"] == 1 or obj["status"].get("candidate", {}).get("readyReplicas") == 2
            ),
        )
        assert both["status"]["replicas"] == 4, "both versions have all their servers"
        platform.until("modeldeployment", name, lambda obj: obj["status"]["replicas"] == 2)
        platform.mlflow("POST", "registered-models/alias", name="quickstart", alias="champion", version=str(now))
        platform.until("modeldeployment", name, lambda obj: obj["status"]["stable"]["version"] == now)
        platform.until("modeldeployment", name, lambda obj: obj["status"]["replicas"] == 2)
    platform.kubectl("delete", "-f", str(ROOT / "samples/blue-green/serve.yaml"))
    platform.until("modeldeployment", "quickstart", lambda obj: obj["status"]["stable"]["version"] == now)
    assert load.failures == []
    old, new = "quickstart/1", f"quickstart/{now}"
    assert [version for version, _ in itertools.groupby(load.answers)] == [new, old, new]


def test_a_canary_gets_its_share_and_everything_when_promoted(platform: Any, demo: str) -> None:
    """The sample, as written."""
    name = "quickstart-canary"
    now = platform.kubectl.get("modeldeployment", "quickstart")["status"]["stable"]["version"]
    assert now > 1
    platform.kubectl("apply", "-f", str(ROOT / "samples/canary/serve.yaml"))
    platform.until(
        "modeldeployment", name, lambda obj: obj.get("status", {}).get("stable", {}).get("readyReplicas") == 2
    )
    with Load(address(platform.kubectl, name)) as load:
        platform.mlflow("POST", "registered-models/alias", name="quickstart", alias="champion", version="1")
        paused = platform.until(
            "modeldeployment", name, lambda obj: obj["status"].get("candidate", {}).get("step") == 3
        )
        candidate = paused["status"]["candidate"]
        assert (candidate["weight"], candidate["effectiveWeight"]) == (50, 50)
        figures = {each["metric"]: each for each in candidate["analysis"]}
        assert {name: each["passed"] for name, each in figures.items()} == {"error-rate": True, "latency-p99": True}
        assert figures["error-rate"]["requests"] >= 20
        assert 0 < figures["latency-p99"]["value"] <= 2.5
        begun, end = len(load.answers), time.monotonic() + 60
        while len(load.answers) < begun + 400:
            assert time.monotonic() < end
            time.sleep(0.1)  # a poll
        share = load.answers[begun : begun + 400].count("quickstart/1")
        platform.kubectl("-n", "lakeloop-demo", "annotate", "md", name, "lakeloop.io/promote=1")
        platform.until(
            "modeldeployment",
            name,
            lambda obj: obj["status"]["stable"]["version"] == 1 and obj["status"]["replicas"] == 2,
        )
        old = len(load.answers)
        while len(load.answers) < old + 20:
            assert time.monotonic() < end + 120
            time.sleep(0.1)  # a poll
    platform.kubectl("delete", "-f", str(ROOT / "samples/canary/serve.yaml"))
    platform.mlflow("POST", "registered-models/alias", name="quickstart", alias="champion", version=str(now))
    platform.until("modeldeployment", "quickstart", lambda obj: obj["status"]["stable"]["version"] == now)
    assert load.failures == []
    assert 140 <= share <= 260, "half of 400, by six standard deviations"
    assert set(load.answers[-20:]) == {"quickstart/1"}


def test_a_canary_that_is_too_slow_gives_the_traffic_back(platform: Any, demo: str) -> None:
    name = "quickstart-slow"
    now = platform.kubectl.get("modeldeployment", "quickstart")["status"]["stable"]["version"]
    spec = {
        "model": {"name": "quickstart", "alias": "champion"},
        "strategy": {"type": "Canary", "canary": {"steps": [{"setWeight": 50}, {"pauseSeconds": 600}]}},
        "analysis": {
            "intervalSeconds": 2,
            "minRequests": 10,
            "failureLimit": 1,
            "metrics": [{"name": "latency-p99", "max": 0.000001}],
        },
    }
    platform.apply(manifest("ModelDeployment", name, spec))
    platform.until(
        "modeldeployment", name, lambda obj: obj.get("status", {}).get("stable", {}).get("readyReplicas") == 1
    )
    with Load(address(platform.kubectl, name)) as load:
        platform.mlflow("POST", "registered-models/alias", name="quickstart", alias="champion", version="1")
        seen = platform.until(
            "modeldeployment",
            name,
            lambda obj: (
                bool(obj["status"].get("rejected"))
                and "candidate" not in obj["status"]
                and obj["status"]["replicas"] == 1
            ),
        )
    platform.kubectl("-n", "lakeloop-demo", "delete", "md", name)
    platform.mlflow("POST", "registered-models/alias", name="quickstart", alias="champion", version=str(now))
    platform.until("modeldeployment", "quickstart", lambda obj: obj["status"]["stable"]["version"] == now)
    assert seen["status"]["rejected"][0]["reason"] == "AnalysisFailed"
    assert seen["status"]["stable"]["version"] == now
    assert load.failures == []
    assert set(load.answers) == {f"quickstart/{now}", "quickstart/1"}
    assert "MeasurementFailed" in platform.warnings(name)


def test_moving_the_alias_back_rolls_back(platform: Any, demo: str) -> None:
    now = platform.kubectl.get("modeldeployment", "quickstart")["status"]["stable"]["version"]
    platform.mlflow("POST", "registered-models/alias", name="quickstart", alias="champion", version="1")
    platform.until("modeldeployment", "quickstart", lambda obj: obj["status"]["stable"]["version"] == 1)
    platform.mlflow("POST", "registered-models/alias", name="quickstart", alias="champion", version=str(now))
    platform.until("modeldeployment", "quickstart", lambda obj: obj["status"]["stable"]["version"] == now)
