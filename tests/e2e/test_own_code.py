"""The samples with code of the user's own, as written: a script of a ConfigMap, served; an MLflow project."""

import json
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from lakeloop.cli.demo import NAMESPACE, address, condition, fresh, job_over

pytestmark = pytest.mark.e2e
SAMPLES = Path(__file__).parents[2] / "samples"
WINE = {
    "alcohol": 14.23, "malic_acid": 1.71, "ash": 2.43, "alcalinity_of_ash": 15.6, "magnesium": 127.0,
    "total_phenols": 2.8, "flavanoids": 3.06, "nonflavanoid_phenols": 0.28, "proanthocyanins": 2.29,
    "color_intensity": 5.64, "hue": 1.04, "dilution": 3.92, "proline": 1065.0, "colour_per_hue": 5.64 / 1.04,
}  # fmt: skip
"""The first row of the data set, which is of cultivar 0, with what `measures.py` adds."""


def logged(platform: Any, run: Mapping[str, Any]) -> tuple[Mapping[str, str], Mapping[str, str], set[str]]:
    """Parameters and tags of the run in MLflow, and the files below `code`."""
    run_id = run["mlflow"]["runId"]
    data = platform.mlflow("GET", "runs/get", run_id=run_id)["run"]["data"]
    files = platform.mlflow("GET", "artifacts/list", run_id=run_id, path="code").get("files", [])
    params, tags = ({each["key"]: each["value"] for each in data[part]} for part in ("params", "tags"))
    return params, tags, {Path(each["path"]).name for each in files}


@pytest.fixture(scope="module")
def script(platform: Any) -> Any:
    """The run of the sample `script`, once it went well."""
    folder = SAMPLES / "script"
    platform.kubectl("apply", "-f", str(folder / "1-data.yaml"))
    platform.until("job", "script-data", job_over)
    platform.kubectl("apply", "-f", str(folder / "2-code.yaml"))
    platform.kubectl("apply", "-f", str(folder / "3-train.yaml"))
    return platform.succeeded("script", timeout=600)


def test_a_script_logs_into_the_run(platform: Any, script: Any) -> None:
    assert script["metrics"]["f1"] > 0.9
    assert script["inputs"][0]["version"] >= 0
    params, tags, files = logged(platform, script)
    assert {
        "depth": "4",
        "trees": "100",
        "script.path": "train.py",
        "script.args": "--depth 4",
    }.items() <= params.items()
    assert tags["lakeloop.io/code-files-digest"] == script["codeDigest"]
    assert files == {"train.py", "measures.py"}


def test_its_model_is_served(platform: Any, script: Any) -> None:
    platform.kubectl("apply", "-f", str(SAMPLES / "script/4-serve.yaml"))
    platform.until(
        "modeldeployment", "script", lambda obj: fresh(obj) and condition(obj, "Ready").get("status") == "True"
    )
    request = urllib.request.Request(
        f"{address(platform.kubectl, 'script')}/invocations",
        json.dumps({"dataframe_records": [WINE]}).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert json.load(answer) == {"predictions": [0]}
        assert answer.headers["x-lakeloop-model"] == f"script/{script['model']['version']}"
    platform.kubectl("-n", NAMESPACE, "delete", "md", "script")


def test_a_script_that_is_not_there_yet_is_waited_for(platform: Any, script: Any) -> None:
    """The job comes before its ConfigMap, as a `kubectl apply` of a folder may have it; then the script fails."""
    platform.kubectl("-n", NAMESPACE, "delete", "configmap", "script-late", "--ignore-not-found")
    platform.job(
        "script-late",
        {
            "inputs": [{"name": "wines", "uri": "s3a://lake/script/wines"}],
            "script": {"configMapRef": {"name": "script-late"}, "path": "train.py"},
            "spark": {"executor": {"instances": 0}},
        },
    )
    stalled = platform.until(
        "trainingjob", "script-late", lambda obj: condition(obj, "Stalled").get("reason") == "ScriptNotFound"
    )
    assert condition(stalled, "Stalled")["message"].startswith("spec.script.configMapRef: ")
    text = "from pyspark.sql import SparkSession\nSparkSession.builder.getOrCreate().table('wines').count()\n1 / 0\n"
    metadata = {"name": "script-late", "namespace": NAMESPACE}
    platform.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"train.py": text}})
    failed = platform.until(
        "trainingjob", "script-late", lambda obj: obj.get("status", {}).get("run", {}).get("phase") == "Failed"
    )
    failure = failed["status"]["run"]["failure"]
    assert (failure["class"], failure["reason"], failure["field"]) == ("Application", "ScriptFailed", "spec.script")
    assert "train.py, line 3: ZeroDivisionError" in failure["message"]
    assert failed["status"]["run"]["attempt"] == 1
    platform.kubectl("-n", NAMESPACE, "delete", "tj", "script-late")
    platform.kubectl("-n", NAMESPACE, "delete", "configmap", "script-late")


def test_a_project_by_two_entry_points(platform: Any) -> None:
    folder = SAMPLES / "mlflow-project"
    platform.kubectl("apply", "-f", str(folder / "1-data.yaml"))
    platform.until("job", "mlflow-project-data", job_over)
    platform.kubectl("apply", "-f", str(folder / "2-train.yaml"))
    linear = platform.succeeded("mlflow-project", timeout=600)
    platform.kubectl("apply", "-f", str(folder / "3-train-forest.yaml"))
    forest = platform.succeeded("mlflow-project-forest", timeout=600)
    for run in (linear, forest):
        assert run["metrics"]["r2"] > 0.3
        assert run["model"]["version"] >= 1
    assert forest["inputs"][0]["version"] == linear["inputs"][0]["version"]
    params, tags, files = logged(platform, linear)
    assert {"alpha": "0.001", "l1_ratio": "0.9"}.items() <= params.items()
    assert tags["mlflow.project.entryPoint"] == "main"
    assert files == {"MLproject", "python_env.yaml", "train.py"}
    params, tags, _ = logged(platform, forest)
    assert (params["trees"], tags["mlflow.project.entryPoint"]) == ("200", "forest")
    assert "alpha" not in params
