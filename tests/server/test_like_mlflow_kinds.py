"""MLflow's own scoring application and ours over the same loaded model, of many kinds, on named and generated input.

`test_like_mlflow` compares the two programs as they run; here both are called in this process, so that thousands of
requests take seconds.
"""

import asyncio
import json
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import mlflow.pyfunc
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lakeloop_server.app import Api
from lakeloop_server.drain import Drain
from lakeloop_server.fast import fast_path
from lakeloop_server.metrics import Metrics
from lakeloop_server.model import ServedModel, load, warm_up
from lakeloop_server.predictor import Predictor
from lakeloop_server.settings import Settings
from mlflow.pyfunc import scoring_server
from server.model_kinds import ANSWERS, ERRORS, EVERYTHING, KINDS, PLAIN

JSON, CSV, PARQUET = "application/json", "text/csv", "application/vnd.apache.parquet"
Request = tuple[str | None, Any]
SECRET = "s3cret"
# What a refusal must not hold: values, MLflow's and the machine's own things
TELLTALES = [SECRET, "Traceback", "site-packages", "stack_trace", "mlflow", "0x", "DataFrame "]
ODD: list[Any] = [None, SECRET, "", "1", 1e300, -1, 1.5, True, [1], {"a": SECRET}, 2**63]


def of_row(row: dict[str, Any]) -> Iterator[Request]:
    """Requests around a row that the model takes: every format, then every value replaced by odd ones."""
    names, values = list(row), list(row.values())
    columns = {name: [value] for name, value in row.items()}
    for body in (
        {"dataframe_split": {"columns": names, "data": [values, values]}},
        {"dataframe_split": {"columns": names, "index": ["x"], "data": [values]}},
        {"dataframe_split": {"data": [values]}},
        {"dataframe_split": {"columns": names[::-1], "data": [values[::-1]]}},
        {"dataframe_records": [row, row]},
        {"dataframe_records": [row, {}]},
        {"dataframe_records": [{**row, "more": SECRET}]},
        {"instances": [row, row]},
        {"instances": [values]},
        {"instances": values},
        {"instances": row},
        {"inputs": columns},
        {"inputs": {**columns, "more": [SECRET]}},
        {"inputs": row},
        {"inputs": [row]},
        {"inputs": [values]},
        {"inputs": values},
        row,
        {"dataframe_records": [row], "params": {"f": 2}},
        {"dataframe_records": [row], "params": None},
        {"dataframe_records": [row], "params": [SECRET]},
        {"dataframe_records": [row], "more": SECRET},
        {"inputs": [row], "more": SECRET},
        {"inputs": columns, "signature_name": SECRET},
    ):
        yield JSON, body
    head, line = ",".join(names), ",".join(str(value) for value in values)
    for text in (f"{head}\n{line}\n", f"{head}\n", f"{line}\n", f"{head}\n{line},{SECRET}\n"):
        yield CSV, text
    yield PARQUET, parquet(pd.DataFrame([row, row]))
    for name in names:
        yield JSON, {"dataframe_records": [{key: value for key, value in row.items() if key != name}]}
        for odd in ODD:
            yield JSON, {"dataframe_records": [{**row, name: odd}]}
            yield JSON, {"inputs": {**columns, name: [odd]}}
            yield JSON, {"instances": [{**row, name: odd}, row]}


def of_no_row() -> Iterator[Request]:
    """Requests for models that take arrays, texts or messages."""
    shapes: list[Any] = [
        *(1, SECRET, None, True, [], [1], [1, 2], [[1, 2]], [[1, 2], [3, 4]], [[1.5, 2]], [["a", "b"]], ["a", "b"]),
        *([None], [[None, 1]], [[1, 2, 3]], [[1], [1, 2]], {"x": [[1, 2]]}, {"x": 1}, {"x": [[1, 2]], "y": [1]}),
        *({"s": ["a"]}, [[[[1], [2]], [[3], [4]]]], [[[[300], [2]], [[3], [-4]]]], [True], {}, [{}], [[]], "é"),
        *([{"a": SECRET}], [["1", "2"]], [2**70], [{"role": SECRET, "content": "b"}], [{"role": 1}], [[1e308, 2]]),
    ]
    keys = ("inputs", "instances", "dataframe_split", "dataframe_records", "prompt", "input", "messages")
    for shape in shapes:
        yield JSON, {"dataframe_split": {"data": shape}}
        for key in keys:
            yield JSON, {key: shape}
    for text in ("0,1\n1,2\n", f"a\n{SECRET}\n", "a,b\n1,2\n"):
        yield CSV, text


