"""The sample with a search, as written; and a search whose driver is lost, and one on executors."""

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from lakeloop.cli.demo import NAMESPACE, job_over

pytestmark = pytest.mark.e2e
SAMPLE = Path(__file__).parents[2] / "samples/search"


@pytest.fixture(scope="module")
def run(platform: Any) -> Any:
    """The sample's run, once it went well."""
    platform.kubectl("apply", "-f", str(SAMPLE / "1-data.yaml"))
    platform.until("job", "search-data", job_over)
    platform.kubectl("-n", NAMESPACE, "delete", "trainingjob", "search", "--ignore-not-found")
    platform.kubectl("apply", "-f", str(SAMPLE / "2-train.yaml"))
    return platform.succeeded("search")


def trials(platform: Any, run: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The nested runs of a run, by the number of the trial."""
    parent = run["mlflow"]["runId"]
    experiment = platform.mlflow("GET", "runs/get", run_id=parent)["run"]["info"]["experiment_id"]
    condition = f"tags.`mlflow.parentRunId` = '{parent}'"
    found = platform.mlflow(
        "POST", "runs/search", experiment_ids=[experiment], filter=condition, max_results=1000
    ).get("runs", [])  # fmt: skip

    def number(each: Mapping[str, Any]) -> int:
        return int({tag["key"]: tag["value"] for tag in each["data"]["tags"]}["lakeloop.io/trial"])

    return sorted(found, key=number)


def spec(**changes: Any) -> dict[str, Any]:
    """The sample's, over the table that it made; keyword arguments replace its parts."""
    found: dict[str, Any] = yaml.safe_load((SAMPLE / "2-train.yaml").read_text())["spec"]
    del found["register"]
    return {**found, "inputs": [{"name": "tumours", "uri": "s3a://lake/search"}], **changes}


def test_status_tells_the_search(run: Any) -> None:
    search = run["search"]
    assert search["trials"] == 20
    assert search["trialsFinished"] + search["trialsPruned"] + search["trialsFailed"] == 20
    assert search["bestValue"] > 0.98
    assert set(search["bestParams"]) == {"1.C", "1.gamma", "1.kernel"}
    assert run["metrics"]["roc_auc"] == run["metrics"]["test_roc_auc"] > 0.98


def test_every_trial_is_a_nested_run_and_the_winner_is_the_runs(platform: Any, run: Any) -> None:
    found = trials(platform, run)
    assert [each["info"]["run_name"] for each in found] == [f"search-{run['number']}-trial-{n}" for n in range(1, 21)]
    assert {each["info"]["status"] for each in found} <= {"FINISHED", "KILLED"}
    data = platform.mlflow("GET", "runs/get", run_id=run["mlflow"]["runId"])["run"]["data"]
    params = {each["key"]: each["value"] for each in data["params"]}
    for name, value in run["search"]["bestParams"].items():
        assert params[f"search.best.{name}"] == params[name] == value


def test_the_search_is_drawn_and_listed(platform: Any, run: Any) -> None:
    run_id = run["mlflow"]["runId"]
    files = platform.mlflow("GET", "artifacts/list", run_id=run_id, path="search")["files"]
    assert {Path(file["path"]).name for file in files} == {"history.png", "parallel_coordinates.png", "trials.csv"}
    uri = platform.mlflow("GET", "runs/get", run_id=run_id)["run"]["info"]["artifact_uri"]
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    table = platform.store.get_object(Bucket=bucket, Key=f"{prefix}/search/trials.csv")["Body"].read().decode()
    assert [row["trial"] for row in csv.DictReader(io.StringIO(table))] == [str(n) for n in range(1, 21)]


def test_a_search_goes_on_after_its_driver_was_deleted(platform: Any, run: Any) -> None:
    steps = [{"class": "sklearn.ensemble.GradientBoostingClassifier", "params": {"n_estimators": 400}}]
    search = {
        "algorithm": "Grid", "maxTrials": 12, "pruning": False,
        "parameters": [{"name": "0.max_depth", "values": [1, 2, 3]}, {"name": "0.subsample", "values": [0.5, 0.6, 0.7, 0.8]}],
    }  # fmt: skip
    platform.job("search-resumed", spec(estimator={"library": "sklearn", "steps": steps}, search=search))

    def under_way(obj: Mapping[str, Any]) -> bool:
        progress = obj.get("status", {}).get("run", {}).get("progress", {})
        return progress.get("trialsTotal") == 12 and progress.get("trialsFinished", 0) >= 2

    seen = platform.until("trainingjob", "search-resumed", under_way)["status"]["run"]
    assert seen["progress"]["remainingSeconds"] > 0
    platform.kubectl("-n", NAMESPACE, "delete", "pod", seen["driverPod"], "--grace-period=0", "--force")
    over = platform.succeeded("search-resumed")

    assert over["attempt"] == 2
    assert over["mlflow"]["runId"] == seen["mlflow"]["runId"]
    assert over["search"]["trialsFinished"] == 12
    found = trials(platform, over)
    assert len(found) == 12
    points = {tuple(sorted((p["key"], p["value"]) for p in each["data"]["params"])) for each in found}
    assert len(points) == 12


def test_with_an_executor_the_trials_run_there(platform: Any, run: Any) -> None:
    search = {"algorithm": "Grid", "parameters": [{"name": "1.C", "values": [0.1, 1, 10]}]}
    platform.job("search-executor", spec(search=search, spark={"executor": {"instances": 1}}))
    over = platform.succeeded("search-executor")
    assert over["search"]["trialsFinished"] == 3
    assert over["metrics"]["roc_auc"] > 0.98
