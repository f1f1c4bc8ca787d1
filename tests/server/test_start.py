"""How a server starts: from a real S3 interface, checked, or not at all with the reason told."""

import json
import shutil
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml
from server.conftest import Store
from server.server_processes import HTTP, Process, await_port, launch, poll, serving

Saved = Callable[[str], Path]


def fail_to_start(uri: str, folder: Path, **environment: str) -> dict[str, str]:
    process = launch(uri, folder, **environment)
    try:
        assert process.popen.wait(150) == 3, process.log
    finally:
        process.popen.kill()
    return process.termination


def test_serves_from_the_store_what_the_digest_says(saved: Saved, store: Store, tmp_path: Path) -> None:
    uri, digest = store.upload(saved("classifier"), "1/models/m-1/artifacts")
    # MLflow's own note beside a registered model is no part of it
    store.client.put_object(Bucket="mlflow", Key="1/models/m-1/artifacts/registered_model_meta", Body=b"x")
    environment = {**store.environment, "LAKELOOP_MODEL_DIGEST": digest}
    with serving(uri, tmp_path, **environment) as process:
        assert HTTP.get(f"{process.url}/v2/models/churn").json()["parameters"]["digest"] == digest
        assert process.stop() == 0
    assert not list((tmp_path / "cwd").iterdir()), "it wrote outside its volumes"


def test_says_what_the_digest_is_when_none_is_recorded(saved: Saved, store: Store, tmp_path: Path) -> None:
    uri, digest = store.upload(saved("classifier"), "2")
    with serving(uri, tmp_path, **store.environment) as process:
        parameters = HTTP.get(f"{process.url}/v2/models/churn").json()["parameters"]
    assert parameters["digest"] == digest
    written = yaml.safe_load((saved("classifier") / "MLmodel").read_text())["signature"]
    told = {part: content and json.dumps(content) for part, content in parameters["signature"].items()}
    assert told == written
    assert [each["name"] for each in parameters["signature"]["inputs"]] == ["tenure", "spend"]


def test_is_alive_but_not_ready_while_it_loads(saved: Saved, tmp_path: Path) -> None:
    process = launch(f"file://{saved('classifier')}", tmp_path)
    try:
        await_port(process)
        live = HTTP.get(f"{process.url}/live")
        waiting = [
            HTTP.get(process.url + path) for path in ("/ping", "/health", "/v2/health/ready", "/v2/models/churn")
        ]
        asked = HTTP.post(f"{process.url}/invocations", json={"inputs": [1]})
        assert live.status_code == 200
        assert {answer.headers["x-lakeloop-model"] for answer in [live, asked]} == {"churn/5"}
        assert {answer.status_code for answer in [*waiting, asked]} == {503}
        assert asked.json()["error_code"] == "TEMPORARILY_UNAVAILABLE"
        statuses: list[int] = []

        def ready() -> bool:
            statuses.append(HTTP.get(f"{process.url}/ping").status_code)
            return statuses[-1] == 200

        poll(ready, 150)
        assert set(statuses) == {503, 200}
        assert {HTTP.get(f"{process.url}/ping").status_code for _ in range(50)} == {200}
    finally:
        process.popen.kill()
        process.popen.wait()