def of_bytes() -> Iterator[Request]:
    """Bodies that are hardly JSON, CSV or Parquet, and content types of every sort."""
    plain = json.dumps({"dataframe_records": [PLAIN]})
    for body in (
        *("", "  ", "null", "true", "1", '"a"', "[]", "{}", "NaN", '{"inputs":NaN}', "{'a':1}", "\ufeff" + plain),
        *(plain + "x", plain + plain, plain + "\n", plain.encode("utf-16"), plain.encode("utf-32"), b"\xff"),
        *('{"inputs":[Infinity,-Infinity]}', b'{"a":"\xff"}', plain.replace("tenure", "te\\ud800nure")),
        *('{"inputs":[1],"inputs":[2]}', '{"instances":[[]]}', '{"instances":{}}', '{"inputs":{}}', '{"inputs":null}'),
        *('{"dataframe_records":[1]}', '{"dataframe_records":[null]}', '{"dataframe_records":[[1,2]]}'),
        *('{"dataframe_records":"a"}', '{"dataframe_records":null}', '{"dataframe_records":[{"tenure":1},null]}'),
        *('{"instances":[{"tenure":1},{"spend":2}]}', '{"instances":[{"tenure":1,"spend":2},3]}'),
        *('{"inputs":{"tenure":[1,2],"spend":[1]}}', '{"inputs":{"tenure":1,"spend":[1,2]}}'),
        *('{"inputs":{"tenure":[[1]],"spend":[[2]]}}', '{"inputs":{"tenure":[],"spend":[]}}'),
        *("[" * 900 + "]" * 900, '{"inputs":' + "[" * 900 + "]" * 900 + "}"),
        *('{"inputs":' + "[" * 60 + "1" + "]" * 60 + "}", '{"inputs":[' + "9" * 4000 + "]}"),
    ):
        yield JSON, body
    split: list[Any] = [
        *({"columns": ["tenure", "tenure"], "data": [[1, 2]]}, {"columns": ["tenure", "spend"], "data": []}),
        *({"columns": "tenure", "data": [[1]]}, {"columns": [["tenure", "spend"]], "data": [[1, 2]]}),
        *({"columns": [["tenure"], ["spend"]], "data": [[1, 2]]}, {"columns": None, "data": [[1, 2]]}),
        *({"columns": ["tenure", "spend"], "data": None}, {"columns": ["tenure", "spend"], "data": 1, "index": [1]}),
        *({"columns": ["tenure", "spend"], "data": {"tenure": [1]}}, {"data": [[1, 2]], "more": SECRET}),
        *({"columns": ["tenure", "spend"], "data": [PLAIN]}, {"columns": [1, 2], "data": [[1, 2]]}),
        *({"columns": ["tenure", "spend"], "index": [1, 1], "data": [[1, 2], [3, 4]]}, {"columns": ["tenure"]}),
    ]
    for content in split:
        yield JSON, {"dataframe_split": content}
    for text in (
        *("", "\n", "tenure\n", "tenure,spend", "tenure,spend\n1\n", "tenure,spend\n1,2,3\n", "spend,tenure\n1,2\n"),
        *("tenure,spend\n1,2\n1,2,3,4\n", "tenure;spend\n1;2\n", "tenure,spend\r\n1,2\r\n", "tenure,spend\r1,2\r"),
        *('"tenure","spend"\n"1","2"\n', "tenure,spend\n,\n", "tenure,spend\nNA,nan\n", "tenure,spend\ninf,-inf\n"),
        *("tenure,spend\n1e5,0x10\n", ",tenure,spend\n0,1,2\n", "tenure,tenure\n1,2\n", " tenure, spend\n1, 2\n"),
        *("\ufefftenure,spend\n1,2\n", 'tenure,spend\n"1,2\n', "tenure,spend\n1,2\x00\n", "tenure,spend\n\n\n1,2\n"),
        *("1,2\n3,4\n", b"\xff,\xfe\n1,2\n", b"tenure,spend\n\xc3\xa9,2\n", "tenure,spend\n" + "9" * 22 + ",2\n"),
    ):
        yield CSV, text
    for raw in (b"", b"PAR1", b"PAR1" + b"\0" * 100 + b"PAR1", parquet(pd.DataFrame(PLAIN, [0]))[:-20], plain):
        yield PARQUET, raw
    for content_type in (
        *("", " ", ";", f"{JSON};", f"{JSON} ; charset=utf-8", f"{JSON};charset=UTF-8", f"{JSON}; charset=utf8"),
        *(f'{JSON}; charset="utf-8"', f"{JSON}; charset", f"{JSON}; charset=", f"{JSON}; charset=utf-8; charset=x"),
        *(f"{JSON}; charset=x; charset=utf-8", "Application/JSON", f"{JSON}, {CSV}", f"{JSON}; version=1"),
        *(f"{JSON}; format=pandas-split", f"{JSON}; format=pandas-records", f"{CSV}; header=present", f"{CSV} ;"),
        *("text/plain", "*/*", "application/octet-stream", "multipart/form-data; boundary=a", "application/jsonp"),
        *("application/x-www-form-urlencoded", "application/x-parquet", "application/parquet", f"{PARQUET}; charset=x"),
        *(f"{PARQUET}; charset=utf-8", "application/vnd.apache.arrow.stream", f"{JSON}\t", f"{CSV}; charset=ascii"),
    ):
        for body in (plain, "tenure,spend\n1,2\n", parquet(pd.DataFrame(PLAIN, [0])), ""):
            yield content_type, body


