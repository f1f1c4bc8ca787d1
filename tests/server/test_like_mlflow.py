"""`/invocations` beside the real `mlflow models serve`: the same bytes in answers, the same status in refusals."""

import json
from collections.abc import Callable
from io import BytesIO
from typing import Any

import httpx
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from server.server_processes import HTTP, Process

JSON = "application/json"
CSV = "text/csv"
PARQUET = "application/vnd.apache.parquet"
ROW = {"word": "a", "count": 1, "amount": 1.5, "flag": True}
PLAIN = {"tenure": 1, "spend": 2}


def records(*rows: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"dataframe_records": list(rows), **more}


def parquet(columns: dict[str, Any]) -> bytes:
    file = BytesIO()
    pd.DataFrame(columns).to_parquet(file)
    return file.getvalue()


# name: (model, content type, body)
CASES: dict[str, tuple[str, str, Any]] = {
    "split": ("classifier", JSON, {"dataframe_split": {"columns": ["tenure", "spend"], "data": [[1, 2], [3.5, 4]]}}),
    "split with index": (
        "classifier",
        JSON,
        {"dataframe_split": {"index": [7], "columns": ["spend", "tenure"], "data": [[1, 2]]}},
    ),
    "records": ("classifier", JSON, records(PLAIN, {"spend": 8, "tenure": 4})),
    "instances of objects": ("classifier", JSON, {"instances": [PLAIN]}),
    "inputs by name": ("classifier", JSON, {"inputs": {"tenure": [1, 2], "spend": [2, 3]}}),
    "CSV": ("classifier", CSV, "tenure,spend\n1,2\n3,4\n"),
    "CSV with charset": ("classifier", "text/csv; charset=UTF-8", "tenure,spend\n1,2\n"),
    "JSON with charset": ("classifier", "application/json; charset=utf-8", records(PLAIN)),
    "more columns than needed": ("classifier", JSON, records({**PLAIN, "other": 3})),
    "the same key twice": ("classifier", JSON, '{"dataframe_records": [{"tenure": 1, "tenure": 2, "spend": 1}]}'),
    "params for a model without": ("classifier", JSON, records(PLAIN, params={"a": 1})),
    "charset": ("classifier", "text/csv; charset=latin-1", "tenure,spend\n1,2\n"),
    "another parameter": ("classifier", "text/csv; header=yes", "tenure,spend\n1,2\n"),
    "XML": ("classifier", "application/xml", "<a/>"),
    "no body": ("classifier", JSON, ""),
    "half JSON": ("classifier", JSON, '{"dataframe_records": ['),
    "JSON list": ("classifier", JSON, "[1]"),
    "JSON number": ("classifier", JSON, "3"),
    "no format": ("classifier", JSON, {}),
    "two formats": ("classifier", JSON, {"inputs": [1], "instances": [1]}),
    "column missing": ("classifier", JSON, records({"tenure": 1})),
    "text for a number": ("classifier", JSON, records({"tenure": "s3cret", "spend": 1})),
    "NaN": ("classifier", JSON, '{"dataframe_records": [{"tenure": NaN, "spend": 1}]}'),
    "null": ("classifier", JSON, records({"tenure": None, "spend": 1})),
    "no rows": ("classifier", JSON, records()),
    "ragged split": ("classifier", JSON, {"dataframe_split": {"columns": ["tenure", "spend"], "data": [[1]]}}),
    "split without data": ("classifier", JSON, {"dataframe_split": {"columns": ["tenure"]}}),
    "split as list": ("classifier", JSON, {"dataframe_split": [1]}),
    "records as object": ("classifier", JSON, {"dataframe_records": {"a": 1}}),
    "matrix for columns": ("classifier", JSON, {"inputs": [[1, 2]]}),
    "not UTF-8": ("classifier", JSON, b"\xff\xfe{"),
    "CSV not UTF-8": ("classifier", CSV, b"\xff\xfe"),
    "CSV empty": ("classifier", CSV, b""),
    "CSV text for a number": ("classifier", CSV, "tenure,spend\ns3cret,2\n"),
    "CSV column missing": ("classifier", CSV, "tenure\n1\n"),
    "chat": ("classifier", JSON, {"messages": [{"role": "user", "content": "s3cret"}]}),
    "every kind of column": ("echo", JSON, records({**ROW, "day": "2020-01-01T00:00:00", "blob": "aGk="})),
    "optional columns left out": ("echo", JSON, records(ROW)),
    "params": ("echo", JSON, records(ROW, params={"factor": 3})),
    "params of a wrong type": ("echo", JSON, records(ROW, params={"factor": "s3cret"})),
    "params unknown": ("echo", JSON, records(ROW, params={"zzz": 3})),
    "text that is not ASCII": (
        "echo",
        JSON,
        {"inputs": {"word": ["é😀"], "count": [1], "amount": [1], "flag": [False]}},
    ),
    "scalars": ("echo", JSON, {"inputs": {"word": "x", "count": 1, "amount": 1.0, "flag": False}}),
    "CSV with text and booleans": ("echo", CSV, "word,count,amount,flag\na,1,2.5,True\n"),
    "not a date": ("echo", JSON, records({**ROW, "day": "s3cret"})),
    "not base64": ("echo", JSON, records({**ROW, "blob": "s3cret!"})),
    "too big for a long": ("echo", JSON, records({**ROW, "count": 2**70})),
    "null for a long": ("echo", JSON, records(ROW, {**ROW, "count": None})),
    "the model raises": ("echo", JSON, records({**ROW, "word": "raise"})),
    "matrix": ("matrix", JSON, {"inputs": [[1, 2], [3, 4]]}),
    "instances of rows": ("matrix", JSON, {"instances": [[1, 2], [3, 4]]}),
    "matrix as split": ("matrix", JSON, {"dataframe_split": {"data": [[1, 2]]}}),
    "matrix too wide": ("matrix", JSON, {"inputs": [[1, 2, 3]]}),
    "matrix ragged": ("matrix", JSON, {"inputs": [[1, 2], [3]]}),
    "matrix of text": ("matrix", JSON, {"inputs": [["s3cret", "x"]]}),
    "Parquet": ("classifier", PARQUET, parquet({"tenure": [1.0, 2.0], "spend": [3, 4]})),
    "Parquet with every kind of column": (
        "echo",
        PARQUET,
        parquet({**{key: [value] for key, value in ROW.items()}, "day": [pd.Timestamp("2020-01-01")], "blob": [b"hi"]}),
    ),
    "Parquet with a column missing": ("classifier", PARQUET, parquet({"tenure": [1.0]})),
    "half a Parquet file": ("classifier", PARQUET, parquet({"tenure": [1.0]})[:40]),
    "no Parquet file": ("classifier", PARQUET, b"s3cret"),
}
# Where MLflow answers 500 for a caller's mistake, ours says what the mistake is
BETTER: dict[str, tuple[str | None, Any, int]] = {
    "no content type": (None, "x", 415),
    "nested too deeply": (JSON, "[" * 100_000, 400),
    "a number too long": (JSON, '{"dataframe_records": [{"tenure": ' + "9" * 5000 + ', "spend": 1}]}', 400),
}
# Of MLflow's own code, of this machine, of the model's code, of another's data
TELLTALES = [
    "s3cret",
    "secret",
    "Traceback",
    "site-packages",
    "stack_trace",
    "/",
    "mlflow",
    "DataFrame ",
    "RuntimeError",
]


