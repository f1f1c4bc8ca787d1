"""The Spark ML sample, as written: trained on an executor, logged with the spark flavor."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from lakeloop.cli.demo import NAMESPACE, job_over

pytestmark = pytest.mark.e2e
SAMPLE = Path(__file__).parents[2] / "samples/spark-ml"


@pytest.fixture(scope="module")
def run(platform: Any) -> Any:
    """The sample's run, once it went well."""
    platform.kubectl("apply", "-f", str(SAMPLE / "1-data.yaml"))
    platform.until("job", "spark-ml-data", job_over)
    platform.kubectl("apply", "-f", str(SAMPLE / "2-train.yaml"))
    return platform.succeeded("spark-ml")


def names(platform: Any, run: Any, path: str) -> set[str]:
    files = platform.mlflow("GET", "artifacts/list", run_id=run["mlflow"]["runId"], path=path).get("files", [])
    return {Path(file["path"]).name for file in files}


def test_it_learned(run: Any) -> None:
    assert run["metrics"]["roc_auc"] > 0.8


def test_what_it_leaves(platform: Any, run: Any) -> None:
    assert {"confusion_matrix.png", "roc.png"} <= names(platform, run, "plots")
    assert {f"permutation_importance.{kind}" for kind in ("csv", "txt", "png")} == names(platform, run, "explanation")
    assert "pipeline.py" in names(platform, run, "code")
    # the folder through which the executors' files came to the driver is gone again
    assert names(platform, run, "lakeloop") == {"run.json", "result.json"}


PROGRAM = """
import sys, mlflow.pyfunc, pandas
model = mlflow.pyfunc.load_model(sys.argv[1])
rows = {"tenure": [1, 70], "spend": [50.0, 50.0], "plan": ["basic", "business"], "calls": [5.0, float("nan")]}
print("ANSWERS", [str(answer) for answer in model.predict(pandas.DataFrame(rows))])
"""


def test_the_model_answers_in_the_targets_own_words(platform: Any, run: Any) -> None:
    """Loaded by MLflow alone, in a pod with Spark that has the store's keys and nothing else."""
    name = f"spark-ml-check-{run['number']}"
    uri = platform.mlflow("GET", "model-versions/get", name="spark-ml", version=str(run["model"]["version"]))
    # the sample's first object has all that such a pod needs
    job = yaml.safe_load((SAMPLE / "1-data.yaml").read_text())
    job["metadata"]["name"] = name
    container = job["spec"]["template"]["spec"]["containers"][0]
    container["args"] = [PROGRAM, uri["model_version"]["source"]]
    container["env"] += [
        {"name": "MLFLOW_S3_ENDPOINT_URL", "value": "http://minio.lakeloop-platform.svc:9000"},
        {"name": "MLFLOW_DISABLE_TELEMETRY", "value": "true"},
    ]
    platform.apply(job)
    try:
        platform.until("job", name, job_over)
        logs = platform.kubectl("-n", NAMESPACE, "logs", f"job/{name}")
    finally:
        platform.kubectl("-n", NAMESPACE, "delete", "job", name)
    assert "ANSWERS ['leaves', 'stays']" in logs