def of_heads() -> Iterator[Request]:
    """Tables whose head holds values: what a forgotten head makes of the first row."""
    for data in (None, [], [[1.5]], [["a"]], [["a", "b"]]):
        yield JSON, {"dataframe_split": {"columns": [SECRET], "data": data}}
    yield JSON, {"dataframe_records": [{SECRET: "a"}]}
    yield JSON, {"inputs": {SECRET: ["a"]}}
    yield JSON, {"instances": [{SECRET: "a"}]}
    yield CSV, f"{SECRET},1\na,2\n"
    yield CSV, f"{SECRET}\n1.5\n"


def of_params() -> Iterator[Request]:
    """Values of every sort for parameters of every sort."""
    values: dict[str, list[Any]] = {
        "f": [1, 1.5, SECRET, None, True, [1]],
        "i": [1, 1.5, "1", None, True, 2**70],
        "s": ["a", 1, None],
        "b": [True, 1, "true", None],
        "l": [[1, 2], [], [SECRET], 1, None, [[1]]],
        "d": ["2020-01-01", SECRET, 1, None],
        "unknown": [SECRET],
    }
    for name, candidates in values.items():
        for value in candidates:
            yield JSON, {"dataframe_records": [{"a": 1.0}], "params": {name: value}}
    for params in (1, SECRET, [], {}, None):
        yield JSON, {"inputs": {"a": [1.0]}, "params": params}


def of_chats() -> Iterator[Request]:
    """Unwrapped bodies, as models of language take them."""
    hello = [{"role": "user", "content": SECRET}]
    for body in (
        *({"messages": hello}, {"messages": hello, "temperature": 0.5, "more": 1}, {"messages": SECRET}),
        *({"messages": []}, {"messages": [{"role": 1}]}, {"messages": hello, "params": {"a": 1}, "stream": True}),
        *({"prompt": SECRET}, {"prompt": "a", "t": 0.2}, {"prompt": ["a"], "t": SECRET}, {"prompt": "a", "inputs": 1}),
        *({"input": SECRET}, {"inputs": [{"messages": []}]}),
    ):
        yield JSON, body


def parquet(frame: pd.DataFrame) -> bytes:
    """A frame as a Parquet file."""
    file = BytesIO()
    frame.to_parquet(file)
    return file.getvalue()