def post(process: Process, content_type: str | None, body: Any) -> httpx.Response:
    content = body if isinstance(body, str | bytes) else json.dumps(body)
    headers = {"content-type": content_type} if content_type else {}
    return HTTP.post(f"{process.url}/invocations", content=content, headers=headers, timeout=60)


def expect_quiet_json_error(answer: httpx.Response) -> None:
    assert answer.headers["content-type"] == JSON
    assert answer.headers["x-lakeloop-model"] == "churn/5"
    assert set(answer.json()) == {"error_code", "message"}
    text = answer.json()["message"].replace(JSON, "").replace(CSV, "").replace(PARQUET, "")
    assert [word for word in TELLTALES if word in text] == []


@pytest.mark.parametrize("name", CASES)
def test_answers_as_mlflow(name: str, ours: Callable[[str], Process], theirs: Callable[[str], Process]) -> None:
    model, content_type, body = CASES[name]
    wanted, found = post(theirs(model), content_type, body), post(ours(model), content_type, body)
    assert found.status_code == wanted.status_code, (wanted.text, found.text)
    if wanted.status_code == 200:
        assert found.content == wanted.content
        assert found.headers["content-type"] == wanted.headers["content-type"]
    else:
        expect_quiet_json_error(found)


@pytest.mark.parametrize("name", BETTER)
def test_refuses_what_breaks_mlflow(
    name: str, ours: Callable[[str], Process], theirs: Callable[[str], Process]
) -> None:
    content_type, body, status = BETTER[name]
    assert post(theirs("classifier"), content_type, body).status_code == 500
    found = post(ours("classifier"), content_type, body)
    assert found.status_code == status
    expect_quiet_json_error(found)


