"""The sample with a gate, as written: a weaker model is registered, and does not get the alias."""

from pathlib import Path
from typing import Any

import pytest

from lakeloop.cli.demo import condition, fresh, job_over

pytestmark = pytest.mark.e2e
SAMPLE = Path(__file__).parents[2] / "samples/champion-gate"


def test_only_a_better_model_gets_the_alias(platform: Any) -> None:
    platform.kubectl("apply", "-f", str(SAMPLE / "1-data.yaml"))
    platform.until("job", "champion-gate-data", job_over)
    platform.kubectl("-n", "lakeloop-demo", "delete", "trainingjob", "champion-gate", "--ignore-not-found")
    platform.kubectl("apply", "-f", str(SAMPLE / "2-train.yaml"))
    first = platform.succeeded("champion-gate")
    assert first["metrics"]["roc_auc"] > 0.9
    version = first["model"]["version"]

    platform.kubectl("apply", "-f", str(SAMPLE / "3-weaker.yaml"))
    over = platform.until(
        "trainingjob",
        "champion-gate",
        lambda obj: fresh(obj) and obj["status"]["run"]["number"] == first["number"] + 1
        and obj["status"]["run"]["phase"] in ("Failed", "Succeeded"),
    )  # fmt: skip
    run = over["status"]["run"]
    assert (run["failure"]["class"], run["failure"]["reason"]) == ("Gate", "ChampionNotBeaten"), run
    assert condition(over, "ModelAccepted")["status"] == "False"
    assert run["champion"]["version"] == version
    assert run["champion"]["metric"] == pytest.approx(first["metrics"]["roc_auc"], abs=0.05)
    assert any(change.startswith("mean_radius: removed") for change in run["champion"]["schemaChanges"])
    aliased = platform.mlflow("GET", "registered-models/alias", name="champion-gate", alias="champion")["model_version"]
    assert int(aliased["version"]) == version
    weaker = platform.mlflow("GET", "model-versions/get", name="champion-gate", version=str(run["model"]["version"]))
    tags = {each["key"]: each["value"] for each in weaker["model_version"]["tags"]}
    assert (tags["lakeloop.io/gate"], tags["lakeloop.io/gate.reason"]) == ("failed", "ChampionNotBeaten")
    assert float(tags["lakeloop.io/champion.metric.roc_auc"]) == run["champion"]["metric"]
