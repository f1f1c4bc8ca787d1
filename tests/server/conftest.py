"""Models, an object store and servers for the tests of the model server."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ |= {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_UV_AUTO_DETECT": "false"}

import boto3
import pytest
from lakeloop_server.digest import digest_of, hash_folder
from moto.server import ThreadedMotoServer
from server.saved_models import SAVERS
from server.server_processes import Process, mlflow_serving, serving

BUCKET = "mlflow"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_REGION": "us-east-1"}


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`saved("classifier")`: the folder of a model, saved once."""
    root = tmp_path_factory.mktemp("models")
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{root}/none.db"

    def get(name: str) -> Path:
        if not (root / name).exists():
            SAVERS[name](root / name)
        return root / name

    return get


class Store:
    """An S3 server in this process."""

    def __init__(self, endpoint: str) -> None:
        self.environment = {
            **CREDENTIALS,
            "AWS_ENDPOINT_URL_S3": endpoint,
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        self.client = boto3.client(
            "s3", endpoint_url=endpoint, region_name="us-east-1", aws_access_key_id="a", aws_secret_access_key="b"
        )
        self.client.create_bucket(Bucket=BUCKET)

    def upload(self, folder: Path, prefix: str) -> tuple[str, str]:
        """Puts a model there: its URI and its digest."""
        for path in folder.rglob("*"):
            if path.is_file():
                self.client.upload_file(str(path), BUCKET, f"{prefix}/{path.relative_to(folder).as_posix()}")
        return f"s3://{BUCKET}/{prefix}", digest_of(hash_folder(folder))


@pytest.fixture(scope="session")
def store() -> Iterator[Store]:
    """moto's S3 over HTTP."""
    server = ThreadedMotoServer(port=0)
    server.start()
    host, port = server.get_host_and_port()
    yield Store(f"http://{host}:{port}")
    server.stop()


@pytest.fixture(scope="session")
def ours(saved: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Process]]:
    """`ours("classifier")`: our server with that model, started once."""
    yield from _started(lambda name, folder: serving(f"file://{saved(name)}", folder), tmp_path_factory, "ours")


@pytest.fixture(scope="session")
def theirs(
    saved: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], Process]]:
    """`theirs("classifier")`: `mlflow models serve` with that model, started once."""
    yield from _started(lambda name, folder: mlflow_serving(saved(name), folder), tmp_path_factory, "theirs")


def _started(
    start: Callable[[str, Path], Any], factory: pytest.TempPathFactory, kind: str
) -> Iterator[Callable[[str], Process]]:
    running: dict[str, tuple[Any, Process]] = {}

    def get(name: str) -> Process:
        if name not in running:
            context = start(name, factory.mktemp(kind))
            running[name] = (context, context.__enter__())
        return running[name][1]

    yield get
    for context, _ in running.values():
        context.__exit__(None, None, None)