@pytest.mark.parametrize("path", ["/ping", "/health", "/version"])
def test_probes_as_mlflow(path: str, ours: Callable[[str], Process], theirs: Callable[[str], Process]) -> None:
    wanted = HTTP.get(theirs("classifier").url + path)
    found = HTTP.get(ours("classifier").url + path)
    assert (found.status_code, found.content) == (wanted.status_code, wanted.content)
    assert found.headers["content-type"] == wanted.headers["content-type"]


@pytest.mark.parametrize("path", ["/ping/", "/invocations/"])
def test_a_slash_too_many_leads_where_mlflow_redirects(
    path: str, ours: Callable[[str], Process], theirs: Callable[[str], Process]
) -> None:
    method = "GET" if path == "/ping/" else "POST"
    body = {"json": {"dataframe_records": [PLAIN]}} if method == "POST" else {}
    wanted = HTTP.request(method, theirs("classifier").url + path, follow_redirects=True, **body)
    found = HTTP.request(method, ours("classifier").url + path, **body)
    assert (found.status_code, found.content) == (wanted.status_code, wanted.content) == (200, wanted.content)


words = st.text(max_size=8).filter(lambda word: word not in ("raise", "die") and not word.startswith("sleep:"))
rows = st.fixed_dictionaries(
    {
        "word": st.one_of(words, st.none()),
        "count": st.one_of(st.integers(-(2**63), 2**63 - 1), st.none(), st.floats(-10, 10)),
        "amount": st.one_of(st.floats(), st.integers(-(10**6), 10**6), st.none()),
        "flag": st.one_of(st.booleans(), st.none()),
    },
    optional={"day": st.one_of(st.dates().map(str), st.none()), "blob": st.binary(max_size=4).map(lambda b: b.hex())},
)


@given(
    frame=st.lists(rows, min_size=1, max_size=4), orient=st.sampled_from(["records", "split", "inputs", "instances"])
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_frame_is_answered_as_by_mlflow(
    ours: Callable[[str], Process], theirs: Callable[[str], Process], frame: list[dict[str, Any]], orient: str
) -> None:
    names = list(dict.fromkeys(name for row in frame for name in row))
    body: dict[str, Any]
    if orient == "split":
        body = {"dataframe_split": {"columns": names, "data": [[row.get(name) for name in names] for row in frame]}}
    elif orient == "inputs":
        body = {"inputs": {name: [row.get(name) for row in frame] for name in names}}
    else:
        body = {"instances" if orient == "instances" else "dataframe_records": frame}
    wanted, found = post(theirs("echo"), JSON, body), post(ours("echo"), JSON, body)
    if wanted.status_code == 500:
        assert found.status_code in (400, 500)
    else:
        assert found.status_code == wanted.status_code, (wanted.text, found.text)
    if wanted.status_code == 200:
        assert found.content == wanted.content
