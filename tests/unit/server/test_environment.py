"""Which differences between a model's environment and the image matter."""

from typing import Any

import pytest
from lakeloop_server.environment import Recorded, compare, recorded

INSTALLED = {"scikit-learn": "1.9.1", "numpy": "2.4.6", "mlflow-skinny": "3.17.2", "skops": "0.16.0"}
SKLEARN = {"flavors": {"python_function": {"loader_module": "mlflow.sklearn"}, "sklearn": {}}}
CLOUDPICKLED = {
    "flavors": {
        "python_function": {"loader_module": "mlflow.sklearn"},
        "sklearn": {"serialization_format": "cloudpickle"},
    }
}
PYTHON_MODEL = {"flavors": {"python_function": {"loader_module": "mlflow.pyfunc.model", "python_model": "x.pkl"}}}
XGBOOST = {"flavors": {"python_function": {"loader_module": "mlflow.xgboost"}}}


@pytest.mark.parametrize(
    ("requirement", "problem", "warning"),
    [
        pytest.param("scikit-learn==1.9.1", False, False, id="the same"),
        pytest.param("scikit_learn==1.9.1", False, False, id="the same, spelt otherwise"),
        pytest.param("scikit-learn==1.9.0", False, True, id="patch"),
        pytest.param("scikit-learn==1.7.2", False, True, id="minor"),
        pytest.param("scikit-learn==0.24.2", True, False, id="major"),
        pytest.param("numpy<2", True, False, id="a bound that the image breaks"),
        pytest.param("numpy>=1.20", False, False, id="a bound that the image keeps"),
        pytest.param("numpy", False, False, id="any version"),
        pytest.param("numpy~=2.3.0", False, True, id="compatible release"),
        pytest.param("numpy==2.3.*", False, True, id="wildcard"),
        pytest.param("mlflow==3.17.2", False, False, id="skinny stands in for mlflow"),
        pytest.param("mlflow==2.22.0", True, False, id="another major of MLflow"),
        pytest.param("matplotlib==3.10.0", False, True, id="absent, but no flavor's"),
        pytest.param("pip==24.0", False, False, id="a tool"),
        pytest.param("numpy===any", False, True, id="equal to what is no version"),
        pytest.param("pywin32==1; sys_platform == 'win32'", False, False, id="for another system"),
        pytest.param("git+https://example.org/x.git", False, True, id="not a version"),
    ],
)
def test_requirements(requirement: str, problem: bool, warning: bool) -> None:
    found = compare(Recorded([requirement], None, SKLEARN), "3.11.7", INSTALLED, lambda _: True)
    assert (bool(found.problems), bool(found.warnings)) == (problem, warning)


@pytest.mark.parametrize(
    ("python", "mlmodel", "problem", "warning"),
    [
        pytest.param("3.11.2", CLOUDPICKLED, False, False, id="patch"),
        pytest.param("3.12.1", SKLEARN, False, True, id="minor, no bytecode stored"),
        pytest.param("3.12.1", CLOUDPICKLED, True, False, id="minor, cloudpickle"),
        pytest.param("3.10.1", PYTHON_MODEL, True, False, id="minor, Python model"),
        pytest.param("2.7.18", SKLEARN, True, False, id="major"),
        pytest.param("latest", SKLEARN, False, True, id="not a version"),
    ],
)
def test_python(python: str, mlmodel: dict[str, Any], problem: bool, warning: bool) -> None:
    found = compare(Recorded([], python, mlmodel), "3.11.7", INSTALLED, lambda _: True)
    assert (bool(found.problems), bool(found.warnings)) == (problem, warning)


@pytest.mark.parametrize(
    ("mlmodel", "says"),
    [
        pytest.param(SKLEARN, "", id="there"),
        pytest.param(XGBOOST, "xgboost", id="its module is not there"),
        pytest.param({"flavors": {"spark": {}}}, "spark", id="no python_function"),
        pytest.param({}, "none", id="no flavor at all"),
        pytest.param({"flavors": {"python_function": {"loader_module": "my.own"}}}, "", id="the model's own loader"),
    ],
)
def test_flavors(mlmodel: dict[str, Any], says: str) -> None:
    found = compare(Recorded([], None, mlmodel), "3.11.7", {}, lambda module: module == "sklearn")
    assert bool(found.problems) == bool(says)
    assert says in " ".join(found.problems)


@pytest.mark.parametrize(
    ("files", "requirements", "python"),
    [
        pytest.param(
            ("a==1\n# note\n\n-r x\nb  # why\n", {}, {"python": "3.11.7"}), ["a==1", "b"], "3.11.7", id="usual"
        ),
        pytest.param(
            (None, {"dependencies": ["python=3.10.4", "pip<=24", {"pip": ["c==2"]}]}, {}),
            ["c==2"],
            "3.10.4",
            id="conda",
        ),
        pytest.param(("", {"dependencies": [{"pip": ["c==2"]}]}, {}), [], "3.9.1", id="empty, Python in MLmodel"),
        pytest.param((None, {"dependencies": None}, {}), [], "3.9.1", id="no list"),
        pytest.param((None, {"dependencies": [{"pip": None}, 3]}, {}), [], "3.9.1", id="no list in the list"),
    ],
)
def test_recorded(files: Any, requirements: list[str], python: str) -> None:
    mlmodel = {"flavors": {"python_function": {"python_version": "3.9.1"}}}
    found = recorded(mlmodel, *files)
    assert (list(found.requirements), found.python) == (requirements, python)
