"""Digest, result, settings, split expression, storage, progress, manifest: small pure parts."""

from __future__ import annotations

import hashlib
import http.client
import json
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lakeloop_trainer import ingest
from lakeloop_trainer.digest import model_digest
from lakeloop_trainer.failures import RunFailure
from lakeloop_trainer.methods.measured import own_metrics
from lakeloop_trainer.progress import Progress, pod_patcher
from lakeloop_trainer.result import MAX_BYTES, Outcome, termination_message
from lakeloop_trainer.spark_conf import (
    driver_conf,
    memory_for_rows,
    parse_properties,
    size_bytes,
)
from lakeloop_trainer.split import hash_columns, side_expression
from lakeloop_trainer.stages import Stages
from lakeloop_trainer.storage import (
    FileStore,
    as_spark_path,
    s3_parts,
    version_of_transaction,
)


def test_digest_is_what_the_contract_says(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    files = {"MLmodel": b"flavors", "data/model.skops": b"\0\1", "data-2": b""}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "registered_model_meta").write_text("added by MLflow")
    lines = "".join(f"{name}\0{hashlib.sha256(files[name]).hexdigest()}\n" for name in sorted(files))
    assert model_digest(tmp_path) == "sha256:" + hashlib.sha256(lines.encode()).hexdigest()
    (tmp_path / "data/model.skops").write_bytes(b"\0\2")
    assert model_digest(tmp_path) != "sha256:" + hashlib.sha256(lines.encode()).hexdigest()


def test_a_success_keeps_everything_that_fits() -> None:
    outcome = Outcome(
        "u", 1, metrics={"test_f1": 0.5}, objective={"metric": "f1", "value": 0.5}, model={"modelId": "m"}
    )
    assert json.loads(termination_message(outcome.document())) == outcome.document()


def test_metrics_go_first() -> None:
    metrics = {f"test_metric_number_{i}": i / 3 for i in range(200)}
    outcome = Outcome("u", 1, metrics=metrics, objective={"metric": "f1", "value": 0.5}, model={"modelId": "m"})
    short = json.loads(termination_message(outcome.document()))
    assert "metrics" not in short
    assert short["model"] == {"modelId": "m"}
    assert short["objective"] == {"metric": "f1", "value": 0.5}


def test_expectations_go_next_and_say_that_they_did() -> None:
    counted = [{"name": f"expectation-{i:050d}", "violations": i, "rows": 10**12} for i in range(32)]
    failure = RunFailure("ExpectationViolated", "m" * 900, "spec.dataset.expectations")
    document = Outcome("u", 1, failure=failure, expectations=counted[:8]).document()
    assert json.loads(termination_message(document))["expectations"] == counted[:8]
    short = json.loads(termination_message(Outcome("u", 1, failure=failure, expectations=counted).document()))
    assert short["expectations"] is None
    assert short["failure"]["message"] == failure.message


@given(st.text(min_size=0, max_size=6000))
def test_a_failure_always_fits(message: str) -> None:
    failure = RunFailure("FitFailed", message.replace("\ud800", ""), "spec.estimator")
    text = termination_message(Outcome("u", 1, failure=failure).document())
    assert len(text.encode()) <= MAX_BYTES
    found = json.loads(text)["failure"]["message"]
    assert found == failure.message or failure.message.startswith(found.removesuffix("…"))


def test_properties_are_read_as_spark_reads_them() -> None:
    text = "# a comment\n\nspark.a=1\nspark.b 2 3\nspark.c = k8s://https\\://x:443\nspark.d:4\n"
    assert parse_properties(text) == {
        "spark.a": "1",
        "spark.b": "2 3",
        "spark.c": "k8s://https://x:443",
        "spark.d": "4",
    }


