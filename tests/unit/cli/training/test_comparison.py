"""Two runs side by side, a record as a new job, and what of a model was learned."""

import io
import json
import zipfile
from typing import Any

import pytest

from builders import training_job_dict
from lakeloop.api.v1alpha1.spec_hash import training_parts
from lakeloop.api.v1alpha1.trainingjob import parse_training_job
from lakeloop.cli.errors import CliError
from lakeloop.cli.training import comparison, learned, reproduction
from lakeloop.cli.training.recall import RunName, named
from lakeloop.cli.training.records import Record, Table

NAN = float("nan")
A = Record(
    namespace="team-a",
    job="churn",
    number=3,
    uid="three",
    phase="Succeeded",
    trigger="SpecChange",
    tables=(Table("customers", "s3a://lake/customers", 12),),
    parameters={"0.C": "1", "dataset.rows.train": "455", "inputs.customers": "s3a://lake/customers@12"},
    metrics={"roc_auc": 0.91, "train_roc_auc": NAN},
    tags={"code-digest": "sha256:a", "seed": "0", "image": "trainer:1"},
    model="churn/5",
    digest="sha256:m",
)
B = Record(
    namespace="team-a",
    job="churn",
    number=4,
    phase="Succeeded",
    trigger="Manual",
    tables=(Table("customers", "s3a://lake/customers", 13),),
    parameters={"0.C": "2", "dataset.rows.train": "460", "1.new": "x"},
    metrics={"roc_auc": 0.92, "train_roc_auc": NAN},
    tags={"code-digest": "sha256:b", "seed": "0", "image": "trainer:1"},
    model="churn/6",
    digest="sha256:n",
)


def test_only_what_differs_differs() -> None:
    unlike = {(each.what, each.name): (each.a, each.b) for each in comparison.pairs_of(A, B) if not each.same}
    assert unlike == {
        ("run", "trigger"): ("SpecChange", "Manual"),
        ("run", "model"): ("churn/5", "churn/6"),
        ("data", "customers"): ("s3a://lake/customers@12", "s3a://lake/customers@13"),
        ("data", "rows.train"): ("455", "460"),
        ("code", "code-digest"): ("sha256:a", "sha256:b"),
        ("parameter", "0.C"): ("1", "2"),
        ("parameter", "1.new"): (None, "x"),
        ("metric", "roc_auc"): (0.91, 0.92),
        ("model", "digest"): ("sha256:m", "sha256:n"),
    }
    assert all(each.same for each in comparison.pairs_of(A, A))


def test_rows_of_a_difference() -> None:
    rows = comparison.rows([each for each in comparison.pairs_of(A, B) if each.name == "1.new"])
    assert rows == [{"WHAT": "parameter", "NAME": "1.new", "A": "", "B": "x", "SAME": "no"}]


@pytest.mark.parametrize(
    ("a", "b", "tolerance", "equal"),
    [
        (0.5, 0.5, 0, True),
        (0.5, 0.5 + 1e-9, 1e-6, True),
        (0.5, 0.5 + 1e-9, 0, False),
        (1e9, 1e9 + 100, 1e-6, True),
        (0.0, 1e-7, 1e-6, True),
        (0.5, 0.6, 1e-6, False),
        (NAN, NAN, 0, True),
        (NAN, 0.5, 1, False),
        (float("inf"), float("inf"), 0, True),
    ],
)
def test_within(a: float, b: float, tolerance: float, equal: bool) -> None:
    assert comparison.within(a, b, tolerance) is equal


def test_metrics_of_the_record_decide() -> None:
    found = comparison.metrics(
        {"a": 1.0, "b": 2.0, "champion.a": 0.9, "system/cpu": 3.0, "lakeloop/fit_seconds": 3.0},
        {"a": 1.0 + 1e-9, "c": 3.0},
        1e-6,
    )
    assert [(each.name, each.equal) for each in found] == [("a", True), ("b", False)]
    assert comparison.metric_rows(found)[1] == {
        "METRIC": "b", "RECORDED": "2.0", "REPRODUCED": "", "DIFFERENCE": "", "EQUAL": "no",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("words", "numbers", "expected"),
    [
        (("churn",), (3, 4), (RunName("churn", 3), RunName("churn", 4))),
        (("churn:3", "other:12"), (), (RunName("churn", 3), RunName("other", 12))),
    ],
)
def test_two_runs_are_named(words: Any, numbers: Any, expected: Any) -> None:
    assert named(words, numbers) == expected


