"""`spec.dataset.expectations` on real rows: what is counted, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from lakeloop_trainer import dataset, expectations
from lakeloop_trainer.failures import RunFailure
from lakeloop_trainer.run_spec import Dataset, Expectation, Input, Split
from pyspark.sql import functions

pytestmark = pytest.mark.spark


@pytest.fixture(scope="module")
def lake(spark: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten rows in two files; `spend` is NULL in two of them and negative in one; and a second table."""
    folder = tmp_path_factory.mktemp("lake")
    rows = spark.range(10).selectExpr(
        "id AS tenure", "IF(id IN (3, 4), NULL, IF(id = 5, -1.5D, id * 1.0D)) AS spend", "id % 2 AS target"
    )
    rows.repartition(2).write.format("delta").save(str(folder / "points"))
    spark.range(3).selectExpr("id AS secret").write.format("delta").save(str(folder / "other"))
    return folder


@pytest.fixture
def frame(spark: Any, lake: Path) -> Any:
    """The rows, opened by a query."""
    item = Input(0, "points", str(lake / "points"), 0, None)
    dataset.register_views(spark, [item], {"points": 0})
    return dataset.open_rows(spark, Dataset("SELECT * FROM points", None, "target", Split()), [item])


def test_rows_that_violate_are_counted_in_one_job(spark: Any, frame: Any) -> None:
    wanted = [
        Expectation("spend-not-negative", "spend >= 0", True),  # NULL for two rows, false for one
        Expectation("spend-known", "spend IS NOT NULL", False),
        Expectation("tenure-small", "tenure < 10 -- years", True),
        Expectation("odd-names", "CASE WHEN target = 1 THEN `tenure` > 0 ELSE TRUE END", True),
    ]
    found = expectations.check(spark, frame, wanted)
    assert [(each.name, each.violations, each.rows) for each in found] == [
        ("spend-not-negative", 3, 10),
        ("spend-known", 2, 10),
        ("tenure-small", 0, 10),
        ("odd-names", 0, 10),
    ]
    plan = expectations.counting(frame, [functions.expr(each.expression) for each in wanted])
    text = plan._jdf.queryExecution().executedPlan().toString()
    assert text.count("FileScan") == 1
    assert "ReadSchema: struct<tenure:bigint,spend:double,target:bigint>" in text
    failure = expectations.violated(found)
    assert failure is not None
    assert (failure.failure_class, failure.reason) == ("Data", "ExpectationViolated")
    assert failure.field == "spec.dataset.expectations"
    assert failure.message.endswith("the data violates spend-not-negative (3 of 10 rows)")
    assert expectations.violated(found[1:]) is None


def test_no_rows_violate_nothing(spark: Any, frame: Any) -> None:
    (found,) = expectations.check(spark, frame.where("tenure > 99"), [Expectation("any", "tenure > 0", True)])
    assert (found.violations, found.rows) == (0, 0)


# expression → what the refusal says
BAD = {
    "tenure >": "Reading .* failed: .*(PARSE|[Ss]yntax)",
    "tenur > 0": "tenur",
    "tenure": "of type bigint, not boolean",
    "*": "more than a condition",
    "count(*) > 0": "more than a condition",
    "max(spend) OVER () > 1": "more than a condition",
    "explode(array(true, false))": "more than a condition",
    "rand() < 2": "something else each time",
    "tenure IN (SELECT secret FROM delta.`OTHER`)": ".",
    "EXISTS (SELECT 1 FROM points)": "a query of its own",
    "tenure < (SELECT max(tenure) FROM points)": "a query of its own",
    "reflect('java.lang.System', 'getenv', 'PATH') IS NOT NULL": "reflect",
    "java_method('java.lang.System', 'getenv', 'PATH') IS NOT NULL": "java_method",
    "try_reflect('java.lang.System', 'getenv', 'PATH') IS NOT NULL": "try_reflect",
    "true; DROP TABLE points": "Reading",
    "true) OR (true": "Reading",
    "CAST('x' || tenure AS INT) > 0": "CAST_INVALID_INPUT",
}


@pytest.mark.parametrize("expression", BAD)
def test_a_bad_expression_is_named_by_its_field(spark: Any, frame: Any, lake: Path, expression: str) -> None:
    wanted = [Expectation("good", "tenure >= 0", True)]
    wanted.append(Expectation("bad", expression.replace("OTHER", str(lake / "other")), True))
    with pytest.raises(RunFailure, match=f"(?s){BAD[expression]}") as caught:
        expectations.check(spark, frame, wanted)
    print(caught.value.message)
    assert (caught.value.failure_class, caught.value.reason) == ("Data", "ExpectationInvalid")
    assert caught.value.field == "spec.dataset.expectations[1].expression"
    assert "expectations[1].expression" in caught.value.message


def test_the_environment_is_not_put_into_an_expression(spark: Any, frame: Any, monkeypatch: Any) -> None:
    """Spark would replace ${env:…} and ${system:…} in any text that it parses."""
    (found,) = expectations.check(spark, frame, [Expectation("env", "'${env:PATH}' LIKE '$%'", True)])
    assert found.violations == 0


def test_a_run_is_stopped_before_it_learns_or_goes_on_and_says_so(
    drive_here: Any, run_document: Any, lake: Path, mlflow_server: Any
) -> None:
    run_id = mlflow_server.new_run("expectations")
    data = {"query": None, "features": ["tenure"], "target": "target", "split": {"testFraction": 0}}
    rules = [
        {"name": "spend-known", "expression": "spend IS NOT NULL", "onViolation": "Warn"},
        {"name": "tenure-small", "expression": "tenure < 8", "onViolation": "Fail"},
        {"name": "target-known", "expression": "target IS NOT NULL"},
    ]
    spec = run_document(
        tracking={"uri": mlflow_server.uri, "runId": run_id}, dataset={**data, "expectations": rules},
        inputs=[{"name": "points", "uri": str(lake / "points"), "version": 0}],
    )  # fmt: skip
    counted = [
        {"name": "spend-known", "violations": 2, "rows": 10},
        {"name": "tenure-small", "violations": 2, "rows": 10},
        {"name": "target-known", "violations": 0, "rows": 10},
    ]

    stopped = drive_here(spec)

    assert stopped.exit_code == 1, stopped.log
    assert stopped.result is not None
    failure = stopped.result["failure"]
    assert (failure["class"], failure["reason"]) == ("Data", "ExpectationViolated")
    assert "tenure-small (2 of 10 rows)" in failure["message"]
    assert "spend-known" not in failure["message"]
    assert stopped.result["expectations"] == counted
    assert "fit" not in [line.split()[0] for line in stopped.log.splitlines() if line.startswith("  ")]
    run = mlflow_server.call(f"runs/get?run_id={run_id}")["run"]
    logged = {item["key"]: item["value"] for item in run["data"]["metrics"]}
    assert logged == {
        "expectations.spend-known.violations": 2,
        "expectations.tenure-small.violations": 2,
        "expectations.target-known.violations": 0,
        "expectations.rows": 10,
    }

    spec["dataset"]["expectations"][1]["onViolation"] = "Warn"
    went_on = drive_here(spec, attempt=2)

    assert went_on.exit_code == 0, went_on.log
    assert went_on.result is not None
    assert went_on.result["expectations"] == counted
    artifacts = Path(run["info"]["artifact_uri"].removeprefix("file://"))
    assert json.loads((artifacts / "lakeloop/result.json").read_text())["expectations"] == counted
