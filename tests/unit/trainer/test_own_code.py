"""The user's own program: how it is found, run, and told about when it fails."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from lakeloop_trainer import own_code
from lakeloop_trainer.failures import RunFailure
from lakeloop_trainer.methods import script
from lakeloop_trainer.storage import FileStore

FAILURES = {
    "raises": ("import os\nrow = 'secret-value'\n\nraise ValueError(f\"cannot take '{row}'\")\n",
               "spec.script: main.py, line 4: ValueError: cannot take …"),
    "raises below": ("import below\nbelow.work()\n", "spec.script: lib/below.py, line 3: KeyError: …"),
    "in a library": ("import json\n\njson.loads('{')\n", "spec.script: main.py, line 3: JSONDecodeError: "),
    "syntax": ("x = 1\nif x\n", "spec.script: main.py, line 2: SyntaxError: "),
    "exit code": ("import sys\nsys.exit(3)\n", "spec.script: main.py, line 2: ended by sys.exit(3)"),
    "exit message": ("import sys\nsys.exit('no data')\n", "spec.script: main.py, line 2: ended by SystemExit: no data"),
    "interrupt": ("raise KeyboardInterrupt\n", "spec.script: main.py, line 1: KeyboardInterrupt"),
    "import": ("import not_there_at_all\n", "spec.script: main.py, line 1: ModuleNotFoundError: No module named 'not_there_at_all'"),
    "a secret": ("import os\nraise ValueError(os.environ['AWS_SECRET_ACCESS_KEY'])\n",
                 "spec.script: main.py, line 2: ValueError: ***"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAILURES)
def test_a_failing_script(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "very-secret")
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib/below.py").write_text("def work():\n    rows = {}\n    return rows['secret-value']\n")
    (tmp_path / "main.py").write_text("import sys\nsys.path.append('lib')\n" if name == "raises below" else "")
    text, said = FAILURES[name]
    if name == "raises below":
        text = text.replace("import below", "import sys; sys.path.append('lib'); import below")
    (tmp_path / "main.py").write_text(text)
    before = (list(sys.path), list(sys.argv), Path.cwd())
    try:
        with pytest.raises(RunFailure) as failed:
            script.run(tmp_path / "main.py", (), tmp_path)
    finally:
        sys.modules.pop("below", None)
        sys.path[:] = [part for part in sys.path if part != "lib"]
    assert (failed.value.failure_class, failed.value.reason) == ("Application", "ScriptFailed")
    assert failed.value.message.startswith(said), failed.value.message
    assert "secret-value" not in failed.value.message
    assert (list(sys.path), list(sys.argv), Path.cwd()) == before


PLATFORM = {
    "a full disk": ("raise OSError(28, 'No space left on device')\n", "DiskFull", "spec.spark"),
    "a full store": ("raise ValueError('(XMinioStorageFull) when calling PutObject')\n", "StorageFull", "spec.storage"),
    "MLflow": ("raise ConnectionError(\"HTTPConnectionPool(host='mlflow.there', port=5000): Max retries exceeded\")\n",
               "TrackingUnavailable", "spec.tracking"),
    "the store": ("raise OSError('Could not connect to the endpoint URL: \"http://minio.there:9000/lake\"')\n",
                  "StorageUnavailable", "spec.storage"),
    "the store, by Spark": ("raise OSError('s3a://lake/t: ConnectException: Connection refused')\n",
                            "StorageUnavailable", "spec.storage"),
    "a server of its own": ("raise ConnectionError(\"HTTPConnectionPool(host='else.where', port=5000): Max retries\"\n"
                            "                      \" exceeded\")\n", "ScriptFailed", "spec.script"),
    "a server with a longer name": ("raise ConnectionError(\"host='my-mlflow.there': Max retries exceeded\")\n",
                                    "ScriptFailed", "spec.script"),
    "MLflow's answer": ("raise ValueError('http://mlflow.there:5000 says RESOURCE_DOES_NOT_EXIST')\n",
                        "ScriptFailed", "spec.script"),
}  # fmt: skip


@pytest.mark.parametrize("name", PLATFORM)
def test_what_the_platform_is_to_blame_for(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be better at the next try: the code's own retries, of which there are none by default, are not for it."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow.there:5000")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://minio.there:9000")
    text, reason, field = PLATFORM[name]
    (tmp_path / "main.py").write_text(text)
    with pytest.raises(RunFailure, match=r"spec\.script: main\.py, line 1: ") as failed:
        script.run(tmp_path / "main.py", (), tmp_path)
    assert (failed.value.reason, failed.value.field) == (reason, field)


@pytest.mark.parametrize("text", ["", "import sys\nsys.exit()\n", "import sys\nsys.exit(0)\n"])
def test_a_script_that_ends_well(text: str, tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(text)
    script.run(tmp_path / "main.py", ("a", "b"), tmp_path)


def test_a_script_sees_its_arguments_its_folder_and_itself(tmp_path: Path) -> None:
    (tmp_path / "pkg").mkdir()
    (tmp_path / "pkg/beside.py").write_text("FOUND = 1\n")
    (tmp_path / "pkg/main.py").write_text(
        "import os, sys, beside\n"
        "assert __name__ == '__main__' and sys.modules['__main__'].beside is beside\n"
        "assert sys.argv == [__file__, '--a', 'b c'], sys.argv\n"
        "assert os.getcwd() == sys.path[0] == os.path.dirname(__file__)\n"
    )
    try:
        script.run(tmp_path / "pkg/main.py", ("--a", "b c"), tmp_path)
    finally:
        sys.modules.pop("beside", None)


def test_the_digest_is_of_the_files_alone(tmp_path: Path) -> None:
    """A ConfigMap as the kubelet mounts it: links into a folder that has another name each time."""
    for version in ("..2026_1", "..2026_2"):
        (tmp_path / version / "keys").mkdir(parents=True)
        (tmp_path / version / "keys/a.py").write_text("1")
    found = []
    for version in ("..2026_1", "..2026_2"):
        mounted, into = tmp_path / f"mounted{version}", tmp_path / f"into{version}"
        mounted.mkdir()
        into.mkdir()
        (mounted / "..data").symlink_to(tmp_path / version / "keys")
        (mounted / "a.py").symlink_to(mounted / "..data/a.py")
        own_code.from_config_map(mounted, into)
        found.append(sorted(path.name for path in into.iterdir()))
    assert found == [["a.py"], ["a.py"]]


def test_a_path_that_is_not_there_names_those_that_are(tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code/train.py").touch()
    (tmp_path / "outside.py").touch()
    for path in ("trian.py", "../outside.py"):
        with pytest.raises(RunFailure, match=r"spec\.script\.path is .*, and there is train\.py") as failed:
            own_code.file_in(tmp_path / "code", path, "spec.script.path", "ScriptNotFound")
        assert failed.value.reason == "ScriptNotFound"


def test_code_of_the_object_store(tmp_path: Path) -> None:
    store, into = FileStore(), tmp_path / "into"
    into.mkdir()
    with pytest.raises(RunFailure) as failed:
        own_code.from_object(store, str(tmp_path / "a.zip"), into, "spec.script.uri", "ScriptNotFound")
    assert (failed.value.reason, failed.value.field) == ("ScriptNotFound", "spec.script.uri")
    (tmp_path / "a.zip").write_bytes(b"no zip")
    with pytest.raises(RunFailure, match=r"spec\.script\.uri: a\.zip cannot be unpacked") as failed:
        own_code.from_object(store, str(tmp_path / "a.zip"), into, "spec.script.uri", "ScriptNotFound")
    assert failed.value.reason == "CodeRefused"
    (tmp_path / "one.py").write_text("1")
    own_code.from_object(store, str(tmp_path / "one.py"), into, "spec.script.uri", "ScriptNotFound")
    assert [path.name for path in into.iterdir()] == ["one.py"]
    folder = tmp_path / "project"
    (folder / "deep").mkdir(parents=True)
    (folder / "MLproject").touch()
    (folder / "deep/a.py").touch()
    own_code.from_folder(store, str(folder), into, "spec.project.uri", "ProjectNotFound")
    assert (into / "deep/a.py").is_file()
    with pytest.raises(RunFailure, match="no file below"):
        own_code.from_folder(store, str(tmp_path / "nothing"), into, "spec.project.uri", "ProjectNotFound")
