"""The operator's MLflow client against a real MLflow server, as the platform's image has it."""

import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from unit.training.fakes import START

from lakeloop.adapters.tracking import MlflowServers
from lakeloop.adapters.tracking_protocol import TrackingInvalid, TrackingServer, TrackingUnavailable
from lakeloop.domain.training.observed import EnsureRun, RegisterVersion
from lakeloop.reconcile.training_effects import ensure_run, register

ROOT = Path(__file__).parents[3]
TAG = "lakeloop.io/run-uid"
SOURCE = "s3://mlflow/1/models/m-1/artifacts"


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server with its database in a file, from the lock of the MLflow image."""
    folder = tmp_path_factory.mktemp("mlflow")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    uv = os.environ.get("UV") or shutil.which("uv")
    assert uv, "uv is needed to start MLflow"
    command = [uv, "run", "--quiet", "--frozen", "--project", str(ROOT / "images/mlflow"), "mlflow", "server"]
    options = [f"--backend-store-uri=sqlite:///{folder}/mlflow.db", f"--port={port}", "--host=127.0.0.1", "--workers=1"]
    artifacts = ["--default-artifact-root=s3://mlflow/", "--no-serve-artifacts"]
    environment = {
        **os.environ,
        "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY": "v3Ffy5PU_TNxWIVCuDJVnHSlpT4iRw3GBHyOLxLmcbQ=",
        "MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "http,https",
        "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    log = (folder / "log").open("w")
    process = subprocess.Popen(
        [*command, *options, *artifacts], env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
    )
    address = f"http://127.0.0.1:{port}"
    try:
        _wait_for(f"{address}/health", process, folder / "log")
        yield address
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)
        log.close()


def _wait_for(address: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + 300
    while True:
        try:
            with urllib.request.urlopen(address, timeout=2):
                return
        except OSError:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)


@pytest.fixture
async def server(uri: str) -> AsyncIterator[TrackingServer]:
    servers = MlflowServers(uri, timeout_seconds=30)
    yield servers.connect(None)
    await servers.close()


async def test_one_run_per_uid(server: TrackingServer) -> None:
    effect = EnsureRun("team-a/churn", "churn-1", "uid-1", START, {TAG: "uid-1", "lakeloop.io/run": "1"})
    assert await server.get_experiment("team-a/churn") is None
    for _ in range(2):
        await ensure_run(server, effect)
    experiment = await server.ensure_experiment("team-a/churn")
    found = await server.find_run(experiment, TAG, "uid-1")
    assert found is not None
    assert (found.status, found.experiment_id) == ("RUNNING", experiment)
    assert found.tags["lakeloop.io/run"] == "1"
    assert found.artifact_uri.startswith("s3://mlflow/")
    assert await server.find_run(experiment, TAG, "uid-2") is None
    await server.end_run(found.run_id, "FINISHED", 1_900_000_000_000)
    ended = await server.get_run(found.run_id)
    assert ended is not None
    assert ended.status == "FINISHED"
    assert await server.get_run("0" * 32) is None


async def test_an_experiment_is_of_the_kind_that_trains_models(server: TrackingServer, uri: str) -> None:
    experiment = await server.ensure_experiment("team-a/shown")
    servers = MlflowServers(uri)
    found = await servers.call(None, "GET", "/experiments/get", {"experiment_id": experiment})
    await servers.close()
    tags = {each["key"]: each["value"] for each in found["experiment"]["tags"]}
    assert tags["mlflow.experimentKind"] == "custom_model_development"


async def test_one_version_per_run_and_its_alias(server: TrackingServer) -> None:
    experiment = await server.ensure_experiment("team-a/churn")
    run = await server.create_run(experiment, "churn-2", 1_800_000_000_000, {TAG: "uid-2"})
    tags = {TAG: "uid-2", "lakeloop.io/input.customers": "s3a://lake/customers@12"}
    assert await server.get_model_version_by_alias("churn", "champion") is None
    assert await server.get_model_version("churn", 1) is None
    assert await server.search_model_versions("churn") == []
    for _ in range(2):
        await register(server, RegisterVersion("churn", SOURCE, run.run_id, "uid-2", None, "Run 2", tags))
    (found,) = await server.search_model_versions("churn", TAG, "uid-2")
    assert (found.version, found.source, found.run_id) == (1, SOURCE, run.run_id)
    assert found.tags["lakeloop.io/input.customers"] == "s3a://lake/customers@12"
    assert await server.get_download_uri("churn", 1) == SOURCE

    await server.set_alias("churn", "champion", 1)
    aliased = await server.get_model_version_by_alias("churn", "champion")
    assert aliased is not None
    assert (aliased.version, list(aliased.aliases)) == (1, ["champion"])
    read = await server.get_model_version("churn", 1)
    assert read is not None
    assert list(read.aliases) == ["champion"]
    for _ in range(2):
        await server.delete_alias("churn", "champion")
    assert await server.get_model_version_by_alias("churn", "champion") is None
    assert await server.get_model_version_by_alias("nobody", "champion") is None

    await server.set_model_version_tag("churn", 1, "lakeloop.io/rejected", "GateFailed")
    tagged = await server.get_model_version("churn", 1)
    assert tagged is not None
    assert tagged.tags["lakeloop.io/rejected"] == "GateFailed"
    for _ in range(2):
        await server.delete_model_version_tag("churn", 1, "lakeloop.io/rejected")


async def test_versions_are_listed_newest_first_over_several_pages(server: TrackingServer) -> None:
    await server.ensure_registered_model("many")
    experiment = await server.ensure_experiment("team-a/many")
    run = await server.create_run(experiment, "many-1", 1_800_000_000_000, {})
    for _ in range(103):
        await server.create_model_version("many", SOURCE, run.run_id, None, "", {})
    found = await server.search_model_versions("many", limit=500)
    assert [each.version for each in found] == list(range(103, 0, -1))
    assert len(await server.search_model_versions("many", limit=2)) == 2


async def test_names_that_mlflow_refuses(server: TrackingServer) -> None:
    with pytest.raises(TrackingInvalid):
        await server.ensure_registered_model("a/b:c")


async def test_a_deleted_experiment_is_said_so(server: TrackingServer, uri: str) -> None:
    experiment = await server.ensure_experiment("team-a/gone")
    servers = MlflowServers(uri)
    await servers.call(None, "POST", "/experiments/delete", {"experiment_id": experiment})
    await servers.close()
    with pytest.raises(TrackingInvalid, match="is deleted"):
        await server.ensure_experiment("team-a/gone")


async def test_webhooks(server: TrackingServer) -> None:
    events = ["model_version_alias.created", "model_version_alias.deleted", "model_version.created"]
    made = await server.create_webhook("lakeloop", "http://127.0.0.1:9/webhooks/mlflow", events, "a secret")
    assert sorted(made.events) == sorted(events)
    assert [each.name for each in await server.list_webhooks()] == ["lakeloop"]
    await server.delete_webhook(made.id)
    assert await server.list_webhooks() == []


async def test_nobody_there() -> None:
    servers = MlflowServers("http://127.0.0.1:9", timeout_seconds=2)
    with pytest.raises(TrackingUnavailable, match="does not answer"):
        await servers.connect(None).ensure_experiment("x")
    await servers.close()
