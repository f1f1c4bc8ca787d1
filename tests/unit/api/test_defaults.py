"""What the operator assumes where nothing was written."""

from typing import Any

import pytest

from builders import model_deployment, training_job
from lakeloop.api.v1alpha1.common import SecretReference, Storage
from lakeloop.api.v1alpha1.defaults import (
    effective_deployment_spec,
    effective_training_spec,
    storage_secret_name,
    tracking_secret_name,
)


def test_training_defaults_are_those_of_the_contract() -> None:
    spec = effective_training_spec(training_job().spec)
    assert spec.dataset.split.wire() == {"by": "Random", "testFraction": 0.2, "seed": 0, "keys": []}
    assert spec.explanation.wire() == {"method": "Permutation", "sampleRows": 1000}
    assert spec.registration is not None
    assert spec.registration.promote == "OnPass"
    assert spec.objective.wire() == {}
    assert spec.run_policy.wire() == {
        "concurrency": "Forbid",
        "retries": {"infrastructure": 5, "submission": 3, "application": 0},
        "backoff": {"initialSeconds": 10, "factor": 2.0, "maxSeconds": 300},
        "activeDeadlineSeconds": 3600,
        "startDeadlineSeconds": 600,
        "ttlSecondsAfterFinished": 86400,
        "historyLimit": 10,
        "logs": {"tailBytes": 10485760},
    }
    size = {"cores": 1, "coreRequest": "250m", "memory": "1Gi", "template": {}}
    assert spec.spark.driver.wire() == size | {"memoryOverhead": "400Mi"}
    assert spec.spark.executor.wire() == size | {"instances": 1}
    assert spec.spark.dynamic_allocation.wire() == {"enabled": False, "minExecutors": 0, "maxExecutors": 4}


def test_what_settings_or_the_data_decide_stays_open() -> None:
    spec = effective_training_spec(training_job(register=None).spec)
    assert spec.spark.image is None
    assert spec.storage.endpoint is None
    assert spec.tracking.experiment is None
    assert spec.dataset.features is None
    assert spec.registration is None
    assert spec.search is None


def test_deployment_defaults_are_those_of_the_contract() -> None:
    spec = effective_deployment_spec(model_deployment().spec)
    assert spec.replicas == 1
    assert spec.gates.wire() == {
        "signature": {"required": True, "allowBreakingChange": False},
        "approval": "NotRequired",
    }
    assert spec.strategy.wire() == {"type": "RollingUpdate", "onFailure": "Rollback", "progressDeadlineSeconds": 600}
    assert (spec.autoscaling, spec.analysis, spec.shadow, spec.capture, spec.drift) == (None,) * 5
    assert spec.suspend is False


@pytest.mark.parametrize(
    ("ingest", "files"),
    [
        pytest.param({}, "New", id="mode not written"),
        pytest.param({"mode": "Append"}, "New", id="append"),
        pytest.param({"mode": "Merge", "keys": ["a"]}, "New", id="merge"),
        pytest.param({"mode": "Overwrite"}, "All", id="overwrite"),
        pytest.param({"mode": "Overwrite", "files": "New"}, "New", id="written"),
    ],
)
def test_which_files_are_ingested_follows_the_mode(ingest: dict[str, Any], files: str) -> None:
    written = {"name": "a", "uri": "s3a://lake/a", "ingest": {"from": "s3a://raw/*.json", "format": "json"} | ingest}
    effective = effective_training_spec(training_job(inputs=[written]).spec).inputs[0].ingest
    assert effective is not None
    assert effective.files == files
    assert effective.mode == ingest.get("mode", "Append")


def test_written_zeros_and_falsehoods_are_kept() -> None:
    job = training_job(
        dataset={"target": "y", "split": {"testFraction": 0}},
        runPolicy={"retries": {"infrastructure": 0}, "ttlSecondsAfterFinished": 0},
        spark={"executor": {"instances": 0}},
    )
    spec = effective_training_spec(job.spec)
    assert spec.dataset.split.test_fraction == 0
    assert spec.run_policy.retries.wire() == {"infrastructure": 0, "submission": 3, "application": 0}
    assert spec.run_policy.ttl_seconds_after_finished == 0
    assert spec.spark.executor.instances == 0
    deployment = model_deployment(replicas=0, gates={"signature": {"required": False}})
    assert effective_deployment_spec(deployment.spec).replicas == 0
    assert effective_deployment_spec(deployment.spec).gates.signature.required is False


def test_defaults_of_defaults_are_the_same() -> None:
    once = effective_training_spec(training_job().spec)
    assert effective_training_spec(once) == once


@pytest.mark.parametrize(
    ("storage", "expected"),
    [
        pytest.param(None, "lakeloop-storage", id="nothing written"),
        pytest.param(Storage(), "lakeloop-storage", id="empty"),
        pytest.param(Storage(secret_ref=SecretReference()), "lakeloop-storage", id="empty reference"),
        pytest.param(Storage(secret_ref=SecretReference(name="mine")), "mine", id="named"),
        pytest.param(Storage(service_account_name="sa"), None, id="workload identity"),
        pytest.param(
            Storage(service_account_name="sa", secret_ref=SecretReference(name="mine")), "mine", id="account and Secret"
        ),
    ],
)
def test_whose_credentials_are_used(storage: Storage | None, expected: str | None) -> None:
    assert storage_secret_name(storage) == expected


def test_tracking_secret() -> None:
    assert tracking_secret_name(None) == "lakeloop-mlflow"
    assert tracking_secret_name(SecretReference(name="mine")) == "mine"
