"""The leaderboard's order, and lineage both ways."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from lakeloop.adapters.tracking_protocol import ModelVersion
from lakeloop.cli.errors import CliError
from lakeloop.cli.training import leaderboard, lineage, records
from lakeloop.cli.training.lineage import ModelName, TableName
from lakeloop.cli.training.records import Table

NOW = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)


def version(number: int, name: str = "churn", job: str = "team-a/churn", **tags: str) -> ModelVersion:
    """Tags by their names below `lakeloop.io/`, with `_` for what Python does not take."""
    own = {"lakeloop.io/training-job": job, "lakeloop.io/run": str(number)}
    own |= {f"lakeloop.io/{key.replace('__', '.').replace('_', '-')}": value for key, value in tags.items()}
    made = int(NOW.timestamp() * 1000) - 60_000 + number * 1000
    return ModelVersion(name, number, f"s3://mlflow/{name}/{number}", f"run{number}", "READY", own, (), made)


def auc(number: int, value: str, **more: Any) -> ModelVersion:
    return version(number, metric__auc=value, **more)


def order(versions: list[ModelVersion], *, minimize: bool, namespace: str | None = None) -> list[int]:
    places = leaderboard.ranked(versions, {}, "auc", minimize=minimize, namespace=namespace)
    return [each.version.version for each in places]


def test_the_best_comes_first() -> None:
    versions = [auc(1, "0.8"), auc(2, "0.95"), auc(3, "0.9")]
    assert order(versions, minimize=False) == [2, 3, 1]
    assert order(versions, minimize=True) == [1, 3, 2]


def test_the_newer_one_among_equals_and_what_is_no_number_last() -> None:
    versions = [auc(1, "0.9"), auc(2, "0.9"), auc(3, "nan"), auc(4, "what"), version(5), auc(6, "-inf")]
    assert order(versions, minimize=False) == [2, 1, 6, 3]
    assert order(versions, minimize=True) == [6, 2, 1, 3]


def test_jobs_of_a_namespace() -> None:
    versions = [auc(1, "0.8"), auc(2, "0.9", job="team-b/churn"), auc(3, "0.7", job="team-a2/churn")]
    assert order(versions, minimize=False, namespace="team-a") == [1]


@pytest.mark.parametrize(
    ("metric", "smaller"), [("rmse", True), ("log_loss", True), ("test_mae", True), ("roc_auc", False), ("own", False)]
)
def test_which_end_is_the_better_one(metric: str, smaller: bool) -> None:
    assert leaderboard.smaller_is_better(metric) is smaller


def test_metrics_the_most_frequent_first() -> None:
    versions = [auc(1, "1"), auc(2, "1"), version(3, metric__rmse="2"), version(4)]
    assert leaderboard.metric_names(versions) == ["auc", "rmse"]


def test_a_place_in_words() -> None:
    place = leaderboard.ranked(
        [auc(5, "0.91", input__customers="s3a://lake/customers@12", digest="sha256:abc")],
        {("churn", 5): ["champion"]},
        "auc",
        minimize=False,
    )
    (row,) = leaderboard.rows(place, NOW)
    assert row == {
        "RANK": "1", "MODEL": "churn/5", "METRIC": "0.91", "ALIASES": "champion", "JOB": "team-a/churn", "RUN": "5",
        "TABLES": "customers@12", "AGE": "55s",
    }  # fmt: skip
    document = leaderboard.document(place[0], "auc", 1)
    assert document["inputs"] == [{"name": "customers", "uri": "s3a://lake/customers", "version": 12}]
    assert (document["run"], document["digest"]) == (5, "sha256:abc")
    (undefined,) = leaderboard.ranked([auc(1, "nan")], {}, "auc", minimize=False)
    assert json.loads(json.dumps(leaderboard.document(undefined, "auc", 1)))["metric"]["value"] is None


@pytest.mark.parametrize(
    ("text", "table", "expected"),
    [
        ("churn", None, ModelName("churn")),
        ("churn/5", None, ModelName("churn", 5)),
        ("churn@champion", None, ModelName("churn", None, "champion")),
        ("my model/5", None, ModelName("my model", 5)),
        ("s3a://lake/a/b", None, TableName("s3a://lake/a/b")),
        ("s3://lake/a/b/@3", None, TableName("s3://lake/a/b/", 3)),
        ("s3a://lake/a/b@3", None, TableName("s3a://lake/a/b", 3)),
        (None, "sales.customers", TableName("sales.db/customers")),
        (None, "sales.customers@4", TableName("sales.db/customers", 4)),
    ],
)
def test_what_is_asked_about(text: str | None, table: str | None, expected: Any) -> None:
    assert lineage.subject(text, table) == expected


@pytest.mark.parametrize(
    ("text", "table"), [(None, None), ("a", "b"), ("churn/v5", None), ("churn/5/6", None), (None, "a.b@new")]
)
def test_what_cannot_be_asked_about(text: str | None, table: str | None) -> None:
    with pytest.raises(CliError, match=r"write|neither"):
        lineage.subject(text, table)


def test_models_that_learned_from_a_table() -> None:
    versions = [
        version(1, input__a="s3a://lake/sales.db/customers@1"),
        version(2, input__a="s3a://lake/sales.db/customers@2", input__b="s3a://lake/other@2"),
        version(3, input__a="s3a://lake/sales.db/customers2@2"),
        version(4, input__a="s3a://lake/sales.db/customers@None"),
    ]

    def found(uri: str, number: int | None = None) -> list[tuple[int, str, int | None]]:
        learned = records.versions_learned_from(versions, uri, number)
        return [(each.version, table.name, table.version) for each, table in learned]

    assert found("s3a://lake/sales.db/customers", 2) == [(2, "a", 2)]
    assert found("s3://lake/sales.db/customers/") == [(1, "a", 1), (2, "a", 2)]
    assert found("sales.db/customers") == found("s3a://lake/sales.db/customers")
    assert found("s3a://lake/other") == [(2, "b", 2)]
    assert found("customers") == found("s3a://lake/sales.db/customers")
    assert found("s3a://lake/nothing") == []


RUN = {
    "info": {"run_id": "run5", "status": "FINISHED", "artifact_uri": "s3://mlflow/1/run5/artifacts", "start_time": 1},
    "data": {
        "params": [{"key": "0.C", "value": "1"}, {"key": "dataset.rows.train", "value": "455"}, {"key": "inputs.a", "value": "x"}],
        "metrics": [{"key": "test_auc", "value": 0.9}],
        "tags": [
            {"key": "lakeloop.io/training-job", "value": "team-a/churn"},
            {"key": "lakeloop.io/run", "value": "5"},
            {"key": "lakeloop.io/trigger", "value": "Schedule"},
            {"key": "lakeloop.io/code-digest", "value": "sha256:code"},
            {"key": "mlflow.user", "value": "root"},
        ],
    },
    "inputs": {"dataset_inputs": [{"dataset": {"name": "a", "profile": '{"uri": "s3a://lake/a", "version": 3}'}}]},
}  # fmt: skip


def test_a_record_from_mlflow_alone() -> None:
    record = records.of_mlflow(RUN)
    assert (record.namespace, record.job, record.number, record.phase) == ("team-a", "churn", 5, "Succeeded")
    assert record.tables == (Table("a", "s3a://lake/a", 3),)
    assert record.rows == {"train": "455"}
    assert record.tags["code-digest"] == "sha256:code"
    assert record.trigger == "Schedule"
    assert record.name == "churn:5"


def test_all_that_a_model_leads_back_to() -> None:
    own = version(5, image="trainer:1@sha256:img", image_id="sha256:img", input__a="s3a://lake/a@3", digest="sha256:m")
    record = records.with_run(records.with_version(records.Record("team-a", "churn", 5), own), RUN)
    environment = lineage.environment(b"# a comment\nscikit-learn==1.8.0\n\nnumpy==2.3\n", b"python: 3.11.14\n")
    servers = lineage.servers_of(
        [
            {
                "metadata": {"namespace": "team-a", "name": "shop"},
                "spec": {"model": {"name": "churn"}},
                "status": {"stable": {"version": 5}, "candidate": {"version": 6}},
            },
            {"metadata": {"namespace": "team-a", "name": "new"}, "spec": {"model": {"name": "churn"}}},
        ]
    )
    found = lineage.model_document(own, record, environment, servers["churn", 5])
    assert found["environment"] == {"python": "3.11.14", "requirements": ["scikit-learn==1.8.0", "numpy==2.3"]}
    assert found["servedBy"] == [{"namespace": "team-a", "name": "shop", "role": "stable"}]
    assert found["inputs"] == [{"name": "a", "uri": "s3a://lake/a", "version": 3}]
    assert found["code"]["digest"] == "sha256:code"
    assert found["image"] == {"name": "trainer:1@sha256:img", "id": "sha256:img"}
    fields = dict(lineage.model_fields(found, ""))
    assert fields["tables"] == "a  s3a://lake/a@3"
    assert fields["rows"] == "455 train"
    assert fields["served by"] == "team-a/shop"
    assert servers["churn", 6][0].text == "team-a/shop (candidate)"
    assert "0.C = 1" in fields["parameters"]


def test_a_model_that_somebody_else_registered() -> None:
    own = ModelVersion("m", 1, "s3://x", None, "READY", {}, (), 0)
    found = lineage.model_document(own, records.Record("", "", 0), None, ())
    fields = dict(lineage.model_fields(found, "no credentials"))
    assert fields["job"] == "not trained by a TrainingJob"
    assert fields["served by"] == "nothing"
    assert fields["environment"] == "no credentials"
    assert lineage.environment(None, None) is None
