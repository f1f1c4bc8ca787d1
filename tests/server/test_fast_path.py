"""The short way of `/invocations` beside the long one, which is MLflow's: the same bytes, or not taken at all."""

import asyncio
import json
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import lightgbm
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from lakeloop_server.app import Api
from lakeloop_server.drain import Drain
from lakeloop_server.errors import RequestError
from lakeloop_server.fast import FastPath, fast_path
from lakeloop_server.invocations import score
from lakeloop_server.metrics import Metrics
from lakeloop_server.model import JSON, ServedModel
from lakeloop_server.predictor import Predictor
from lakeloop_server.settings import Settings
from mlflow.lightgbm import _LGBModelWrapper
from mlflow.models import Model
from mlflow.models.signature import ModelSignature
from mlflow.pyfunc import PyFuncModel
from mlflow.sklearn import _SklearnModelWrapper
from mlflow.types import ColSpec, Schema, TensorSpec
from sklearn import discriminant_analysis, ensemble, linear_model, naive_bayes, neighbors, neural_network, svm, tree
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.compose import make_column_transformer
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    MaxAbsScaler,
    MinMaxScaler,
    PolynomialFeatures,
    QuantileTransformer,
    RobustScaler,
    StandardScaler,
)

WHOLE = {"long": np.int64, "integer": np.int32}
TYPES: dict[str, Any] = {"double": np.float64, "float": np.float32, **WHOLE}
LARGEST = {**dict.fromkeys(TYPES, 2**53 - 1), "integer": 2**31 - 1}


class Own(ClassifierMixin, BaseEstimator):
    """A user's own class: what it looks at is not known."""

    def fit(self, table: Any, target: Any) -> "Own":
        """Nothing but what scikit-learn wants."""
        self.n_features_in_, self.classes_ = table.shape[1], np.unique(target)
        return self

    def predict(self, table: Any) -> Any:
        """The name of the table's type."""
        return np.array([type(table).__name__] * len(table))


# name: what is fitted, and the method that is served
SHORT: dict[str, tuple[Callable[[], Any], str]] = {
    "scaled logistic": (lambda: make_pipeline(StandardScaler(), linear_model.LogisticRegression()), "predict"),
    "its probabilities": (lambda: make_pipeline(StandardScaler(), linear_model.LogisticRegression()), "predict_proba"),
    "logistic logarithms": (linear_model.LogisticRegression, "predict_log_proba"),
    "scaled by hand": (
        lambda: make_pipeline(StandardScaler(with_mean=False), "passthrough", linear_model.LinearRegression()),
        "predict",
    ),
    "line": (linear_model.LinearRegression, "predict"),
    "ridge": (lambda: make_pipeline(RobustScaler(), linear_model.Ridge()), "predict"),
    "lasso": (lambda: make_pipeline(MinMaxScaler(), linear_model.Lasso(0.01)), "predict"),
    "gradient descent": (lambda: make_pipeline(MaxAbsScaler(), linear_model.SGDClassifier(random_state=0)), "predict"),
    "support vectors": (lambda: make_pipeline(StandardScaler(), svm.SVC()), "predict"),
    "linear support vectors": (lambda: make_pipeline(StandardScaler(), svm.LinearSVC()), "predict"),
    "polynomial": (lambda: make_pipeline(PolynomialFeatures(2), linear_model.LinearRegression()), "predict"),
    "components": (lambda: make_pipeline(PCA(1), linear_model.BayesianRidge()), "predict"),
    "quantiles": (
        lambda: make_pipeline(QuantileTransformer(n_quantiles=5, random_state=0), neighbors.KNeighborsClassifier(3)),
        "predict",
    ),
    "bayes": (naive_bayes.GaussianNB, "predict_proba"),
    "discriminant": (discriminant_analysis.LinearDiscriminantAnalysis, "predict_proba"),
    "network": (lambda: neural_network.MLPClassifier((3,), max_iter=5, random_state=0), "predict_proba"),
    "tree": (lambda: tree.DecisionTreeClassifier(random_state=0), "predict"),
    "tree of numbers": (lambda: tree.DecisionTreeRegressor(random_state=0), "predict"),
    "tree's probabilities": (lambda: tree.ExtraTreeClassifier(random_state=0), "predict_proba"),
    "forest": (lambda: ensemble.RandomForestClassifier(5, random_state=0), "predict"),
    "forest's probabilities": (lambda: ensemble.ExtraTreesClassifier(5, random_state=0), "predict_proba"),
    "forest of numbers": (
        lambda: make_pipeline(StandardScaler(), ensemble.RandomForestRegressor(5, random_state=0)),
        "predict",
    ),
    "boosted": (lambda: ensemble.GradientBoostingClassifier(n_estimators=3, random_state=0), "predict_proba"),
    "boosted numbers": (lambda: ensemble.GradientBoostingRegressor(n_estimators=3, random_state=0), "predict"),
    "histograms": (lambda: ensemble.HistGradientBoostingClassifier(max_iter=3, random_state=0), "predict_proba"),
    "LightGBM": (lambda: lightgbm.LGBMRegressor(n_estimators=3, min_child_samples=2, verbose=-1), "predict"),
    "LightGBM's classes": (lambda: lightgbm.LGBMClassifier(n_estimators=3, min_child_samples=2, verbose=-1), "predict"),
}
LONG: dict[str, tuple[Callable[[], Any], str]] = {
    "columns by name": (
        lambda: make_pipeline(make_column_transformer((StandardScaler(), ["c0"])), linear_model.LinearRegression()),
        "predict",
    ),
    "a function": (lambda: make_pipeline(FunctionTransformer(lambda x: x), linear_model.LinearRegression()), "predict"),
    "a user's class": (Own, "predict"),
    "a user's transformer": (
        lambda: make_pipeline(type("StandardScaler", (StandardScaler,), {})(), linear_model.LinearRegression()),
        "predict",
    ),
    "votes": (
        lambda: ensemble.VotingRegressor([("a", linear_model.LinearRegression()), ("b", linear_model.Ridge())]),
        "predict",
    ),
    "threads": (lambda: ensemble.RandomForestRegressor(5, n_jobs=2, random_state=0), "predict"),
    "tables within": (
        lambda: make_pipeline(StandardScaler(), linear_model.LinearRegression()).set_output(transform="pandas"),
        "predict",
    ),
}


