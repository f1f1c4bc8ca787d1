"""Rows and run specs for the trainer's unit tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest


@pytest.fixture
def document() -> Callable[..., dict[str, Any]]:
    """A valid run spec as the operator writes it; keyword arguments replace its top-level keys."""

    def build(**changes: Any) -> dict[str, Any]:
        return {
            "apiVersion": "lakeloop.io/run/v1",
            "job": {"namespace": "team-a", "name": "churn", "uid": "job-uid"},
            "run": {"number": 7, "uid": "run-uid", "attempt": 1, "trigger": "SpecChange"},
            "tracking": {"uri": "http://mlflow:5000", "experiment": "churn", "runId": "abc"},
            "inputs": [{"name": "customers", "uri": "s3a://lake/customers/", "version": 12}],
            "dataset": {"query": None, "features": None, "target": "churned", "expectations": [],
                        "split": {"by": "Random", "testFraction": 0.2, "seed": 0, "keys": []}},
            "estimator": {"library": "sklearn", "steps": [
                {"class": "sklearn.linear_model.LogisticRegression", "params": {"C": 1}}]},
            "objective": None,
            "explanation": {"method": "Permutation", "sampleRows": 1000},
            "register": {"model": "churn"},
            "storage": {"endpoint": "http://minio:9000", "region": "us-east-1", "pathStyle": True},
            **changes,
        }  # fmt: skip

    return build
