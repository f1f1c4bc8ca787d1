"""Packages beside those of the image: wheels made here, installed by the real pip, without a network."""

from __future__ import annotations

import base64
import hashlib
import importlib
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
from lakeloop_trainer import dependencies, workspace
from lakeloop_trainer.failures import RunFailure


def wheel(folder: Path, name: str, version: str, *requires: str) -> None:
    """A wheel with one module of that name."""
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": f"VERSION = {version!r}\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        + "".join(f"Requires-Dist: {each}\n" for each in requires)
        + ("Provides-Extra: more\n" if any("extra ==" in each for each in requires) else ""),
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    rows = []
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as packed:
        for path, text in files.items():
            packed.writestr(path, text)
            digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
            rows.append(f"{path},sha256={digest},{len(text)}")
        packed.writestr(f"{info}/RECORD", "\n".join([*rows, f"{info}/RECORD,,"]) + "\n")


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of wheels in place of an index, and nothing else to ask."""
    found = tmp_path / "wheels"
    found.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(found))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("LAKELOOP_WORK_DIR", str(tmp_path / "work"))
    monkeypatch.setenv("PYTHONPATH", "")
    workspace._root.cache_clear()
    path, modules = list(sys.path), set(sys.modules)
    yield found
    workspace._root.cache_clear()
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if name.startswith("lltest_"):
            del sys.modules[name]


def provide(*lines: str) -> list[str]:
    return dependencies.provide(dependencies.parse(lines))


def test_what_the_image_has_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("pip was asked")

    monkeypatch.setattr(subprocess, "run", never)
    numpy, skinny = metadata.version("numpy"), metadata.version("mlflow-skinny")
    assert provide(f"NumPy == {numpy}", f"mlflow=={skinny}", "other==1; python_version < '3'") == [
        f"NumPy=={numpy}",
        f"mlflow=={skinny}",
    ]


def test_a_package_is_installed_beside_those_of_the_image(index: Path) -> None:
    wheel(index, "lltest_main", "1.2", "lltest_below>=1", "numpy>=1")
    wheel(index, "lltest_below", "1.5")
    wheel(index, "numpy", "99.0")
    assert provide("lltest_main==1.2") == ["lltest_main==1.2"]
    assert importlib.import_module("lltest_main").VERSION == "1.2"
    assert metadata.packages_distributions()["lltest_below"] == ["lltest_below"]
    assert metadata.version("numpy") != "99.0"
    told = subprocess.run(
        [sys.executable, "-c", "import lltest_below, numpy; print(lltest_below.VERSION, numpy.__version__)"],
        capture_output=True, text=True, check=True, env=dict(os.environ),
    )  # fmt: skip
    assert told.stdout.split() == ["1.5", metadata.version("numpy")]


def test_the_image_is_not_changed(index: Path) -> None:
    with pytest.raises(RunFailure) as failed:
        provide("numpy==1.0")
    assert (failed.value.reason, failed.value.failure_class) == ("DependenciesUnavailable", "Application")
    assert failed.value.field == "spec.dependencies.pip[0]"
    assert f"this image has numpy {metadata.version('numpy')}" in failed.value.message
    wheel(index, "lltest_old", "1.0", "numpy<2")
    with pytest.raises(RunFailure) as failed:
        provide("lltest_old==1.0")
    assert "lltest_old==1.0 is not in this image and cannot be installed" in failed.value.message
    assert f"the image has numpy=={metadata.version('numpy')}" in failed.value.message
    assert "spec.spark.image" in failed.value.message


def test_what_cannot_be_had_is_named_and_no_credentials_are(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel(index, "lltest_there", "1.0")
    with pytest.raises(RunFailure) as failed:
        provide("lltest_there==1.0", "lltest_absent==2.0")
    assert (failed.value.reason, failed.value.field) == ("DependenciesUnavailable", "spec.dependencies.pip[1]")
    assert "No matching distribution found for lltest_absent==2.0" in failed.value.message
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", "http://me:very-secret@127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    with pytest.raises(RunFailure) as failed:
        provide("lltest_absent==2.0")
    assert "very-secret" not in failed.value.message


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("a b", "is no requirement"),
        ("-r other.txt", "is no requirement"),
        ("numpy", "write one exact version"),
        ("numpy>=1", "write one exact version"),
        ("numpy==1.*", "write one exact version"),
        ("a @ https://me:token@example.org/a.whl", "write one exact version"),
    ],
)
def test_requirements_are_read_before_anything_else(line: str, said: str) -> None:
    with pytest.raises(RunFailure, match=said) as failed:
        dependencies.parse(["numpy==1.0", line])
    assert (failed.value.reason, failed.value.field) == ("InvalidConf", "spec.dependencies.pip[1]")
    assert "token@" not in failed.value.message


def test_an_extra_that_is_missing_is_missing(index: Path) -> None:
    wheel(index, "lltest_base", "1.0", "lltest_more==1.0; extra == 'more'")
    provide("lltest_base==1.0")
    with pytest.raises(RunFailure, match="lltest_more"):
        provide("lltest_base[more]==1.0")