class Pair:
    """MLflow's application and ours, over one model."""

    def __init__(self, folder: Path) -> None:
        settings = Settings("churn", "5", f"file://{folder}", signature_required=False)
        self.model: ServedModel = load(folder, "", [], settings)
        predictor = Predictor(2, 128, 60, _METRICS, lambda: None)
        self.theirs = scoring_server.init(mlflow.pyfunc.load_model(str(folder)))
        self.ours = Api(self.model, [], settings, predictor, _METRICS, fast_path(self.model)).build(Drain(0))

    async def ask(self, content_type: str | None, body: Any) -> tuple[httpx.Response, httpx.Response]:
        """Their answer, and ours."""
        content = body if isinstance(body, str | bytes) else json.dumps(body)
        headers = {} if content_type is None else {"content-type": content_type}
        answers = []
        for app in (self.theirs, self.ours):
            transport = httpx.ASGITransport(app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
                answers.append(await client.post("/invocations", content=content, headers=headers))
        return answers[0], answers[1]


_METRICS = Metrics("churn", "5")


def difference(wanted: httpx.Response, found: httpx.Response) -> str | None:
    """What our answer should not be, if anything."""
    if wanted.status_code == 200:
        same = (found.status_code, found.content) == (200, wanted.content)
        same = same and found.headers["content-type"] == wanted.headers["content-type"]
        return None if same else f"MLflow answered {wanted.text!r}, we {found.status_code} {found.text!r}"
    # Where MLflow breaks, a caller's mistake is still a caller's mistake
    allowed = {400, 415, 500} if wanted.status_code == 500 else {wanted.status_code}
    if found.status_code not in allowed:
        return f"MLflow answered {wanted.status_code} {wanted.text!r}, we {found.status_code} {found.text!r}"
    if found.headers["content-type"] != JSON or set(found.json()) != {"error_code", "message"}:
        return f"no error of ours: {found.text}"
    told = [word for word in TELLTALES if word in found.text]
    return f"{found.text} tells {told}" if told else None


def differences(pair: Pair, requests: Iterator[Request]) -> list[str]:
    """One line for each request that is answered otherwise than by MLflow."""

    async def compare() -> list[str]:
        lines = []
        for content_type, body in requests:
            what = difference(*await pair.ask(content_type, body))
            if what is not None:
                lines.append(f"{content_type} {body!r:.300}: {what:.600}")
        return lines

    return asyncio.run(compare())


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Pair]:
    """`pair("classifier")`: both applications with that model, loaded once."""
    root = tmp_path_factory.mktemp("kinds")
    loaded: dict[str, Pair] = {}

    def get(name: str) -> Pair:
        if name not in loaded:
            KINDS[name].save(root / name)
            loaded[name] = Pair(root / name)
        return loaded[name]

    return get


@pytest.mark.parametrize("name", KINDS)
def test_every_format_is_answered_as_by_mlflow(name: str, pair: Callable[[str], Pair]) -> None:
    row = KINDS[name].row
    assert differences(pair(name), of_no_row() if row is None else of_row(row)) == []


@pytest.mark.parametrize("name", KINDS)
def test_every_model_is_warmed_up(name: str, pair: Callable[[str], Pair]) -> None:
    """By its example, or by a row made from its signature; only what has neither, or refuses such a row, is told."""
    expected = {"no signature": "neither", "mirror": "neither", "answers": "KeyError", "raises": "AttributeError"}
    assert [expected.get(name, "no warning") in warning for warning in warm_up(pair(name).model)] in ([], [True])
    assert bool(warm_up(pair(name).model)) == (name in expected)


@pytest.mark.parametrize("name", ["classifier", "whole numbers", "text columns", "optional", "matrix", "mirror"])
def test_hardly_readable_bodies(name: str, pair: Callable[[str], Pair]) -> None:
    assert differences(pair(name), of_bytes()) == []


@pytest.mark.parametrize("name", KINDS)
def test_no_head_is_told(name: str, pair: Callable[[str], Pair]) -> None:
    assert differences(pair(name), of_heads()) == []


def test_parameters(pair: Callable[[str], Pair]) -> None:
    assert differences(pair("parameters"), of_params()) == []


@pytest.mark.parametrize("name", ["chat", "prompt", "messages", "mirror", "classifier", "typed text"])
def test_unwrapped_bodies(name: str, pair: Callable[[str], Pair]) -> None:
    assert differences(pair(name), of_chats()) == []


def test_every_answer_of_a_model(pair: Callable[[str], Pair]) -> None:
    assert differences(pair("answers"), ((JSON, {"inputs": {"kind": [kind]}}) for kind in ANSWERS)) == []


