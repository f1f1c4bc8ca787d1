"""The Open Inference Protocol over HTTP."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from server.saved_models import FRAME
from server.server_processes import HTTP, Process

TENURE = {"name": "tenure", "shape": [2], "datatype": "FP64", "data": [1, 4]}
SPEND = {"name": "spend", "shape": [2, 1], "datatype": "FP64", "data": [[5.0], [8.0]]}


def infer(process: Process, *inputs: dict[str, Any], **more: Any) -> httpx.Response:
    return HTTP.post(f"{process.url}/v2/models/churn/infer", json={"inputs": list(inputs), **more}, timeout=60)


def test_server_and_model_metadata(ours: Callable[[str], Process]) -> None:
    url = ours("classifier").url
    assert HTTP.get(f"{url}/v2").json()["name"] == "lakeloop-server"
    assert HTTP.get(f"{url}/v2/health/live").json() == {"live": True}
    assert HTTP.get(f"{url}/v2/health/ready").json() == {"ready": True, "live": True}
    assert HTTP.get(f"{url}/v2/models/churn/versions/5/ready").json() == {"name": "churn", "ready": True}
    metadata = HTTP.get(f"{url}/v2/models/churn").json()
    assert metadata == HTTP.get(f"{url}/v2/models/churn/versions/5").json()
    assert metadata["versions"] == ["5"]
    assert metadata["inputs"] == [
        {"name": "tenure", "datatype": "FP64", "shape": [-1]},
        {"name": "spend", "datatype": "FP64", "shape": [-1]},
    ]
    assert metadata["outputs"] == [{"name": "predictions", "datatype": "INT64", "shape": [-1]}]
    assert metadata["parameters"]["digest"].startswith("sha256:")
    assert metadata["parameters"]["warnings"] == []


@pytest.mark.parametrize("path", ["/v2/models/other", "/v2/models/churn/versions/6", "/v2/models/other/infer", "/v2/x"])
def test_anything_else_is_not_found(path: str, ours: Callable[[str], Process]) -> None:
    method = "POST" if path.endswith("infer") else "GET"
    answer = HTTP.request(method, ours("classifier").url + path)
    assert answer.status_code == 404
    assert set(answer.json()) == {"error", "error_code", "message"}


def test_columns_give_what_invocations_gives(ours: Callable[[str], Process]) -> None:
    process = ours("classifier")
    answer = infer(process, TENURE, SPEND, id="abc")
    frame = {"dataframe_records": [{"tenure": 1, "spend": 5}, {"tenure": 4, "spend": 8}]}
    wanted = HTTP.post(f"{process.url}/invocations", json=frame).json()["predictions"]
    assert answer.json() == {
        "model_name": "churn",
        "model_version": "5",
        "id": "abc",
        "outputs": [{"name": "predictions", "datatype": "INT64", "shape": [2], "data": wanted}],
    }
    assert answer.headers["x-lakeloop-model"] == "churn/5"


def test_a_matrix_stands_for_all_columns(ours: Callable[[str], Process]) -> None:
    values = FRAME.to_numpy().tolist()
    matrix = {"name": "x", "shape": [5, 2], "datatype": "FP64", "data": values}
    outputs = {name: infer(ours(name), matrix).json()["outputs"][0] for name in ("classifier", "matrix")}
    assert outputs["classifier"]["data"] == [0, 0, 0, 1, 0]
    assert (outputs["matrix"]["datatype"], outputs["matrix"]["shape"]) == ("FP64", [5])


def test_text_dates_and_parameters(ours: Callable[[str], Process]) -> None:
    columns: dict[str, tuple[str, Any]] = {
        "word": ("BYTES", "é"),
        "count": ("INT64", 3),
        "amount": ("FP64", 1.5),
        "flag": ("BOOL", True),
        "day": ("BYTES", "2020-01-02T03:04:05"),
        "blob": ("BYTES", "aGk="),
    }
    inputs = [{"name": n, "shape": [1], "datatype": t, "data": [v]} for n, (t, v) in columns.items()]
    answer = infer(ours("echo"), *inputs, parameters={"factor": 2.0, "unknown": 1}, outputs=[{"name": "scaled"}])
    assert answer.json()["outputs"] == [{"name": "scaled", "datatype": "FP64", "shape": [1], "data": [3.0]}]
    seen = infer(ours("echo"), *inputs).json()["outputs"][0]
    assert (seen["name"], seen["datatype"]) == ("seen", "BYTES")
    assert seen["data"] == ["['é', 3, 1.5, True, Timestamp('2020-01-02 03:04:05'), b'hi']"]


@pytest.mark.parametrize(
    ("content", "headers", "status"),
    [
        pytest.param(b"{", {}, 400, id="half JSON"),
        pytest.param(b"{}", {}, 400, id="no inputs"),
        pytest.param(b"[" * 100_000, {}, 400, id="nested too deeply"),
        pytest.param(b"{}", {"content-type": "text/csv"}, 415, id="CSV"),
        pytest.param(b"{}", {"inference-header-content-length": "2"}, 400, id="binary extension"),
        pytest.param(b"{}", {"content-encoding": "gzip"}, 415, id="compressed"),
    ],
)
def test_malformed_requests(
    content: bytes, headers: dict[str, str], status: int, ours: Callable[[str], Process]
) -> None:
    url = f"{ours('classifier').url}/v2/models/churn/infer"
    answer = HTTP.post(url, content=content, headers={"content-type": "application/json", **headers})
    assert answer.status_code == status
    assert set(answer.json()) == {"error", "error_code", "message"}


def test_a_signature_is_enforced(ours: Callable[[str], Process]) -> None:
    answer = infer(ours("classifier"), TENURE)
    assert answer.status_code == 400
    assert (
        answer.json()["message"] == "The input does not match the model's signature: Model is missing inputs ['spend']."
    )