_METRICS = Metrics("churn", "5")


class Case:
    """One fitted model with its signature, served in this process."""

    def __init__(self, name: str, kinds: tuple[str, ...], tensor: bool = False, labels: str = "numbers") -> None:
        make, method = (SHORT | LONG)[name]
        random = np.random.default_rng(len(kinds))
        table = pd.DataFrame(
            {f"c{i}": (random.normal(size=40) * 10).astype(TYPES[kind]) for i, kind in enumerate(kinds)}
        )
        target = pd.Series(random.integers(0, 3 if labels == "three" else 2, 40))
        target.iloc[:3] = [0, 1, 2 if labels == "three" else 0]
        if labels == "text":
            target = target.map({0: "né", 1: "yes"})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fitted = make().fit(table.to_numpy() if tensor else table, target)
        self.names, self.kinds, self.tensor = list(table), kinds, tensor
        inputs: list[Any] = [ColSpec(kind, f"c{i}") for i, kind in enumerate(kinds)]
        if tensor:
            inputs = [TensorSpec(np.dtype(TYPES[kinds[0]]), (-1, len(kinds)))]
        flavor = "lightgbm" if name.startswith("LightGBM") else "sklearn"
        meta = Model(
            signature=ModelSignature(inputs=Schema(inputs)),
            flavors={"python_function": {"loader_module": f"mlflow.{flavor}", "predict_fn": method}},
        )
        wrapper = _LGBModelWrapper(fitted) if flavor == "lightgbm" else _SklearnModelWrapper(fitted)
        pyfunc = PyFuncModel(meta, wrapper, predict_fn=method)
        schema = meta.get_input_schema()
        self.model = ServedModel("churn", "5", "", (), pyfunc, schema, None, None, Path())
        self.path = fast_path(self.model)
        predictor = Predictor(1, 100, 60, _METRICS, lambda: None)
        options = Settings("churn", "5", "file:///none")
        # The Open Inference Protocol with and without a short way
        self.apps = [
            Api(self.model, [], options, predictor, _METRICS, path).build(Drain(0)) for path in (self.path, None)
        ]

    def infer(self, payload: Any) -> list[tuple[int, bytes]]:
        """What the two applications answer."""

        async def ask() -> list[tuple[int, bytes]]:
            answers = []
            for app in self.apps:
                async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://server") as client:
                    found = await client.post("/v2/models/churn/infer", json=payload)
                    answers.append((found.status_code, found.content))
            return answers

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return asyncio.run(ask())

    def both(self, body: str | bytes) -> tuple[bytes | None, bytes | None]:
        """What the short way answers (None: not taken), and the long one (None: refused)."""
        content = body.encode("utf-8", "surrogatepass") if isinstance(body, str) else body
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            short = self.path.score(content, JSON) if self.path else None
            try:
                return short, score(content, JSON, self.model)
            except RequestError:
                return short, None


