"""Steps of Spark ML before there is any Spark: classes, parameters, and which column goes where."""

from __future__ import annotations

from typing import Any

import pytest
from lakeloop_trainer.failures import RunFailure
from lakeloop_trainer.run_spec import Step
from lakeloop_trainer.spark_ml import steps, wiring
from lakeloop_trainer.spark_ml.rows import without_values

FEATURE = "pyspark.ml.feature"
LOGISTIC = ("pyspark.ml.classification.LogisticRegression", {})
COLUMNS = {"age": "int", "spend": "double", "colour": "string", "vip": "boolean"}
NUMBERS = {"age": "int", "spend": "double", "vip": "boolean"}


def checked(*given: tuple[str, dict[str, Any]]) -> tuple[steps.Stage, ...]:
    return steps.check([Step(name, params) for name, params in given], 7)


def wired(columns: dict[str, str], *given: tuple[str, dict[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    """(class, its column parameters) of each stage."""
    found = wiring.wire(checked(*given), columns, "churned", named=False)
    return [(step.name, {k: v for k, v in params.items() if k.endswith(("Col", "Cols"))}) for step, params in
            found.stages]  # fmt: skip


@pytest.mark.parametrize(
    ("given", "reason", "field", "says"),
    [
        pytest.param([("Ridge", {})], "ImportError", "[0].class", "with its module", id="no module"),
        pytest.param(
            [("pyspark.ml.classification.LogisticRegresion", {})], "ImportError", "[0].class",
            "did you mean pyspark.ml.classification.LogisticRegression?", id="a typing mistake",
        ),
        pytest.param([("pyspark.ml.nothing.X", {})], "ImportError", "[0].class", "cannot be imported", id="no module of it"),
        pytest.param(
            [("sklearn.linear_model.Ridge", {})], "ImportError", "[0].class", "no estimator or transformer of Spark",
            id="scikit-learn",
        ),
        pytest.param(
            [("pyspark.ml.classification.LogisticRegressionModel", {})], "ImportError", "[0].class", "no estimator",
            id="a fitted model",
        ),
        pytest.param(
            [("pyspark.ml.tuning.CrossValidator", {})], "ImportError", "[0].class", "no estimator", id="a tuner",
        ),
        pytest.param(
            [(LOGISTIC[0], {"regparam": 1})], "InvalidParameter", "[0].params.regparam", "did you mean regParam?",
            id="no such parameter",
        ),
        pytest.param(
            [(LOGISTIC[0], {"regParam": "much"})], "InvalidParameter", "[0].params.regParam", "float", id="text for a number",
        ),
        pytest.param(
            [(LOGISTIC[0], {"maxIter": 1.5})], "InvalidParameter", "[0].params.maxIter", "int", id="half an iteration",
        ),
        pytest.param(
            [(LOGISTIC[0], {"fitIntercept": 1})], "InvalidParameter", "[0].params.fitIntercept", "Boolean", id="no boolean",
        ),
        pytest.param(
            [(LOGISTIC[0], {"labelCol": "y"})], "InvalidParameter", "[0].params.labelCol", "spec.dataset.target",
            id="a label of its own",
        ),
        pytest.param([LOGISTIC, LOGISTIC], "InvalidParameter", "[0].class", "only the last", id="two learners"),
        pytest.param(
            [(f"{FEATURE}.StandardScaler", {})], "InvalidParameter", "[0].class", "does not learn a label", id="no learner",
        ),
        pytest.param(
            [("pyspark.ml.clustering.KMeans", {})], "InvalidParameter", "[0].class", "does not learn a label", id="clusters",
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_step_is_told(given: Any, reason: str, field: str, says: str) -> None:
    with pytest.raises(RunFailure) as caught:
        checked(*given)
    assert (caught.value.reason, caught.value.field) == (reason, f"spec.estimator.steps{field}")
    assert says in caught.value.message


def test_a_number_becomes_what_the_parameter_is() -> None:
    (stage,) = checked(("pyspark.ml.classification.RandomForestClassifier", {"subsamplingRate": 1, "numTrees": 5.0}))
    assert stage.params == {"subsamplingRate": 1.0, "numTrees": 5, "seed": 7}
    assert isinstance(stage.params["subsamplingRate"], float)
    assert isinstance(stage.params["numTrees"], int)


def test_a_seed_that_was_given_stays() -> None:
    (stage,) = checked(("pyspark.ml.classification.RandomForestClassifier", {"seed": 3}))
    assert stage.params["seed"] == 3


@pytest.mark.parametrize(
    ("columns", "given", "expected"),
    [
        pytest.param(
            NUMBERS, [LOGISTIC],
            [("VectorAssembler", {"inputCols": ["age", "spend", "vip"], "outputCol": "features"})],
            id="numbers alone",
        ),
        pytest.param(
            NUMBERS, [(f"{FEATURE}.StandardScaler", {}), LOGISTIC],
            [("VectorAssembler", {"inputCols": ["age", "spend", "vip"], "outputCol": "features"}),
             ("StandardScaler", {"inputCol": "features", "outputCol": "features_2"})],
            id="a scaler",
        ),
        pytest.param(
            COLUMNS,
            [(f"{FEATURE}.StringIndexer", {}), (f"{FEATURE}.OneHotEncoder", {}), (f"{FEATURE}.Imputer", {}),
             (f"{FEATURE}.VectorAssembler", {}), LOGISTIC],
            [("StringIndexer", {"inputCols": ["colour"], "outputCols": ["colour_index"]}),
             ("OneHotEncoder", {"inputCols": ["colour_index"], "outputCols": ["colour_index_vector"]}),
             ("Imputer", {"inputCols": ["age", "spend"], "outputCols": ["age_imputed", "spend_imputed"]}),
             ("VectorAssembler", {"inputCols": ["vip", "colour_index_vector", "age_imputed", "spend_imputed"],
                                  "outputCol": "features"})],
            id="text and gaps",
        ),
        pytest.param(
            COLUMNS,
            [(f"{FEATURE}.VectorAssembler", {"inputCols": ["spend"], "outputCol": "chosen"}), LOGISTIC],
            [("VectorAssembler", {"inputCols": ["spend"], "outputCol": "chosen"})],
            id="chosen columns",
        ),
        pytest.param(
            {**NUMBERS, "features": "double", "label": "int"}, [LOGISTIC],
            [("VectorAssembler", {"inputCols": ["age", "spend", "vip", "features", "label"],
                                  "outputCol": "features_2"})],
            id="a column named as Spark names its own",
        ),
        pytest.param(
            {"text": "string", "age": "int"},
            [(f"{FEATURE}.Tokenizer", {"inputCol": "text"}),
             (f"{FEATURE}.HashingTF", {"inputCol": "text_tokenizer"}), LOGISTIC],
            [("Tokenizer", {"inputCol": "text", "outputCol": "text_tokenizer"}),
             ("HashingTF", {"inputCol": "text_tokenizer", "outputCol": "text_tokenizer_hashingtf"}),
             ("VectorAssembler", {"inputCols": ["age", "text_tokenizer_hashingtf"], "outputCol": "features"})],
            id="words",
        ),
        pytest.param(
            NUMBERS, [("pyspark.ml.classification.LogisticRegression", {"weightCol": "spend"})],
            [("VectorAssembler", {"inputCols": ["age", "vip"], "outputCol": "features"})],
            id="a weight is no feature",
        ),
    ],
)  # fmt: skip
def test_columns_find_their_steps(columns: Any, given: Any, expected: Any) -> None:
    found = wired(columns, *given)
    assert found[:-1] == expected
    vector = expected[-1][1]["outputCol"]
    assert found[-1][1]["featuresCol"] == vector
    assert found[-1][1]["predictionCol"] == "predicted_class"
    assert found[-1][1]["labelCol"] == ("label_2" if "label" in columns else "label")


def test_a_regressor_answers_in_the_column_that_mlflow_reads() -> None:
    found = wiring.wire(checked(("pyspark.ml.regression.LinearRegression", {})), NUMBERS, "y", named=False)
    assert (found.raw_prediction, found.scores, found.probabilities) == ("prediction", None, False)


@pytest.mark.parametrize(
    ("learner", "scores", "probabilities"),
    [("LogisticRegression", "probability", True), ("LinearSVC", "rawPrediction", False)],
)
def test_scores_are_probabilities_where_there_are_any(learner: str, scores: str, probabilities: bool) -> None:
    found = wiring.wire(checked((f"pyspark.ml.classification.{learner}", {})), NUMBERS, "y", named=False)
    assert (found.scores, found.probabilities) == (scores, probabilities)


@pytest.mark.parametrize(
    ("columns", "given", "reason", "field", "says"),
    [
        pytest.param(COLUMNS, [LOGISTIC], "NonNumericFeature", "spec.dataset.features", "colour", id="text"),
        pytest.param(
            {"prediction": "int"}, [LOGISTIC], "SchemaMismatch", "spec.dataset.query", "rename", id="the answer's name"
        ),
        pytest.param(
            {"a.b": "int"}, [LOGISTIC], "SchemaMismatch", "spec.dataset.query", "rename a.b", id="a dot in a name"
        ),
        pytest.param(
            NUMBERS, [(f"{FEATURE}.StringIndexer", {}), LOGISTIC], "InvalidParameter",
            "spec.estimator.steps[0].params.inputCol", "no text column", id="nothing to index",
        ),
        pytest.param(
            NUMBERS, [(f"{FEATURE}.Binarizer", {}), LOGISTIC], "InvalidParameter",
            "spec.estimator.steps[0].params.inputCol", "say which column Binarizer works on", id="which column",
        ),
        pytest.param(
            NUMBERS, [(f"{FEATURE}.VectorAssembler", {"inputCols": ["agee"]}), LOGISTIC], "InvalidParameter",
            "spec.estimator.steps[0].params.inputCols", "no column agee", id="no such column",
        ),
        pytest.param(
            NUMBERS, [(f"{FEATURE}.VectorAssembler", {"outputCol": "age"}), LOGISTIC], "InvalidParameter",
            "spec.estimator.steps[0].params.outputCol", "a column age already", id="an output that is there",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_wired_is_told(columns: Any, given: Any, reason: str, field: str, says: str) -> None:
    with pytest.raises(RunFailure) as caught:
        wired(columns, *given)
    assert (caught.value.reason, caught.value.field) == (reason, field)
    assert says in caught.value.message


def test_the_recorded_code_is_python() -> None:
    code = steps.code_of([(LOGISTIC[0], {"regParam": 0.1, "threshold": float("inf")})])
    compile(code, "pipeline.py", "exec")
    assert "pyspark.ml.classification.LogisticRegression(regParam=0.1, threshold=float('inf'))," in code


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("Unseen label: Ada Lovelace. To handle", "Unseen label: …. To handle"),
        ("requirement failed: [1.0,2.0] in 'x'", "requirement failed: … in …"),
    ],
)
def test_no_value_of_a_row_is_told(line: str, expected: str) -> None:
    assert without_values(line) == expected


def test_a_column_that_had_nulls_may_have_them_again() -> None:
    from lakeloop_trainer.spark_ml.saving import with_optional
    from mlflow.types import ColSpec, DataType, Schema

    columns = [ColSpec(DataType.long, "age"), ColSpec(DataType.long, "kids"), ColSpec(DataType.string, "plan")]
    found = with_optional(Schema(columns), {"age", "plan"})
    assert [(each.name, each.type, each.required) for each in found.inputs] == [
        ("age", DataType.double, False),  # pandas has no integers with gaps
        ("kids", DataType.long, True),
        ("plan", DataType.string, False),
    ]