def test_in_a_pod_the_driver_says_where_and_who_it_is() -> None:
    pod = {"LAKELOOP_POD_IP": "10.1.2.3", "LAKELOOP_POD_NAME": "churn-1-1-driver", "LAKELOOP_POD_NAMESPACE": "team-a"}
    wanted = {"spark.master": "k8s://https://kubernetes.default.svc", "spark.sql.shuffle.partitions": "8"}
    conf = driver_conf(wanted, pod, "churn-1", "/etc/lakeloop/executor.yaml")
    assert conf["spark.driver.host"] == conf["spark.driver.bindAddress"] == "10.1.2.3"
    assert conf["spark.kubernetes.driver.pod.name"] == "churn-1-1-driver"
    assert conf["spark.kubernetes.namespace"] == "team-a"
    assert conf["spark.kubernetes.executor.podTemplateFile"] == "/etc/lakeloop/executor.yaml"
    assert conf["spark.kubernetes.executor.podTemplateContainerName"] == "executor"
    assert conf["spark.sql.shuffle.partitions"] == "8"
    assert not [value for key, value in conf.items() if "secret" in key.lower()]


@pytest.mark.parametrize(
    ("properties", "key", "expected"),
    [
        pytest.param({}, "spark.master", "local[*]", id="no master"),
        pytest.param({"spark.master": "local[3]"}, "spark.sql.shuffle.partitions", "6", id="shuffles by local cores"),
        pytest.param(
            {"spark.master": "k8s://x", "spark.executor.instances": "3", "spark.executor.cores": "2"},
            "spark.sql.shuffle.partitions",
            "12",
            id="shuffles by executors' cores",
        ),
        pytest.param(
            {"spark.databricks.delta.snapshotPartitions": "9"},
            "spark.databricks.delta.snapshotPartitions",
            "9",
            id="a default gives way",
        ),
        pytest.param({"spark.sql.runSQLOnFiles": "true"}, "spark.sql.runSQLOnFiles", "false", id="the inputs are all"),
        pytest.param(
            {"spark.driver.memory": "2g"}, "spark.driver.maxResultSize", str((2 << 30) * 6 // 10), id="results"
        ),
    ],
)
def test_settings(properties: dict[str, str], key: str, expected: str) -> None:
    assert driver_conf(properties, {}, "a", None)[key] == expected


@pytest.mark.parametrize(
    ("text", "expected"), [("1g", 1 << 30), ("512m", 512 << 20), ("1024", 1024 << 20), ("2GB", 2 << 30), ("1 k", 1024)]
)
def test_sizes(text: str, expected: int) -> None:
    assert size_bytes(text, default_unit="m") == expected


def test_memory_for_rows_is_what_the_jvm_leaves() -> None:
    conf = {"spark.driver.memory": "1g"}
    assert memory_for_rows(conf, 4 << 30) == ((4 << 30) - (1280 << 20) - (250 << 20)) // 3
    assert memory_for_rows(conf, 1 << 30) == 64 << 20
    assert memory_for_rows(conf, None) == 4 << 30


def test_the_split_expression() -> None:
    types = {"id": "int", "day": "date", "x`y": "float"}
    assert side_expression(types, ["id", "day", "x`y"], -3, 0.2) == (
        "pmod(xxhash64(-3L, CAST(`id` AS bigint), `day`, CAST(`x``y` AS double)), 1000000L) < 200000L"
    )
    assert side_expression(types, ["id"], 0, 0.0) == "false"
    assert hash_columns([], ["b", "a"], "t") == ["a", "b", "t"]
    assert hash_columns(["id"], ["b", "a"], "t") == ["id"]


def test_addresses() -> None:
    assert s3_parts("s3a://lake/a b/c%20d.json") == ("lake", "a b/c%20d.json")
    assert as_spark_path("s3://lake/a") == as_spark_path("s3a://lake/a") == "s3a://lake/a"
    assert as_spark_path("/data/s3://x") == "/data/s3://x"


def test_the_version_of_a_transaction_is_found_above_the_base(tmp_path: Path) -> None:
    log = tmp_path / "_delta_log"
    log.mkdir()
    for version, app in enumerate(["run-1", "run-2", None, "run-3"]):
        actions = [{"commitInfo": {"userMetadata": '{"txn": "run-9"}'}}, *([{"txn": {"appId": app}}] if app else [])]
        (log / f"{version:020d}.json").write_text("\n".join(map(json.dumps, actions)))
    (log / f"{1:020d}.checkpoint.parquet").write_bytes(b"PAR1")
    store = FileStore()
    found = {app: version_of_transaction(store, str(tmp_path), app, 0) for app in ("run-1", "run-2", "run-3", "run-9")}
    assert found == {"run-1": None, "run-2": 1, "run-3": 3, "run-9": None}
    assert version_of_transaction(store, str(tmp_path), "run-1", None) == 0
    assert version_of_transaction(store, str(tmp_path / "nothing"), "run-1", None) is None


def test_a_manifest_is_of_one_run() -> None:
    raw = json.dumps({"runUid": "u", "files": [{"uri": "s3a://r/a", "etag": '"e"', "size": 3}]}).encode()
    assert ingest.parse_manifest(raw, "u", "f") == ingest.Manifest((("s3a://r/a", "e"),), 3)
    for bad, uid in ((raw, "other"), (b"{", "u"), (b'{"runUid": "u"}', "u")):
        with pytest.raises(RunFailure) as caught:
            ingest.parse_manifest(bad, uid, "f")
        assert caught.value.reason == "InvalidConf"


def test_only_lost_races_are_tried_again() -> None:
    assert ingest.is_conflict(RuntimeError("[DELTA_CONCURRENT_APPEND] Files were added"))
    assert ingest.is_conflict(RuntimeError("[DELTA_PROTOCOL_CHANGED] the protocol version was changed"))
    assert not ingest.is_conflict(RuntimeError("[DELTA_FAILED_TO_MERGE_FIELDS] x"))


def test_progress_is_written_at_each_stage_and_at_the_end() -> None:
    written: list[dict[str, object]] = []
    arrived = threading.Semaphore(0)

    def write(value: str) -> None:
        written.append(json.loads(value))
        arrived.release()

    progress = Progress("uid", 2, write)
    assert arrived.acquire(timeout=5)
    progress.stage("Ingesting", 15)
    assert arrived.acquire(timeout=5)
    progress.inputs({"events": 4})
    assert arrived.acquire(timeout=5)
    progress.close()
    assert written[0] == {"uid": "uid", "attempt": 2, "stage": "Starting", "percent": 0, "remainingSeconds": None,
                          "inputs": [], "trialsFinished": 0, "trialsTotal": 0}  # fmt: skip
    assert [state["stage"] for state in written] == ["Starting", "Ingesting", "Ingesting"]
    assert written[-1]["inputs"] == [{"name": "events", "version": 4}]


@pytest.mark.parametrize("error", [OSError("403 Forbidden"), http.client.BadStatusLine("")], ids=type)
def test_progress_that_cannot_be_written_stops_nothing(error: Exception) -> None:
    written: list[str] = []

    def write(value: str) -> None:
        written.append(value)
        if len(written) == 1:
            raise error

    progress = Progress("uid", 1, write)
    deadline = time.monotonic() + 10
    while not written and time.monotonic() < deadline:
        time.sleep(0.01)
    progress.stage("Reading", 30)
    progress.close()
    assert json.loads(written[-1])["stage"] == "Reading"


def test_outside_a_cluster_there_is_no_pod_to_write_to(tmp_path: Path) -> None:
    assert pod_patcher({}, tmp_path) is None


def test_what_a_run_took_is_told_by_stage() -> None:
    stages = Stages()
    with stages.measure("fit"):
        pass
    with stages.measure("open tables"):
        pass
    found = own_metrics(stages, 3 << 20)
    assert list(found) == ["lakeloop/fit_seconds", "lakeloop/driver_memory_peak_bytes"]
    assert found["lakeloop/fit_seconds"] >= 0
    assert own_metrics(Stages(), None) == {}