@cache
def case(name: str, kinds: tuple[str, ...], tensor: bool = False, labels: str = "numbers") -> Case:
    """Each model fitted once."""
    return Case(name, kinds, tensor, labels)


def written(names: list[str], rows: list[list[str]], shape: str) -> str:
    """A body in one of the formats; names and cells are JSON already."""
    lists = ["[" + ",".join(row) + "]" for row in rows]
    objects = ["{" + ",".join(f"{name}:{cell}" for name, cell in zip(names, row, strict=False)) + "}" for row in rows]
    columns = [[row[i] for row in rows if i < len(row)] for i in range(len(names))]
    by_name = "{" + ",".join(f"{name}:[{','.join(cells)}]" for name, cells in zip(names, columns, strict=True)) + "}"
    return {
        "split": f'{{"dataframe_split":{{"columns":[{",".join(names)}],"data":[{",".join(lists)}]}}}}',
        "split without columns": f'{{"dataframe_split":{{"data":[{",".join(lists)}]}}}}',
        "split with index": f'{{"dataframe_split":{{"index":{list(range(len(rows)))},"columns":[{",".join(names)}],'
        f'"data":[{",".join(lists)}]}}}}',
        "records": f'{{"dataframe_records":[{",".join(objects)}]}}',
        "instances": f'{{"instances":[{",".join(objects)}]}}',
        "instances by name": f'{{"instances":{by_name}}}',
        "inputs": f'{{"inputs":{by_name}}}',
        "inputs as records": f'{{"inputs":[{",".join(objects)}]}}',
        "rows": f'{{"inputs":[{",".join(lists)}]}}',
        "rows as instances": f'{{"instances":[{",".join(lists)}]}}',
        "list": f'{{"inputs":[{",".join(row[0] for row in rows if row)}]}}',
        "with params": f'{{"dataframe_records":[{",".join(objects)}],"params":{{}}}}',
        "with more": f'{{"inputs":{by_name},"more":1}}',
        "two formats": f'{{"inputs":{by_name},"dataframe_records":[{",".join(objects)}]}}',
    }[shape]


SURE_SHAPES = ("split", "records", "instances", "instances by name", "inputs")
SHAPES = (
    *(*SURE_SHAPES, "split without columns", "split with index", "inputs as records", "rows", "rows as instances"),
    *("list", "with params", "with more", "two formats"),
)
kinds_of_columns = st.one_of(
    st.integers(1, 6).map(lambda n: ("double",) * n),
    st.integers(1, 4).map(lambda n: ("float",) * n),
    st.lists(st.sampled_from(list(TYPES)), min_size=1, max_size=4).map(tuple),
)
signatures = st.tuples(
    st.sampled_from(list(SHORT)), kinds_of_columns, st.booleans(), st.sampled_from(["numbers", "text", "three"])
)


def signature_of(drawn: tuple[str, tuple[str, ...], bool, str]) -> Case:
    """A model for what was drawn, with labels that it can learn."""
    name, kinds, tensor, labels = drawn
    if name == "components" and len(kinds) == 1:
        kinds = (*kinds, *kinds)
    tensor = tensor and len(set(kinds)) == 1 and not name.startswith("LightGBM")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        numeric = not hasattr(SHORT[name][0](), "classes_") and _is_regressor(name)
        return case(name, kinds, tensor, "numbers" if numeric else labels)


@cache
def _is_regressor(name: str) -> bool:
    from sklearn.base import is_regressor

    return bool(is_regressor(SHORT[name][0]()))