def test_every_error_of_a_model(pair: Callable[[str], Pair]) -> None:
    assert differences(pair("raises"), ((JSON, {"inputs": {"kind": [kind]}}) for kind in ERRORS)) == []


@pytest.mark.parametrize("kind", ["SystemExit", "GeneratorExit"])
def test_a_model_that_exits_only_fails(kind: str, pair: Callable[[str], Pair]) -> None:
    """It ends `mlflow models serve`."""

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(pair("raises").ours)
        async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
            return await client.post("/invocations", json={"inputs": {"kind": [kind]}})

    answer = asyncio.run(ask())
    assert answer.status_code == 400
    assert SECRET not in answer.text


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6) | st.just(SECRET),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*EVERYTHING, *PLAIN]), inner),
    max_leaves=8,
)
rows = st.lists(st.fixed_dictionaries({}, optional=dict.fromkeys([*EVERYTHING, *PLAIN], json_values)), max_size=3)
bodies = st.one_of(
    st.builds(lambda key, content: {key: content}, st.sampled_from(["inputs", "instances"]), json_values),
    st.builds(lambda key, content: {key: content}, st.sampled_from(["inputs", "dataframe_records", "instances"]), rows),
    st.builds(
        lambda names, data, index: {"dataframe_split": {"columns": names, "data": data, **index}},
        st.lists(st.sampled_from([*EVERYTHING, *PLAIN]), max_size=4) | json_values,
        st.lists(st.lists(json_values, max_size=4), max_size=3) | json_values,
        st.fixed_dictionaries({}, optional={"index": json_values}),
    ),
    st.dictionaries(st.sampled_from(["inputs", "instances", "params", "prompt", "messages"]), json_values),
)


@given(name=st.sampled_from([name for name in KINDS if name not in ("answers", "raises")]), body=bodies)
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_json_is_answered_as_by_mlflow(name: str, body: Any, pair: Callable[[str], Pair]) -> None:
    assert differences(pair(name), iter([(JSON, body)])) == []


cells = st.text(max_size=6) | st.integers() | st.floats() | st.booleans() | st.just(SECRET)
tables = st.lists(st.lists(cells, min_size=1, max_size=4), min_size=1, max_size=3)


@given(
    name=st.sampled_from(["classifier", "text columns", "optional", "mirror", "matrix", "one text"]),
    names=st.lists(st.sampled_from([*EVERYTHING, *PLAIN, "city", "age", "only"]), min_size=1, max_size=4),
    table=tables,
)
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_csv_is_answered_as_by_mlflow(
    name: str, names: list[str], table: list[list[Any]], pair: Callable[[str], Pair]
) -> None:
    text = "\n".join(",".join(str(cell) for cell in line) for line in [names, *table])
    assert differences(pair(name), iter([(CSV, text.encode("utf-8", "surrogatepass"))])) == []


columns = st.one_of(
    st.lists(st.integers(-(2**63), 2**63 - 1) | st.none(), min_size=2, max_size=2),
    st.lists(st.floats() | st.none(), min_size=2, max_size=2),
    st.lists(st.text(st.characters(codec="utf-8"), max_size=6) | st.none(), min_size=2, max_size=2),
    st.lists(st.booleans() | st.none(), min_size=2, max_size=2),
    st.lists(st.dates() | st.none(), min_size=2, max_size=2),
    st.lists(st.datetimes() | st.none(), min_size=2, max_size=2),
    st.lists(st.binary(max_size=4) | st.none(), min_size=2, max_size=2),
    st.lists(st.lists(st.integers(0, 9), max_size=2) | st.none(), min_size=2, max_size=2),
)


@given(
    name=st.sampled_from(["classifier", "text columns", "required", "optional", "mirror", "matrix", "one text"]),
    frame=st.dictionaries(st.sampled_from([*EVERYTHING, *PLAIN, "city", "age", "only"]), columns, min_size=1),
)
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_parquet_is_answered_as_by_mlflow(
    name: str, frame: dict[str, list[Any]], pair: Callable[[str], Pair]
) -> None:
    assert differences(pair(name), iter([(PARQUET, parquet(pd.DataFrame(frame)))])) == []
