"""A real Spark with Delta, and a real MLflow server, for the trainer's tests.

Run with ``uv run --project images/trainer pytest tests/trainer``. The jars of the image (pom.xml) and the MLflow
server's environment (images/mlflow) are kept below ``~/.cache/lakeloop``, so only the first run fetches them.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import logging
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
TRAINER = ROOT / "images/trainer"
CACHE = Path(os.environ.get("LAKELOOP_CACHE", Path.home() / ".cache/lakeloop"))


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "spark: needs Java, and a minute")


@pytest.fixture(scope="session", autouse=True)
def spark_home() -> Path:
    """The image's ``SPARK_HOME`` as far as the JVM needs it: pyspark's jars and those of make_jars.sh, checked.

    With the image's class-data archive beside them, which takes a minute to make and halves every JVM's start.
    """
    import pyspark

    sums, shipped, record = TRAINER / "jars.sha256", Path(pyspark.__file__).parent, TRAINER / "cds/record.py"
    sources = [TRAINER / "pom.xml", TRAINER / "make_jars.sh", *sorted((TRAINER / "java").rglob("*.java")), sums, record]
    parts = (*(each.read_bytes() for each in sources), pyspark.__version__.encode())
    home = CACHE / "spark" / hashlib.sha256(b"\0".join(parts)).hexdigest()[:12]
    archive = home / "spark.jsa"
    if not home.is_dir():
        partial = home.with_name(f"{home.name}.partial-{os.getpid()}")
        jars = partial / "jars"
        # Copies, so that another checkout finds them too: an archive knows its jars by path, size and time.
        shutil.copytree(shipped / "jars", jars)
        shutil.copytree(shipped / "bin", partial / "bin")
        fetched = partial / "fetched"
        subprocess.run(["sh", str(TRAINER / "make_jars.sh"), str(fetched)], check=True)
        subprocess.run(["sha256sum", "--check", "--strict", "--quiet", str(sums)], cwd=fetched, check=True)
        for jar in fetched.glob("*.jar"):
            jar.rename(jars / jar.name)
        fetched.rmdir()
        partial.rename(home)
    os.environ["SPARK_HOME"] = str(home)
    if not archive.is_file():
        made = archive.with_suffix(f".{os.getpid()}")
        subprocess.run([sys.executable, record, made], check=True)
        made.rename(archive)
    os.environ["LAKELOOP_CDS_ARCHIVE"] = str(archive)
    return home


FRUGAL = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"
"""Options for a JVM that somebody else starts: as `lakeloop_trainer.session` starts the driver's."""


@pytest.fixture(scope="session")
def properties() -> dict[str, str]:
    """What the operator writes for a job with no executors."""
    return {"spark.master": "local[2]", "spark.driver.memory": "1g"}


@pytest.fixture(scope="session")
def spark(properties: dict[str, str]) -> Iterator[Any]:
    """One session, made as the driver makes it, for all tests of this process."""
    from lakeloop_trainer.session import Jvm, Session
    from lakeloop_trainer.spark_conf import driver_conf

    jvm = Jvm(driver_conf(properties, {}, "tests", None))
    session = Session(jvm).get()
    yield session
    session.stop()
    jvm.stop()


