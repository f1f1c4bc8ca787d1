"""MLproject files: entry points, parameters, environments."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from lakeloop_trainer import mlproject
from lakeloop_trainer.failures import RunFailure

TWO = """
name: two
entry_points:
  main:
    parameters:
      C: float
      rounds: {type: int, default: 3}
      data: {type: uri, default: "s3://lake/x"}
    command: "python a.py {C} {rounds} {data}"
  other: {command: "python b.py"}
  broken: {command: "python c.py {absent}"}
"""
HERE = f"{sys.version_info.major}.{sys.version_info.minor}"


def command(folder: Path, entry_point: str = "main", **given: Any) -> mlproject.Command:
    return mlproject.command(folder, entry_point, given, folder)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "MLproject").write_text(TWO)
    return tmp_path


def test_parameters_and_defaults(project: Path) -> None:
    found = command(project, C=1.5, more="a b; rm -rf /")
    assert found.line == "python a.py 1.5 3 s3://lake/x --more 'a b; rm -rf /'"
    assert found.parameters == {"C": "1.5", "rounds": "3", "data": "s3://lake/x", "more": "a b; rm -rf /"}
    assert command(project, "other").line == "python b.py"


@pytest.mark.parametrize(
    ("entry_point", "given", "reason", "field", "said"),
    [
        ("main", {}, "InvalidParameter", "spec.project.parameters.C", "is missing"),
        ("main", {"C": "much"}, "InvalidParameter", "spec.project.parameters.C", "'much'"),
        ("main", {"C": 1, "rounds": 1.5}, "InvalidParameter", "spec.project.parameters.rounds", "type int"),
        ("main", {"C": [1]}, "InvalidParameter", "spec.project.parameters.C", "a string, a number"),
        ("main", {"C": 1, "data": "no uri"}, "InvalidParameter", "spec.project.parameters", "data"),
        ("mian", {}, "InvalidProject", "spec.project.entryPoint", "it has broken, main, other"),
        ("absent.py", {}, "InvalidProject", "spec.project.entryPoint", "there is no file absent.py"),
        ("broken", {}, "InvalidProject", "spec.project.entryPoint", "'absent'"),
    ],
)
def test_what_is_wrong(
    project: Path, entry_point: str, given: dict[str, Any], reason: str, field: str, said: str
) -> None:
    with pytest.raises(RunFailure) as failed:
        command(project, entry_point, **given)
    assert (failed.value.failure_class, failed.value.reason) == ("Application", reason)
    assert failed.value.field == field
    assert said in failed.value.message


def test_a_file_is_an_entry_point(tmp_path: Path) -> None:
    (tmp_path / "train.py").touch()
    assert command(tmp_path, "train.py", a=1).line == "python train.py --a 1"
    with pytest.raises(RunFailure, match="it has no MLproject file"):
        command(tmp_path, "main")


ENVIRONMENTS: dict[str, tuple[dict[str, str], str | None]] = {
    "none": ({}, None),
    "python": ({"python_env.yaml": f"python: {HERE}.1\ndependencies: [mlflow, numpy>=2]\n"}, None),
    "a file of requirements": (
        {"python_env.yaml": "dependencies: [-r r.txt]\n", "r.txt": "# all\nnumpy  # any\n\n"},
        None,
    ),
    "another Python": ({"python_env.yaml": "python: '3.8'\n"}, "wants Python 3.8"),
    "conda": ({"conda.yaml": "dependencies: [python]\n"}, "asks for conda_env"),
    "docker": ({"MLproject": TWO + "docker_env: {image: x}\n"}, "asks for docker_env"),
    "no YAML": ({"MLproject": "a: [\n"}, "cannot be read"),
    "entry points of nothing": ({"MLproject": "entry_points:\n"}, "cannot be read"),
    "a list": ({"MLproject": "- a\n"}, "cannot be read"),
    "an option": ({"python_env.yaml": "dependencies: ['--index-url https://x']\n"}, "is an option"),
    "a way out": ({"python_env.yaml": "dependencies: ['-r ../../r.txt']\n"}, "leads out"),
    "no requirement": ({"python_env.yaml": "dependencies: ['a b c']\n"}, "is no requirement"),
}


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_environments(project: Path, name: str) -> None:
    files, said = ENVIRONMENTS[name]
    for path, text in files.items():
        (project / path).write_text(text)
    if said is None:
        packages = command(project, C=1).packages
        wanted = [each.requirement.name for each in packages]
        assert wanted == {"none": [], "python": ["mlflow", "numpy"]}.get(name, ["numpy"])
        assert all(each.field == "spec.project.uri" for each in packages)
        return
    with pytest.raises(RunFailure, match=said) as failed:
        command(project, C=1)
    assert failed.value.reason == "InvalidProject"
