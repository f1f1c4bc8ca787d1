"""The sample with SHAP values, as written."""

from pathlib import Path
from typing import Any

import pytest

from lakeloop.cli.demo import job_over

pytestmark = pytest.mark.e2e
SAMPLE = Path(__file__).parents[2] / "samples/explanation"


def test_shap_values_are_logged_with_the_model(platform: Any) -> None:
    platform.kubectl("apply", "-f", str(SAMPLE / "1-data.yaml"))
    platform.until("job", "explanation-data", job_over)
    platform.kubectl("apply", "-f", str(SAMPLE / "2-train.yaml"))
    run = platform.succeeded("explanation")

    run_id = run["mlflow"]["runId"]
    files = platform.mlflow("GET", "artifacts/list", run_id=run_id, path="explanation")["files"]
    names = {Path(file["path"]).name for file in files}
    assert names == {"shap_importance.csv", "shap_importance.txt", "shap_summary.png"}
    found = platform.mlflow("GET", "runs/get", run_id=run_id)["run"]
    tags = {each["key"]: each["value"] for each in found["data"]["tags"]}
    assert tags["lakeloop.io/explanation"] == "SHAP"
    bucket, _, key = found["info"]["artifact_uri"].removeprefix("s3://").partition("/")
    table = platform.store.get_object(Bucket=bucket, Key=f"{key}/explanation/shap_importance.csv")["Body"].read()
    lines = table.decode().splitlines()
    assert lines[0] == "feature,mean_abs_shap"
    assert lines[1].split(",")[0] in ("worst_area", "worst_concavity")