def sure_cells(kind: str) -> st.SearchStrategy[str]:
    """Numbers as JSON that the short way must take for a column of this type."""
    largest = LARGEST[kind]
    whole = st.integers(-largest, largest) | st.integers(-20, 20)
    if kind in WHOLE:
        return whole.map(str)
    fractions = st.floats(-largest, largest) | st.floats(-100, 100)
    return (whole | fractions).map(repr) | fractions.map("{:.3E}".format)


ODD_CELLS = [
    *(
        "null",
        "true",
        "false",
        '"1"',
        '"x"',
        "NaN",
        "Infinity",
        "-Infinity",
        "-0",
        "-0.0",
        "0.0",
        "-0e3",
        "1E400",
        "[1]",
    ),
    *("1e400", "9007199254740993", "-9007199254740993", "9223372036854775807", "9223372036854775808", "1e-320", "{}"),
    *("18446744073709551616", "1" + "0" * 400, "2147483648", "-2147483648", "1.5", "3.0", "1e20", "16777217", "[]"),
    *("0.1000000000000000055511151231257827", "123456789012345678901234567890.5", "5e-324", "2.2250738585072011e-308"),
    *("1e22", "1e23", "8.41e21", "01", "1.", "+1", "--1", "0x1", "1 2", "", '"\\ud800"', '"\ud800"', "-00"),
]


@given(drawn=signatures, data=st.data())
@settings(
    max_examples=250, deadline=None, suppress_health_check=list(HealthCheck), phases=(Phase.generate, Phase.explicit)
)
def test_plain_numbers_go_the_short_way_to_the_same_bytes(drawn: Any, data: st.DataObject) -> None:
    served = signature_of(drawn)
    cells = st.tuples(*(sure_cells(kind) for kind in served.kinds)).map(list)
    rows = data.draw(st.lists(cells, min_size=1, max_size=data.draw(st.sampled_from([1, 3, 40]))))
    order = data.draw(st.permutations(range(len(served.names))))
    shape = data.draw(st.sampled_from(["rows", "rows as instances"] if served.tensor else SURE_SHAPES))
    if served.tensor:
        order = sorted(order)
    names = [json.dumps(served.names[i]) for i in order]
    body = written(names, [[row[i] for i in order] for row in rows], shape)
    short, long = served.both(body)
    if long is not None and "-0" not in body:
        assert short is not None, body
    assert short in (None, long)


@given(drawn=signatures, data=st.data())
@settings(
    max_examples=400, deadline=None, suppress_health_check=list(HealthCheck), phases=(Phase.generate, Phase.explicit)
)
def test_whatever_the_short_way_answers_the_long_one_does(drawn: Any, data: st.DataObject) -> None:
    served = signature_of(drawn)
    any_cell = st.one_of(*(sure_cells(kind) for kind in TYPES), st.sampled_from(ODD_CELLS))
    width = data.draw(st.sampled_from([len(served.names)] * 6 + [max(0, len(served.names) - 1), len(served.names) + 1]))
    sure = st.tuples(*(sure_cells(kind) for kind in served.kinds)).map(list)
    odd = st.lists(any_cell, min_size=width, max_size=width)
    rows = data.draw(st.lists(st.one_of(sure, odd), max_size=4))
    names = data.draw(
        st.sampled_from(
            [served.names] * 4 + [served.names[::-1], served.names[:-1], [*served.names, "x"], ["c0"] * width]
        )
    )
    shown = [json.dumps(name) for name in names]
    if data.draw(st.booleans()):
        shown = [name.replace("c", "\\u0063") for name in shown]
    body = written(shown, rows, data.draw(st.sampled_from(SHAPES)))
    body = (
        data.draw(st.sampled_from(["", "", "\ufeff", " \t\r\n", "\x0b"]))
        + body
        + data.draw(st.sampled_from(["", " ", "x"]))
    )
    encoding = data.draw(st.sampled_from(["utf-8"] * 5 + ["utf-16", "utf-32"]))
    short, long = served.both(body.encode(encoding, "surrogatepass"))
    assert short in (None, long)


@pytest.mark.parametrize("width", [1, 2, 13, 64, 150])
@pytest.mark.parametrize("name", ["line", "ridge", "its probabilities", "gradient descent", "components", "network"])
def test_sums_of_many_numbers_are_the_same_to_the_last_bit(name: str, width: int) -> None:
    """How BLAS adds up depends on how many there are, and on where they lie."""
    for tensor in (False, True):
        served = case(name, ("double",) * max(width, 2 if name == "components" else 1), tensor)
        for count in (1, 2, 7, 64, 300):
            table = np.random.default_rng(count).normal(size=(count, len(served.names)), scale=30).tolist()
            rows = [[repr(cell) for cell in row] for row in table]
            for shape in ("rows",) if tensor else ("split", "inputs"):
                short, long = served.both(written([json.dumps(name) for name in served.names], rows, shape))
                assert short is not None
                assert short == long


