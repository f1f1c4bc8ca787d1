"""The operator's MLflow client against a real MLflow server, as the platform's image has it."""

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from mlflow_process import MlflowProcess
from unit.training.fakes import START

from lakeloop.adapters.tracking import MlflowServers
from lakeloop.adapters.tracking_protocol import TrackingInvalid, TrackingServer, TrackingUnavailable
from lakeloop.domain.training.observed import EndRun, EnsureRun, RegisterVersion
from lakeloop.reconcile.training_effects import end_run, ensure_run, register

TAG = "lakeloop.io/run-uid"
SOURCE = "s3://mlflow/1/models/m-1/artifacts"


@pytest.fixture
async def server(mlflow: MlflowProcess) -> AsyncIterator[TrackingServer]:
    servers = MlflowServers(mlflow.uri, timeout_seconds=30)
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
    for _ in range(2):
        await server.set_run_tag(found.run_id, "lakeloop.io/logs", f"{found.artifact_uri}/logs")
    await server.end_run(found.run_id, "FINISHED", 1_900_000_000_000)
    ended = await server.get_run(found.run_id)
    assert ended is not None
    assert ended.status == "FINISHED"
    assert ended.tags["lakeloop.io/logs"] == f"{found.artifact_uri}/logs"
    assert await server.get_run("0" * 32) is None


async def test_a_deleted_experiment_is_said_so(server: TrackingServer, mlflow: MlflowProcess) -> None:
    before = EnsureRun("team-a/gone", "gone-1", "uid-1", START, {TAG: "uid-1"})
    experiment = (await ensure_run(server, before)).experiment_id
    servers = MlflowServers(mlflow.uri)
    await servers.call(None, "POST", "/experiments/delete", {"experiment_id": experiment})
    after = replace(before, uid="uid-2", tags={TAG: "uid-2"}, new=True)
    for told in ("active", "restore it in MLflow"):
        with pytest.raises(TrackingInvalid, match=told):
            await ensure_run(server, after)
    await servers.call(None, "POST", "/experiments/restore", {"experiment_id": experiment})
    await servers.close()
    assert (await ensure_run(server, after)).experiment_id == experiment


async def test_an_experiment_is_of_the_kind_that_trains_models(server: TrackingServer, mlflow: MlflowProcess) -> None:
    experiment = await server.ensure_experiment("team-a/shown")
    servers = MlflowServers(mlflow.uri)
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


async def test_webhooks(server: TrackingServer) -> None:
    events = ["model_version_alias.created", "model_version_alias.deleted", "model_version.created"]
    made = await server.create_webhook("lakeloop", "http://127.0.0.1:9/webhooks/mlflow", events, "a secret")
    assert sorted(made.events) == sorted(events)
    found = {each.id: each.name for each in await server.list_webhooks()}  # other tests' operators have theirs
    assert found[made.id] == "lakeloop"
    await server.delete_webhook(made.id)
    assert made.id not in {each.id for each in await server.list_webhooks()}


async def test_nobody_there() -> None:
    servers = MlflowServers("http://127.0.0.1:9", timeout_seconds=2)
    with pytest.raises(TrackingUnavailable, match="does not answer"):
        await servers.connect(None).ensure_experiment("x")
    await servers.close()


async def test_what_is_open_in_a_run_is_ended_with_it(server: TrackingServer) -> None:
    experiment = await server.ensure_experiment("team-a/search")
    parent = await server.create_run(experiment, "search-1", 1_800_000_000_000, {TAG: "uid-search"})
    nested = {"mlflow.parentRunId": parent.run_id}
    trials = [await server.create_run(experiment, f"trial-{i}", 1_800_000_000_000, nested) for i in range(2)]
    await server.end_run(trials[0].run_id, "FINISHED", 1_800_000_000_001)
    assert await server.open_children(experiment, parent.run_id) == [trials[1].run_id]
    effect = EndRun(parent.run_id, "FAILED", START, best_effort=True, nested_in=experiment)
    await end_run(server, effect)
    found = [await server.get_run(each.run_id) for each in (parent, *trials)]
    assert [each.status for each in found if each is not None] == ["FAILED", "FINISHED", "KILLED"]
