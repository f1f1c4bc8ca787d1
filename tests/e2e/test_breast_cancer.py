"""The second sample, as written: a real data set, a pipeline, a metric that means something."""

from pathlib import Path
from typing import Any

import pytest

from lakeloop.cli.demo import condition, fresh, job_over

pytestmark = pytest.mark.e2e
SAMPLE = Path(__file__).parents[2] / "samples/breast-cancer"


@pytest.fixture(scope="module")
def run(platform: Any) -> Any:
    """The sample's run, once it went well."""
    platform.kubectl("apply", "-f", str(SAMPLE / "1-data.yaml"))
    platform.until("job", "breast-cancer-data", job_over)
    platform.kubectl("apply", "-f", str(SAMPLE / "2-train.yaml"))
    return platform.succeeded("breast-cancer")


def test_roc_auc(run: Any) -> None:
    assert run["metrics"]["roc_auc"] > 0.98


def test_plots_and_model_are_logged(platform: Any, run: Any) -> None:
    def names(path: str) -> set[str]:
        files = platform.mlflow("GET", "artifacts/list", run_id=run["mlflow"]["runId"], path=path).get("files", [])
        return {Path(file["path"]).name for file in files}

    assert {"confusion_matrix.png", "roc.png"} <= names("plots")
    assert {"run.json", "result.json"} <= names("lakeloop")
    assert "pipeline.py" in names("code")


def test_two_replicas_serve_it_and_scale(platform: Any, run: Any) -> None:
    platform.kubectl("apply", "-f", str(SAMPLE / "3-serve.yaml"))
    ready = platform.until(
        "modeldeployment", "breast-cancer", lambda obj: fresh(obj) and condition(obj, "Ready").get("status") == "True"
    )
    assert ready["status"]["stable"]["readyReplicas"] == 2
    platform.kubectl("-n", "lakeloop-demo", "scale", "md", "breast-cancer", "--replicas=1")
    platform.until(
        "modeldeployment",
        "breast-cancer",
        lambda obj: fresh(obj) and obj["status"]["replicas"] == 1 and obj["status"]["stable"]["readyReplicas"] == 1,
    )
    platform.kubectl("-n", "lakeloop-demo", "delete", "md", "breast-cancer")