def test_every_probe_is_answered_while_the_model_gets_ready(saved: Saved, tmp_path: Path) -> None:
    """The process that answers during the load hands over to the one that serves."""
    process = launch(f"file://{saved('classifier')}", tmp_path)
    try:
        await_port(process)
        said: list[bytes] = []

        def ask() -> None:
            # Each asks only after the next one has connected, so that some are open at any moment
            waiting = [socket.create_connection(("127.0.0.1", process.port), timeout=20)]
            while not (said and said[-1].startswith(b"HTTP/1.1 200")):
                assert len(said) < 200_000
                waiting.append(socket.create_connection(("127.0.0.1", process.port), timeout=20))
                with waiting.pop(0) as connection:
                    connection.sendall(b"GET /ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                    said.append(connection.recv(4096))
            for connection in waiting:
                connection.close()

        with ThreadPoolExecutor(4) as pool:
            for asking in [pool.submit(ask) for _ in range(4)]:
                asking.result()
    finally:
        process.popen.kill()
        process.popen.wait()
    assert {answer[:12] for answer in said} == {b"HTTP/1.1 503", b"HTTP/1.1 200"}
    assert all(b"x-lakeloop-model: churn/5" in answer for answer in said)


def test_refuses_files_that_were_changed(saved: Saved, store: Store, tmp_path: Path) -> None:
    uri, digest = store.upload(saved("classifier"), "3")
    store.client.put_object(Bucket="mlflow", Key="3/requirements.txt", Body=b"evil")
    message = fail_to_start(uri, tmp_path, **store.environment, LAKELOOP_MODEL_DIGEST=digest)
    assert message["reason"] == "DigestMismatch"
    assert digest in message["message"]


def test_refuses_an_added_file(saved: Saved, store: Store, tmp_path: Path) -> None:
    uri, digest = store.upload(saved("classifier"), "4")
    store.client.put_object(Bucket="mlflow", Key="4/code/sitecustomize.py", Body=b"evil")
    message = fail_to_start(uri, tmp_path, **store.environment, LAKELOOP_MODEL_DIGEST=digest)
    assert message["reason"] == "DigestMismatch"


@pytest.mark.parametrize(
    ("uri", "environment", "reason"),
    [
        pytest.param("s3://mlflow/nothing-here", {}, "ModelNotFound", id="no such path"),
        pytest.param("s3://no-such-bucket/x", {}, "ModelNotFound", id="no such bucket"),
        pytest.param("https://example.org/x", {}, "ModelNotFound", id="not S3"),
        pytest.param("file:///no/such/folder", {}, "ModelNotFound", id="no such folder"),
        pytest.param(
            "s3://mlflow/x",
            {"AWS_ACCESS_KEY_ID": "", "AWS_EC2_METADATA_DISABLED": "true"},
            "CredentialsRefused",
            id="no key",
        ),
        pytest.param(
            "s3://mlflow/x", {"AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9"}, "StorageUnavailable", id="no store"
        ),
        pytest.param("s3://mlflow/x", {"LAKELOOP_WORKERS": "many"}, "LoadFailed", id="a setting"),
    ],
)
def test_says_why_there_is_no_model(
    uri: str, environment: dict[str, str], reason: str, store: Store, tmp_path: Path
) -> None:
    message = fail_to_start(uri, tmp_path, **{**store.environment, **environment})
    assert message["reason"] == reason, message


def test_refuses_a_model_without_signature(saved: Saved, tmp_path: Path) -> None:
    uri = f"file://{saved('no-signature')}"
    assert fail_to_start(uri, tmp_path)["reason"] == "SignatureMissing"


def test_serves_a_model_without_signature_when_told_to(saved: Saved, tmp_path: Path) -> None:
    with serving(f"file://{saved('no-signature')}", tmp_path, LAKELOOP_SIGNATURE_REQUIRED="false") as process:
        frame = {"dataframe_records": [{"tenure": 1, "spend": 5}]}
        assert HTTP.post(f"{process.url}/invocations", json=frame).json() == {"predictions": [0]}
        warnings = HTTP.get(f"{process.url}/v2/models/churn").json()["parameters"]["warnings"]
    assert any("no signature" in warning for warning in warnings)


def edited(saved: Saved, tmp_path: Path, edit: Callable[[Path], Any]) -> str:
    copy = tmp_path / "edited"
    shutil.copytree(saved("classifier"), copy)
    edit(copy)
    return f"file://{copy}"


@pytest.mark.parametrize(
    ("file", "old", "new", "reason", "says"),
    [
        pytest.param(
            "requirements.txt", "1.9.1", "0.24.2", "EnvironmentMismatch", "scikit-learn", id="major difference"
        ),
        pytest.param("MLmodel", "mlflow.sklearn", "mlflow.xgboost", "EnvironmentMismatch", "xgboost", id="no flavor"),
        pytest.param(
            "MLmodel", "mlflow.sklearn", "no_such_module", "EnvironmentMismatch", "no_such_module", id="no module"
        ),
        pytest.param("python_env.yaml", "3.11", "2.7", "EnvironmentMismatch", "Python 2.7", id="another Python"),
        pytest.param("MLmodel", "flavors:", "flavours:", "LoadFailed", "flavors", id="no MLmodel really"),
        pytest.param("MLmodel", "model.skops", "absent.skops", "LoadFailed", "", id="a file is missing"),
        pytest.param("MLmodel", "loader_module", "- loader_module", "LoadFailed", "YAML", id="MLmodel is not YAML"),
        pytest.param("requirements.txt", "1.9.1", "\udcff", "LoadFailed", "requirements.txt", id="not UTF-8"),
        pytest.param("conda.yaml", "dependencies:", "\udcff:", "LoadFailed", "conda.yaml", id="conda.yaml not UTF-8"),
    ],
)
def test_refuses_what_cannot_load_here(
    file: str, old: str, new: str, reason: str, says: str, saved: Saved, tmp_path: Path
) -> None:
    def edit(folder: Path) -> None:
        text = (folder / file).read_text()
        assert old in text
        (folder / file).write_text(text.replace(old, new), errors="surrogateescape")

    message = fail_to_start(edited(saved, tmp_path, edit), tmp_path / "run")
    assert message["reason"] == reason, message
    assert says in message["message"]


def test_a_patch_level_difference_is_only_told(saved: Saved, tmp_path: Path) -> None:
    def edit(folder: Path) -> None:
        (folder / "requirements.txt").write_text("scikit-learn==1.9.0\nnot-in-the-image==1.0\n")

    with serving(edited(saved, tmp_path, edit), tmp_path / "run") as process:
        warnings = HTTP.get(f"{process.url}/v2/models/churn").json()["parameters"]["warnings"]
    assert len(warnings) == 2
    assert "scikit-learn==1.9.0" in warnings[0]


def test_a_model_that_cannot_answer_its_example_does_not_serve(saved: Saved, tmp_path: Path) -> None:
    message = fail_to_start(f"file://{saved('unanswering')}", tmp_path)
    assert message["reason"] == "WarmupFailed"
    assert "ValueError" in message["message"]


def test_a_model_that_exits_when_loaded_does_not_serve(saved: Saved, tmp_path: Path) -> None:
    message = fail_to_start(f"file://{saved('exits')}", tmp_path)
    assert message == {"reason": "LoadFailed", "message": "SystemExit: 0"}


def test_a_models_configuration_is_that_of_the_environment(saved: Saved, tmp_path: Path) -> None:
    environment = {"SERVING_MODEL_CONFIG": '{"greeting": "good evening"}'}  # as for `mlflow models serve`
    with serving(f"file://{saved('configured')}", tmp_path, **environment) as process:
        frame = {"dataframe_records": [{"tenure": 1, "spend": 5}]}
        assert HTTP.post(f"{process.url}/invocations", json=frame).json() == {"predictions": ["good evening"]}


def test_writes_structured_logs(saved: Saved, tmp_path: Path) -> None:
    with serving(f"file://{saved('echo')}", tmp_path) as process:
        row = {"word": "raise", "count": 1, "amount": 1.5, "flag": True}
        assert HTTP.post(f"{process.url}/invocations", json={"dataframe_records": [row]}).status_code == 400
        lines = [json.loads(line) for line in process.log.splitlines()]
    assert {(line["model"], line["version"]) for line in lines} == {("churn", "5")}
    assert any("RuntimeError" in line["message"] for line in lines)
    assert "secret of another caller" not in process.log


def test_a_stop_during_the_load_is_at_once(saved: Saved, tmp_path: Path) -> None:
    process: Process = launch(f"file://{saved('classifier')}", tmp_path)
    await_port(process)
    assert process.stop() == 0
    assert not (tmp_path / "termination").exists()


def test_a_stop_during_the_warm_up_is_at_once(saved: Saved, tmp_path: Path) -> None:
    process = launch(f"file://{saved('endless')}", tmp_path)
    await_port(process)
    poll(lambda: '"loaded sha256' in process.log, 150)
    assert HTTP.get(f"{process.url}/ping").status_code == 503
    started = time.monotonic()
    assert process.stop() == 0
    assert time.monotonic() - started < 10