@pytest.mark.parametrize("cell", ODD_CELLS)
@pytest.mark.parametrize("kind", TYPES)
def test_every_odd_value_is_answered_as_the_long_way_does(kind: str, cell: str) -> None:
    for tensor in (False, True):
        served = case("line", (kind, kind), tensor)
        for shape in SHAPES:
            short, long = served.both(written(['"c0"', '"c1"'], [[cell, "1"], ["2", cell]], shape))
            assert short in (None, long), shape


@pytest.mark.parametrize("shape", SURE_SHAPES)
@pytest.mark.parametrize("name", SHORT)
def test_known_models_have_a_short_way(name: str, shape: str) -> None:
    served = case(name, ("double", "double"))
    short, long = served.both(written(['"c1"', '"c0"'], [["1", "2.5"], ["3e0", "-4"]], shape))
    assert short is not None
    assert short == long


@pytest.mark.parametrize("kind", TYPES)
def test_every_type_of_number_has_a_short_way(kind: str) -> None:
    for tensor, shape in ((False, "split"), (False, "list"), (True, "rows")):
        served = case("line", (kind,), tensor)
        short, long = served.both(written(['"c0"'], [["3"], ["-2"]], shape))
        assert short is not None
        assert short == long


@pytest.mark.parametrize("name", LONG)
def test_other_models_have_none(name: str) -> None:
    served = case(name, ("double", "double"))
    assert served.path is None
    assert served.both(written(['"c0"', '"c1"'], [["1", "2"]], "split"))[1] is not None


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(written(['"c0"', '"c1"'], [["1", "2"]], "split with index"), id="index"),
        pytest.param(written(['"c0"', '"c1"'], [["1", "2"]], "with params"), id="params"),
        pytest.param(written(['"c0"', '"c1"', '"x"'], [["1", "2", "3"]], "split"), id="a column too many"),
        pytest.param(written(['"c0"', '"c1"'], [["1", "-0"]], "split"), id="minus zero"),
        pytest.param(written(['"c0"', '"c1"'], [["1", "null"]], "split"), id="null"),
        pytest.param(written(['"c0"', '"c1"'], [["1", "9007199254740993"]], "split"), id="large"),
        pytest.param("", id="nothing"),
        pytest.param("3", id="a number"),
        pytest.param(b"\xff", id="not UTF-8"),
    ],
)
def test_what_is_doubtful_goes_the_long_way(body: str | bytes) -> None:
    assert case("line", ("double", "double")).both(body)[0] is None


@pytest.mark.parametrize("content_type", ["text/csv", f"{JSON}; charset=latin-1", None])
def test_only_json_has_a_short_way(content_type: str | None) -> None:
    path = case("line", ("double",)).path
    assert path is not None
    assert path.score(b'{"inputs":[1]}', JSON) is not None
    assert path.score(b'{"inputs":[1]}', content_type) is None


def test_a_kernel_that_is_wrong_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lakeloop_server.kernels._linear", lambda _: lambda rows: rows[:, 0] * 0)
    assert Case("line", ("double",)).path is None


def test_a_model_fitted_on_another_order_has_none() -> None:
    served = Case("line", ("double", "double"))
    assert served.path is not None
    swapped = ModelSignature(inputs=Schema([ColSpec("double", "c1"), ColSpec("double", "c0")]))
    served.model.pyfunc.metadata.signature = swapped
    assert fast_path(_with_schema(served.model)) is None


def _with_schema(model: ServedModel) -> ServedModel:
    from dataclasses import replace

    return replace(model, input_schema=model.pyfunc.metadata.get_input_schema())