@dataclass(frozen=True)
class MlflowServer:
    uri: str

    def call(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """A call of MLflow's REST API: POST with a body, else GET."""
        request = urllib.request.Request(
            f"{self.uri}/api/2.0/mlflow/{path}",
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as response:
            return dict(json.loads(response.read() or b"{}"))

    def new_run(self, experiment: str) -> str:
        """Makes an experiment and a run, as the operator does; returns the run's id."""
        experiment_id = self.call("experiments/create", {"name": experiment})["experiment_id"]
        body = {"experiment_id": experiment_id, "start_time": int(time.time() * 1000)}
        return str(self.call("runs/create", body)["run"]["info"]["run_id"])


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    """MLflow's server from its own lock, on SQLite, with artifacts in a folder that clients write to directly."""
    folder = tmp_path_factory.mktemp("mlflow")
    lock = ROOT / "images/mlflow/uv.lock"
    environment = CACHE / "mlflow" / hashlib.sha256(lock.read_bytes()).hexdigest()[:12]
    uv = os.environ.get("UV") or shutil.which("uv")
    if uv is None:
        raise RuntimeError("uv is needed to install the MLflow server of images/mlflow")
    sync = [uv, "sync", "--quiet", "--project", str(lock.parent), "--frozen", "--no-dev"]
    subprocess.run(sync, check=True, env={**os.environ, "UV_PROJECT_ENVIRONMENT": str(environment)})
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = (folder / "server.log").open("w")
    server = subprocess.Popen(
        [
            str(environment / "bin/mlflow"), "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
            "--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--no-serve-artifacts",
            "--default-artifact-root", str(folder / "artifacts"),
        ],
        stdout=log, stderr=log, start_new_session=True,
        env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"},
    )  # fmt: skip
    found = MlflowServer(f"http://127.0.0.1:{port}")
    deadline = time.monotonic() + 300
    while True:
        try:
            with urllib.request.urlopen(f"{found.uri}/health", timeout=5):
                break
        except OSError:
            if server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((folder / "server.log").read_text()[-3000:]) from None
            time.sleep(0.2)
    yield found
    os.killpg(server.pid, 15)
    server.wait(20)
    log.close()


@dataclass
class Attempt:
    """What a run of the program left behind."""

    exit_code: int
    result: dict[str, Any] | None
    message: str
    log: str


@pytest.fixture
def drive(tmp_path: Path, properties: dict[str, str]) -> Callable[..., Attempt]:
    """Runs ``lakeloop-driver`` as a pod would, with the given run spec."""

    def run(spec: dict[str, Any], attempt: int = 1, **environ: str) -> Attempt:
        folder = _run_folder(tmp_path, attempt, spec, properties)
        termination = tmp_path / f"termination-{attempt}"
        termination.unlink(missing_ok=True)
        environment = {
            "PATH": os.environ["PATH"], "HOME": str(tmp_path), "LAKELOOP_RUN_FILE": str(folder / "run.json"),
            "LAKELOOP_TERMINATION_LOG": str(termination), "LAKELOOP_ATTEMPT": str(attempt),
            "MLFLOW_TRACKING_URI": spec["tracking"]["uri"], "MLFLOW_RUN_ID": spec["tracking"]["runId"],
            "SPARK_HOME": os.environ["SPARK_HOME"], "LAKELOOP_CDS_ARCHIVE": os.environ["LAKELOOP_CDS_ARCHIVE"],
            **environ,
        }  # fmt: skip
        done = subprocess.run(
            [str(Path(sys.executable).parent / "lakeloop-driver")],
            env=environment, capture_output=True, text=True, timeout=900, check=False,
        )  # fmt: skip
        message = termination.read_text() if termination.exists() else ""
        return Attempt(done.returncode, json.loads(message) if message else None, message, done.stdout + done.stderr)

    return run


class HereJvm:
    """In place of an attempt's own JVM: the one of this process."""

    def __init__(self, conf: Mapping[str, str]) -> None:
        self.conf = dict(conf)

    def death(self) -> None:
        return None

    def stop(self) -> None:
        pass


@pytest.fixture
def drive_here(
    tmp_path: Path, properties: dict[str, str], spark: Any, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Attempt]:
    """Runs the same program in this process, with its Spark: for what does not depend on the process.

    A driver of its own takes thirteen seconds of a processor, nearly all of them for its start.
    """
    from lakeloop_trainer import attempt as of_attempt
    from lakeloop_trainer import main

    class HereSession:
        executors_missing = False

        def __init__(self, jvm: HereJvm) -> None:
            self.get = lambda: spark

        def stop(self) -> None:
            pass

    class NoTermination:
        def __init__(self) -> None:
            self.begun = threading.Event()

        def closes(self, close: Callable[[], None]) -> None:
            pass

    monkeypatch.setattr(of_attempt, "Jvm", HereJvm)
    monkeypatch.setattr(of_attempt, "Session", HereSession)
    for name, value in main.MLFLOW_DEFAULTS.items():
        monkeypatch.setenv(name, value)

    def run(spec: dict[str, Any], attempt: int = 1, **environ: str) -> Attempt:
        folder = _run_folder(tmp_path, attempt, spec, properties)
        termination = tmp_path / f"termination-{attempt}"
        termination.unlink(missing_ok=True)
        told = {
            "LAKELOOP_ATTEMPT": str(attempt), "MLFLOW_TRACKING_URI": spec["tracking"]["uri"],
            "MLFLOW_RUN_ID": spec["tracking"]["runId"], **environ,
        }  # fmt: skip
        for name, value in told.items():
            monkeypatch.setenv(name, value)
        said, root = io.StringIO(), logging.getLogger()
        handler, level = logging.StreamHandler(said), root.level
        root.addHandler(handler)
        root.setLevel(logging.INFO)
        try:
            with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
                code = main.run(folder / "run.json", termination, os.environ, NoTermination())  # type: ignore[arg-type]
        finally:
            root.removeHandler(handler)
            root.setLevel(level)
        message = termination.read_text() if termination.exists() else ""
        return Attempt(code, json.loads(message) if message else None, message, said.getvalue())

    return run


def _run_folder(tmp_path: Path, attempt: int, spec: dict[str, Any], properties: Mapping[str, str]) -> Path:
    """What the operator mounts."""
    folder = tmp_path / f"etc-{attempt}"
    folder.mkdir(exist_ok=True)
    (folder / "run.json").write_text(json.dumps(spec))
    (folder / "spark.properties").write_text("".join(f"{k}={v}\n" for k, v in properties.items()))
    return folder


@pytest.fixture
def run_document(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """A run spec as the operator writes it; keyword arguments replace its top-level keys."""

    def build(**changes: Any) -> dict[str, Any]:
        return {
            "apiVersion": "lakeloop.io/run/v1",
            "job": {"namespace": "team-a", "name": "quickstart", "uid": "job-uid"},
            "run": {"number": 1, "uid": "run-uid", "attempt": 1, "trigger": "SpecChange"},
            "tracking": {"uri": "http://127.0.0.1:9", "experiment": "quickstart", "runId": "none"},
            "inputs": [{"name": "points", "uri": str(tmp_path / "points"), "version": 0}],
            "dataset": {"query": None, "features": ["feature"], "target": "target", "expectations": [],
                        "split": {"by": "Random", "testFraction": 0, "seed": 0, "keys": []}},
            "estimator": {"library": "sklearn", "steps": [
                {"class": "sklearn.linear_model.LogisticRegression", "params": {"C": 1}}]},
            "objective": None,
            "explanation": {"method": "Permutation", "sampleRows": 1000},
            "register": {"model": "quickstart"},
            "storage": {"endpoint": None, "region": "us-east-1", "pathStyle": True},
            **changes,
        }  # fmt: skip

    return build


@pytest.fixture
def write_manifest(tmp_path: Path) -> Callable[[str, list[Path]], str]:
    """Writes a manifest of the files as they now are, as the operator does; gives its URI."""

    def write(run_uid: str, files: list[Path]) -> str:
        entries = [
            {
                "uri": str(file),
                "etag": hashlib.md5(file.read_bytes(), usedforsecurity=False).hexdigest(),
                "size": file.stat().st_size,
            }
            for file in files
        ]
        path = tmp_path / f"manifest-{run_uid}.json"
        path.write_text(json.dumps({"runUid": run_uid, "from": str(tmp_path), "files": entries}))
        return str(path)

    return write


@dataclass(frozen=True)
class Minio:
    """A MinIO of this machine with an empty bucket ``lake``."""

    endpoint: str

    @property
    def environment(self) -> dict[str, str]:
        """What a driver's container has of it."""
        return {
            "AWS_ACCESS_KEY_ID": "tests-user", "AWS_SECRET_ACCESS_KEY": "tests-password", "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1", "AWS_ENDPOINT_URL_S3": self.endpoint,
        }  # fmt: skip

    @property
    def spark_properties(self) -> dict[str, str]:
        """What the operator writes of it."""
        settings = {"endpoint": self.endpoint, "endpoint.region": "us-east-1", "path.style.access": "true"}
        return {f"spark.hadoop.fs.s3a.{name}": value for name, value in settings.items()}

    def client(self) -> Any:
        import boto3

        return boto3.client(
            "s3", endpoint_url=self.endpoint, region_name="us-east-1",
            aws_access_key_id="tests-user", aws_secret_access_key="tests-password",
        )  # fmt: skip


@pytest.fixture(scope="session")
def minio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Minio]:
    """MinIO as the platform has it, built once from images/minio."""
    folder = tmp_path_factory.mktemp("minio")
    uv = os.environ.get("UV") or shutil.which("uv")
    if uv is None:
        raise RuntimeError("uv is needed to build images/minio")
    program = (
        "from localcluster.images.hostmade import minio; import pathlib, sys; print(minio(pathlib.Path(sys.argv[1])))"
    )
    made = subprocess.run(
        [uv, "run", "--quiet", "--frozen", "--project", str(ROOT / "localcluster"), "python", "-c", program,
         str(ROOT / "images/minio")],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = (folder / "server.log").open("w")
    server = subprocess.Popen(
        [f"{made.stdout.split()[-1]}/minio", "server", "--quiet", "--address", f"127.0.0.1:{port}", folder / "store"],
        stdout=log, stderr=log, start_new_session=True,
        env={**os.environ, "MINIO_ROOT_USER": "tests-user", "MINIO_ROOT_PASSWORD": "tests-password",
             "MINIO_BROWSER": "off", "HOME": str(folder)},
    )  # fmt: skip
    found = Minio(f"http://127.0.0.1:{port}")
    deadline = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(f"{found.endpoint}/minio/health/ready", timeout=5):
                break
        except OSError:
            if server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((folder / "server.log").read_text()[-3000:]) from None
            time.sleep(0.1)
    found.client().create_bucket(Bucket="lake")
    yield found
    os.killpg(server.pid, 15)
    server.wait(20)
    log.close()