@pytest.mark.parametrize(
    ("words", "numbers"), [(("churn",), (3,)), (("churn:3",), ()), (("a:1", "b"), ()), (("a:1", "b:0"), ()), (("a:1",), (1, 2))]
)  # fmt: skip
def test_what_names_no_two_runs(words: Any, numbers: Any) -> None:
    with pytest.raises(CliError, match="write two runs"):
        named(words, numbers)


# -- a record as a job


SPEC = training_job_dict(
    inputs=[
        {"name": "customers", "table": "sales.customers", "ingest": {"from": "s3a://raw/*.json", "format": "json"}}
    ],
    objective={"metric": "roc_auc"},
    evaluation={"thresholds": [{"metric": "roc_auc", "min": 0.7}]},
    spark={"conf": {"spark.sql.ansi.enabled": "true"}, "driver": {"memory": "1Gi"}},
)["spec"]


def test_the_job_that_runs_a_record_again() -> None:
    job = training_job_dict(
        dataset={"target": "changed since"},
        triggers={"schedule": {"cron": "* * * * *"}},
        suspend=True,
        storage={"secretRef": {"name": "lake"}},
        spark={"conf": {"x": "changed since"}, "driver": {"memory": "3Gi"}},
        runPolicy={"activeDeadlineSeconds": 60},
        tracking={"experiment": "changed since", "tags": {"a": "b"}, "secretRef": {"name": "mlflow"}},
    )
    made = reproduction.manifest(job, training_parts(SPEC), A, "team-a/churn")
    assert made["metadata"]["name"] == "churn-repro-3"
    spec = made["spec"]
    assert spec["inputs"] == [{"name": "customers", "uri": "s3a://lake/customers", "version": 12}]
    assert spec["dataset"] == SPEC["dataset"]
    assert spec["estimator"] == SPEC["estimator"]
    assert spec["spark"] == {
        "driver": {"memory": "3Gi"},
        "conf": {"spark.sql.ansi.enabled": "true"},
        "image": "trainer:1",
    }
    assert spec["storage"] == {"secretRef": {"name": "lake"}}
    assert spec["runPolicy"] == {"activeDeadlineSeconds": 60}
    assert spec["tracking"] == {
        "experiment": "team-a/churn", "tags": {"reproduces": "team-a/churn:3"}, "secretRef": {"name": "mlflow"},
    }  # fmt: skip
    assert not spec.keys() & {"register", "evaluation", "triggers", "suspend"}
    stored = {**made, "metadata": {**made["metadata"], "uid": "u", "generation": 1, "resourceVersion": "1"}}
    parse_training_job(stored, strict=True)


def test_a_job_that_is_gone_is_run_again_from_its_record() -> None:
    made = reproduction.manifest(None, training_parts(SPEC), A, None)
    assert made["spec"]["inputs"][0]["version"] == 12
    assert "storage" not in made["spec"]


def test_the_annotation_is_no_action() -> None:
    (key,) = reproduction.manifest(None, training_parts(SPEC), A, None)["metadata"]["annotations"]
    assert not key.startswith("lakeloop.io/"), "the operator would answer it as an unknown action"


@pytest.mark.parametrize("job", ["churn", "a" * 40, "a" * 31 + "-" + "b" * 8])
def test_the_name_is_one_of_a_resource(job: str) -> None:
    name = reproduction.name_for(job, 12)
    assert len(name) <= 40
    assert name.endswith("-repro-12")
    assert "--" not in name


