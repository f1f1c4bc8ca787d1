"""The champion beside the candidate: what is compared, and what is said where it cannot be."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest
from lakeloop_trainer import champion
from lakeloop_trainer.champion import Champion
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, Schema
from sklearn.linear_model import LinearRegression, LogisticRegression

FRAME = pd.DataFrame({"age": [1.0, 2.0, 3.0, 4.0], "spend": [1.0, 0.0, 1.0, 0.0]})
TRUTH = pd.Series([0, 1, 0, 1], name="left")


def signature(output: DataType = DataType.long, **columns: DataType) -> ModelSignature:
    return ModelSignature(Schema([ColSpec(kind, name) for name, kind in columns.items()]), Schema([ColSpec(output)]))


def fitted(kind: Any = LogisticRegression, columns: tuple[str, ...] = ("age", "spend")) -> Champion:
    model = kind().fit(FRAME[list(columns)], TRUTH)
    return Champion(4, dict.fromkeys(columns, "double"), "long", model)


def test_its_own_columns_are_given_to_it() -> None:
    found = champion.compare(fitted(columns=("spend",)), FRAME, TRUTH, "roc_auc", signature(age=DataType.double))
    assert (found.value, found.problem) == (1.0, None)
    assert found.schema_changes == ["spend: removed (double)", "age: added (double)"]


class Odd:
    """No scikit-learn model, and not a good one."""

    def predict(self, rows: Any) -> Any:
        raise ValueError("Mr Miller, 12 Main Street")


@pytest.mark.parametrize(
    ("found", "metric", "says"),
    [
        pytest.param(fitted(LinearRegression), "roc_auc", "r2, rmse, mae", id="a regressor has no such metric"),
        pytest.param(fitted(), "rmse", "accuracy", id="a classifier neither"),
        pytest.param(Champion(4, {"income": "double"}, None, None), "roc_auc", "income", id="a column is not there"),
        pytest.param(Champion(4, None, None, Odd()), "roc_auc", "raised ValueError", id="it raises, rows unsaid"),
        pytest.param(Champion(4, problem="its files are gone"), "roc_auc", "gone", id="never loaded"),
    ],
)
def test_what_cannot_be_compared_is_said(found: Champion, metric: str, says: str) -> None:
    compared = champion.compare(found, FRAME, TRUTH, metric, None)
    assert compared.value is None
    assert compared.problem is not None
    assert says in compared.problem
    assert "Miller" not in compared.problem


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        pytest.param({"age": "long"}, {"age": DataType.double}, "age: widened from long to double", id="widened"),
        pytest.param(
            {"age": "double"}, {"age": DataType.integer}, "age: narrowed from double to integer", id="narrowed"
        ),
        pytest.param({"age": "string"}, {"age": DataType.long}, "age: changed from string to long", id="changed"),
        pytest.param({"age": "long?"}, {"age": DataType.long}, "age: long is now required", id="required"),
    ],
)
def test_schema_changes(before: dict[str, str], after: dict[str, DataType], says: str) -> None:
    assert champion.schema_changes(Champion(4, before), signature(**after)) == [says]


def test_another_kind_of_prediction() -> None:
    old = Champion(4, {"age": "long"}, "string")
    assert champion.schema_changes(old, signature(age=DataType.long)) == ["prediction: changed from string to long"]


def test_an_array_of_answers_is_as_good_as_a_column_of_them() -> None:
    import numpy as np
    from mlflow.types import TensorSpec

    columns = Schema([ColSpec(DataType.long, "age")])
    for kind, name in (("int64", DataType.long), ("float64", DataType.double), ("O", DataType.string)):
        array = ModelSignature(columns, Schema([TensorSpec(np.dtype(kind), (-1,))]))
        inputs, output = champion.signature_types(array)
        assert champion.schema_changes(Champion(4, inputs, output), signature(name, age=DataType.long)) == []


def test_many_changes_fit_the_result() -> None:
    changes = [f"column{i}: added (double)" for i in range(500)]
    told = champion.Comparison(4, 0.5, None, changes).document()["schemaChanges"]
    assert len(told) == champion.MOST_CHANGES + 1
    assert told[-1] == "480 more changes"


def test_columns_to_read_beside() -> None:
    found = Champion(4, dict.fromkeys(("age", "spend", "gone"), "double"))
    assert champion.extra_columns(found, ["age"], ["age", "spend", "target"]) == ["spend"]
    assert champion.extra_columns(None, ["age"], ["age"]) == []
