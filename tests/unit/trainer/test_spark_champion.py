"""The champion where its library is not the run's: fetched as what it is, and brought to rows or rows to it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from lakeloop_trainer import champion
from lakeloop_trainer.champion import Champion, SparkModel
from lakeloop_trainer.failures import RunFailure
from lakeloop_trainer.run_spec import Champion as Pinned
from lakeloop_trainer.spark_ml.champion import scored, scored_beside
from lakeloop_trainer.spark_ml.rows import Rows
from lakeloop_trainer.split import COLUMN
from sklearn.linear_model import LogisticRegression

FRAME = pd.DataFrame({"age": [1, 2, 3, 4], "spend": [1.0, 0.0, 1.0, 0.0], "vip": [True, None, False, True]})
TRUTH = pd.Series([0, 1, 0, 1], name="left")


class Spread:
    """Rows that executors have, as far as a champion in the driver asks for them."""

    def __init__(self, error: str | None = None) -> None:
        self.table = pa.Table.from_pandas(FRAME.assign(left=TRUTH), preserve_index=False)
        self.columns = [*self.table.column_names, COLUMN]
        self.dtypes = [("age", "bigint"), ("spend", "double"), ("vip", "boolean"), ("left", "bigint")]
        self.brought: list[str] = []
        self._error = error

    def filter(self, _side: str) -> Spread:
        return self

    def select(self, *columns: str) -> Spread:
        self.brought = [name.strip("`") for name in columns]
        return self

    def toArrow(self) -> Any:
        if self._error:
            raise RuntimeError(self._error)
        return self.table.select(self.brought)


def rows_of(frame: Any) -> Rows:
    features = dict.fromkeys(("age", "spend"), "double")
    return Rows(frame, features, "left", 10, 4, 0, (0, 1))


def fitted(*columns: str) -> Champion:
    model = LogisticRegression().fit(FRAME[list(columns)].astype(float).fillna(0.5), TRUTH)
    return Champion(4, dict.fromkeys(columns, "double"), "long", model)


def test_rows_come_to_a_champion_of_scikit_learn_and_no_more_than_its_columns() -> None:
    spread = Spread()
    found = scored(fitted("spend"), rows_of(spread), "roc_auc", local=True, room=1 << 20)
    assert spread.brought == ["spend", "left"]
    compared = champion.compare(found, None, None, "roc_auc", None)
    assert (compared.version, compared.value, compared.problem) == (4, 1.0, None)


class Odd:
    """No scikit-learn model: it has seen what it was given, and answers or does not."""

    def __init__(self, answers: Any) -> None:
        self.answers = answers
        self.seen: Any = None

    def predict(self, rows: Any) -> Any:
        self.seen = rows
        if self.answers is None:
            raise ValueError("Mr Miller, 12 Main Street")
        return self.answers


def test_a_champion_of_another_flavor_gets_the_columns_as_a_run_of_scikit_learn_has_them() -> None:
    model = Odd([0, 1, 1, 1])
    found = scored(Champion(4, None, None, model), rows_of(Spread()), "accuracy", local=True, room=1 << 20)
    assert found.value == 0.75
    assert list(model.seen.columns) == ["age", "spend"]  # without a signature: what the run learns from
    model = Odd([0, 1, 0, 1])
    inputs = {"vip": "double", "age": "long"}
    scored(Champion(4, inputs, None, model), rows_of(Spread()), "accuracy", local=True, room=1 << 20)
    assert [str(kind) for kind in model.seen.dtypes] == ["float64", "int64"]  # a boolean with a gap is a number


@pytest.mark.parametrize(
    ("found", "metric", "room", "says"),
    [
        pytest.param(fitted("spend"), "accuracy", 50, "spec.spark.driver.memoryOverhead", id="too many rows"),
        pytest.param(fitted("spend"), "rmse", 1 << 20, "accuracy", id="no such metric"),
        pytest.param(Champion(4, {"income": "double"}), "accuracy", 1 << 20, "income", id="no such column"),
        pytest.param(Champion(4, {COLUMN: "double"}), "accuracy", 1 << 20, COLUMN, id="the split is no column"),
        pytest.param(Champion(4, None, None, Odd(None)), "accuracy", 1 << 20, "raised ValueError", id="rows unsaid"),
        pytest.param(Champion(4, None, None, Odd([0, 1, 1, 1])), "roc_auc", 1 << 20, "not defined", id="no scores"),
        pytest.param(Champion(4, problem="its files are gone"), "accuracy", 1 << 20, "gone", id="never loaded"),
    ],
)
def test_what_cannot_be_compared_is_said(found: Champion, metric: str, room: int, says: str) -> None:
    there = scored(found, rows_of(Spread()), metric, local=True, room=room)
    compared = champion.compare(there, None, None, metric, None)
    assert compared.value is None
    assert compared.problem is not None
    assert says in compared.problem
    assert "Miller" not in compared.problem


def test_what_the_store_does_is_not_the_champions_fault() -> None:
    with pytest.raises(RunFailure) as caught:
        scored(fitted("spend"), rows_of(Spread("Connection refused")), "accuracy", local=True, room=1 << 20)
    assert caught.value.reason == "StorageUnavailable"
    large = Spread("Total size is bigger than spark.driver.maxResultSize")
    there = scored(fitted("spend"), rows_of(large), "accuracy", local=True, room=1 << 20)
    assert "maxResultSize" in (there.problem or "")


def test_a_champion_that_spark_does_not_score_is_left_as_it_is() -> None:
    from lakeloop_trainer import dataset

    found = fitted("spend")
    rows = dataset.Rows(FRAME, TRUTH, FRAME, TRUTH, 0, {})
    assert scored_beside(found, rows, "accuracy", local=True) is found


def files(folder: Path, metadata: Any) -> Pinned:
    (folder / "sparkml").mkdir(parents=True)
    (folder / "MLmodel").write_text(
        json.dumps({"flavors": {"spark": {"model_data": "sparkml"}}, "metadata": metadata, "model_uuid": "m"})
    )
    return Pinned("tumours", 4, str(folder), None)


def test_the_files_of_a_spark_model_stay_for_spark(tmp_path: Path) -> None:
    known = {"predicted": "p", "scores": None, "probabilities": False, "classes": []}
    found = champion.fetch(files(tmp_path / "model", {"lakeloop": known}), tmp_path / "fetched")
    assert found.problem is None
    assert isinstance(found.model, SparkModel)
    assert found.model.known == known
    assert (found.model.folder / "MLmodel").is_file()


def test_a_spark_model_of_others_is_told_of(tmp_path: Path) -> None:
    found = champion.fetch(files(tmp_path / "model", None), tmp_path / "fetched")
    assert "no run of Lakeloop's made it" in (found.problem or "")
    assert not (tmp_path / "fetched").exists()