def test_concurrent_requests_are_answered_each_as_alone() -> None:
    """Batches of a forest that is taken for a slow one, with requests among them that it refuses."""
    served = Case("forest's probabilities", ("double", "float"))
    assert served.path is not None
    assert served.path.kernel.independent
    served.path.quick_rows = 0
    cells = [["1", "2.5"], ["-7e3", "0"], ["null", "1"], ["3", '"x"'], ["0.1", "-2"], ["5e300", "1"]]
    bodies = [written(['"c0"', '"c1"'], [cells[i % 6], cells[i % 2]][: 1 + i % 2], "split").encode() for i in range(60)]
    sizes: list[int] = []
    answers = served.path.answers

    def seen(tables: Any) -> Any:
        sizes.append(len(tables))
        return answers(tables)

    served.path.answers = seen  # type: ignore[method-assign]

    async def ask() -> list[httpx.Response]:
        transport = httpx.ASGITransport(served.apps[0])
        async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
            posts = [client.post("/invocations", content=body, headers={"content-type": JSON}) for body in bodies]
            return await asyncio.gather(*posts)

    found = asyncio.run(ask())
    served.path.answers = answers  # type: ignore[method-assign]
    for body, answer in zip(bodies, found, strict=True):
        long = served.both(body)[1]
        assert (answer.status_code, answer.content if long else None) == (200 if long else 400, long)
    assert max(sizes) > 1


TENSORS = {"double": "FP64", "float": "FP32", "long": "INT64", "integer": "INT32"}


@given(drawn=signatures, data=st.data())
@settings(
    max_examples=150, deadline=None, suppress_health_check=list(HealthCheck), phases=(Phase.generate, Phase.explicit)
)
def test_tensors_are_answered_as_the_long_way_does(drawn: Any, data: st.DataObject) -> None:
    served = signature_of(drawn)
    count = data.draw(st.integers(0, 3))
    cells = {
        kind: st.integers(-100, 100) if kind in WHOLE else st.floats(-1e6, 1e6, width=32) | st.integers(-9, 9)
        for kind in TYPES
    }
    odd = st.none() | st.booleans() | st.just(1e300)
    inputs: list[dict[str, Any]] = []
    for name, kind in zip(served.names, served.kinds, strict=True):
        column = data.draw(st.lists(cells[kind], min_size=count, max_size=count))
        if column and data.draw(st.sampled_from([False] * 9 + [True])):
            column[0] = data.draw(odd)
        shape = data.draw(st.sampled_from([[count], [count, 1]]))
        datatype = data.draw(st.sampled_from([TENSORS[kind]] * 9 + list(TENSORS.values())))
        inputs.append({"name": name, "shape": shape, "datatype": datatype, "data": column})
    if served.tensor:
        table = [inputs[i]["data"][j] for j in range(count) for i in range(len(inputs))]
        inputs = [{**inputs[0], "shape": [count, len(inputs)], "data": table}]
    payload = {"inputs": data.draw(st.permutations(inputs)), "id": "x"}
    short, long = served.infer(payload)
    assert short == long


def test_tensors_have_a_short_way() -> None:
    for kind, datatype in TENSORS.items():
        for tensor in (False, True):
            served = case("scaled logistic", (kind,), tensor)
            assert served.path is not None
            assert served.path.quick_rows > 0
            predictions = served.path.predict
            taken: list[Any] = []
            served.path.predict = lambda rows, to=predictions, at=taken: at.append(rows) or to(rows)  # type: ignore
            shape = [2, 1]
            short, long = served.infer(
                {"inputs": [{"name": "c0", "shape": shape, "datatype": datatype, "data": [1, 2]}]}
            )
            served.path.predict = predictions  # type: ignore[method-assign]
            assert len(taken) == 1
            assert short == long
            assert short[0] == 200


def test_rows_that_a_batch_may_mix_do_not_change_each_other() -> None:
    """To the last bit, for every model that says so."""
    found = []
    for name in SHORT:
        for kinds in (("double",) * 3, ("float", "long")):
            path = case(name, kinds).path
            assert isinstance(path, FastPath)
            if not path.kernel.independent:
                continue
            found.append(name)
            rows = np.asfortranarray(np.random.default_rng(1).normal(size=(50, len(kinds)), scale=9))
            together = path.predict(rows)
            assert together is not None
            for i in range(50):
                alone = path.predict(rows[i : i + 1])
                assert alone is not None
                assert alone.tolist() == together[i : i + 1].tolist()
    assert {"forest", "tree", "histograms", "boosted", "LightGBM"} <= set(found)
    assert not {"line", "ridge", "network"} & set(found)