def test_where_the_spec_is_recorded() -> None:
    parts = training_parts(SPEC)
    config_map = {"metadata": {"labels": {"lakeloop.io/run-uid": "three"}}, "data": {"spec.json": json.dumps(SPEC)}}
    other = {**config_map, "metadata": {"labels": {"lakeloop.io/run-uid": "another"}}}
    assert reproduction.recorded_spec({"written": parts}, None, A) == parts
    assert reproduction.recorded_spec({}, config_map, A) == parts
    with pytest.raises(CliError, match="does not hold the spec"):
        reproduction.recorded_spec({}, other, A)


def test_a_run_that_never_pinned_its_inputs() -> None:
    record = Record("team-a", "churn", 3, tables=(Table("customers", "s3a://lake/customers", None),))
    with pytest.raises(CliError, match="has no version of input customers"):
        reproduction.manifest(None, training_parts(SPEC), record, None)


# -- what of a model was learned


def skops(addresses: list[int], coefficient: bytes = b"0.5", when: tuple[int, ...] = (2026, 1, 1, 0, 0, 0)) -> bytes:
    """An archive as skops writes it: objects by their addresses in memory."""
    root, array = addresses
    schema = {
        "__class__": "LogisticRegression",
        "content": {"coef_": {"type": "numpy", "file": f"{array}.npy", "__id__": array}, "again": {"__id__": root}},
        "__id__": root,
        "protocol": 2,
    }
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in ((f"{array}.npy", coefficient), ("schema.json", json.dumps(schema).encode())):
            archive.writestr(zipfile.ZipInfo(name, when), content)  # type: ignore[arg-type]
    return buffer.getvalue()


def model(run: str, **parts: bytes) -> dict[str, bytes]:
    description = (
        f"run_id: {run}\nmodel_uuid: m-{run}\nutc_time_created: '{run}'\nflavors: {{sklearn: {{}}}}\nsignature: x\n"
    )
    return {"MLmodel": description.encode(), "requirements.txt": b"a==1\n", **parts}


def test_two_trainings_learn_the_same() -> None:
    first = model("one", **{"model.skops": skops([140, 99])})
    second = model("two", **{"model.skops": skops([7, 12345], when=(2026, 2, 2, 0, 0, 0))})
    assert first["model.skops"] != second["model.skops"]
    assert learned.digest(first) == learned.digest(second)
    assert learned.different(first, second) == []


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("model.skops", skops([140, 99], coefficient=b"0.50001")),
        ("MLmodel", b"run_id: one\nflavors: {sklearn: {}}\nsignature: y\n"),
        ("requirements.txt", b"a==2\n"),
        ("extra.txt", b""),
        ("model.skops", b"no archive"),
    ],
)
def test_what_was_learned_otherwise_is_named(name: str, content: bytes) -> None:
    first = model("one", **{"model.skops": skops([140, 99])})
    assert learned.different(first, {**first, name: content}) == [name]
    assert learned.digest(first) != learned.digest({**first, name: content})


def test_random_names_of_spark_are_left_out() -> None:
    def saved(uid: str, part: str, when: int) -> dict[str, bytes]:
        folder = f"sparkml/stages/0_LogisticRegression_{uid}"
        line = {"class": "x", "timestamp": when, "uid": f"LogisticRegression_{uid}", "paramMap": {"regParam": 0.1}}
        return {
            f"{folder}/metadata/part-00000": json.dumps(line).encode() + b"\n",
            f"{folder}/data/part-00000-{part}-c000.snappy.parquet": b"rows",
            f"{folder}/data/.part-00000-{part}-c000.snappy.parquet.crc": part.encode(),
        }

    one = saved("0123456789ab", "11111111-2222-3333-4444-555555555555", 1)
    two = saved("ba9876543210", "66666666-7777-8888-9999-000000000000", 2)
    assert learned.different(one, two) == []


def test_any_bytes_have_a_digest() -> None:
    for name in ("MLmodel", "a.skops", "x/metadata/part-00000"):
        assert learned.digest({name: b"\x00\xff"}).startswith("sha256:")
        assert learned.digest({name: b"[]"}).startswith("sha256:")
