"""What starts, stops, holds back and removes runs, and what stays of them."""

import json
from typing import Any

import pytest
from unit.training.world import TABLE, World

from lakeloop.api.v1alpha1.spec_hash import code_digest, training_parts

RUN_NOW, STOP, SUSPEND = "lakeloop.io/run-now", "lakeloop.io/stop", "lakeloop.io/suspend"
FROM = "s3a://raw/customers/*.json"
INGEST = {"inputs": [{"name": "customers", "uri": TABLE, "ingest": {"from": FROM, "format": "json"}}]}


async def test_inputs_are_pinned_and_the_mlflow_run_is_made_before_launch() -> None:
    world = World()
    world.apply()
    await world.settle()
    log = world.writes.log
    pod = log.index("create Pod churn-1-1-driver")
    assert log.index("run churn-1") < pod
    assert [entry for entry in log[:pod] if entry.startswith("status")] != []
    run = json.loads(world.object("ConfigMap", "churn-1-run")["data"]["run.json"])
    assert run["inputs"] == [{"name": "customers", "uri": TABLE, "version": 0}]
    assert run["tracking"]["runId"] == world.run["mlflow"]["runId"]


async def test_run_now_is_honoured_once() -> None:
    world = World()
    await world.until_succeeded()
    world.annotate(RUN_NOW, "monday")
    await world.settle()
    assert (world.run["number"], world.run["trigger"], world.run["triggerKey"]) == (2, "Manual", "monday")
    assert world.status["lastHandled"] == {"run-now": "monday"}
    world.ends(world.result())
    await world.settle()
    assert world.run["number"] == 2
    assert [run["number"] for run in world.status["history"]] == [2, 1]
    assert world.tracking.aliases == {("churn", "champion"): 2}


async def test_spec_change_and_action_at_once_are_one_run() -> None:
    world = World()
    world.apply()
    world.annotate(RUN_NOW, "at-once")
    await world.settle()
    assert world.status["lastHandled"] == {"run-now": "at-once"}
    world.runs()
    world.ends(world.result())
    await world.settle()
    assert world.run["number"] == 1


@pytest.mark.parametrize(
    "edit",
    [{"runPolicy": {"historyLimit": 3}}, {"suspend": False}, {"spark": {"driver": {"memory": "2Gi"}}}, {"storage": {}}],
    ids=["limits", "suspend", "resources", "storage"],
)
async def test_edits_that_start_no_run(edit: dict[str, Any]) -> None:
    world = World()
    await world.until_succeeded()
    world.apply(**edit)
    await world.settle()
    assert world.run["number"] == 1
    assert world.status["observedGeneration"] == world.job["metadata"]["generation"]


async def test_a_change_during_a_run_waits_and_is_coalesced() -> None:
    world = World()
    await world.until_running()
    for target in ("a", "b", "c"):
        world.apply(dataset={"target": target})
        await world.settle()
    assert (world.run["number"], world.run["phase"]) == (1, "Running")
    world.ends(world.result())
    await world.settle()
    assert world.run["number"] == 2
    assert json.loads(world.object("ConfigMap", "churn-2-run")["data"]["run.json"])["dataset"]["target"] == "c"
    assert [run["phase"] for run in world.status["history"]] == ["Succeeded"]


async def test_the_run_goes_by_the_spec_that_it_was_launched_with() -> None:
    world = World()
    await world.until_running()
    world.apply(register={"model": "other"}, inputs=[{"name": "customers", "uri": "s3a://lake/other"}])
    world.pod_status(phase="Failed", reason="Evicted")
    await world.settle()
    world.clock.tick(12)
    await world.settle()
    assert world.run["driverPod"] == "churn-1-2-driver"
    world.ends(world.result())
    await world.settle()
    assert set(world.tracking.versions) == {("churn", 1)}


async def test_the_next_attempt_has_the_memory_that_the_last_one_lacked() -> None:
    world = World()
    await world.until_running(spark={"conf": {"spark.sql.ansi.enabled": "true"}})
    more = {"driver": {"memory": "3Gi", "memoryOverhead": "1Gi"}, "conf": {"spark.sql.ansi.enabled": "false"}}
    world.secret("fixed", AWS_ACCESS_KEY_ID="me", AWS_SECRET_ACCESS_KEY="right")
    world.apply(spark=more, storage={"secretRef": {"name": "fixed"}}, dataset={"target": "other"})
    world.ends(None, code=137, reason="OOMKilled")
    await world.settle()
    world.clock.tick(12)
    await world.settle()
    (container,) = world.object("Pod", "churn-1-2-driver")["spec"]["containers"]
    assert container["resources"]["limits"]["memory"] == "4096Mi"
    assert {"name": "fixed", "key": "AWS_ACCESS_KEY_ID"} in [
        each["valueFrom"].get("secretKeyRef") for each in container["env"] if "valueFrom" in each
    ]
    data = world.object("ConfigMap", "churn-1-run")["data"]
    assert json.loads(data["run.json"])["dataset"]["target"] == "churned"
    assert "spark.sql.ansi.enabled=true" in data["spark.properties"]


async def test_a_waiting_run_gives_way_to_a_corrected_spec() -> None:
    world = World()
    world.apply(inputs=[{"name": "customers", "uri": "s3a://lake/typo"}])
    await world.settle()
    assert world.run["phase"] == "Pending"
    world.apply()
    await world.settle()
    assert (world.run["number"], world.run["phase"]) == (2, "Submitting")
    assert [run["phase"] for run in world.status["history"]] == ["Stopped"]


async def test_replace_stops_the_present_run() -> None:
    world = World()
    policy = {"runPolicy": {"concurrency": "Replace"}}
    await world.until_running(**policy)
    world.apply(dataset={"target": "other"}, **policy)
    await world.settle()
    assert world.run["number"] == 2
    assert len(world.live_drivers) == 1, "the old driver is still stopping, and there is no new one"
    assert world.live_drivers[0]["metadata"]["deletionTimestamp"]
    world.kubernetes.settle()
    await world.settle()
    assert [pod["metadata"]["name"] for pod in world.live_drivers] == ["churn-2-1-driver"]
    assert [run.status for run in world.tracking.runs.values()] == ["KILLED", "RUNNING"]


async def test_stop_ends_the_run_once() -> None:
    world = World()
    await world.until_running()
    world.annotate(STOP, "now")
    await world.settle()
    world.kubernetes.settle()
    await world.settle()
    assert world.run["phase"] == "Stopped"
    assert world.drivers == []
    assert world.tracking.runs["run1"].status == "KILLED"
    world.annotate(RUN_NOW, "again")
    await world.settle()
    assert (world.run["number"], world.run["phase"]) == (2, "Submitting")


async def test_stop_while_nothing_runs_stops_no_later_run() -> None:
    world = World()
    await world.until_succeeded()
    world.annotate(STOP, "too-late")
    await world.settle()
    world.annotate(RUN_NOW, "next")
    await world.settle()
    assert (world.run["number"], world.run["phase"]) == (2, "Submitting")


@pytest.mark.parametrize("by", ["spec", "action"])
async def test_suspension_stops_the_driver_and_keeps_the_run(by: str) -> None:
    world = World()
    await world.until_running()
    pinned = world.run["inputs"]
    world.tables.commit(TABLE, world.clock.now())
    world.apply(suspend=True) if by == "spec" else world.annotate(SUSPEND, "on-1")
    await world.settle()
    world.kubernetes.settle()
    await world.settle()
    assert world.condition("Suspended") == ("True", "Suspended")
    assert world.run["phase"] == "Pending"
    assert world.drivers == []
    world.clock.tick(100_000)
    await world.settle()
    assert world.run["phase"] == "Pending", "no deadline ends a suspended run"
    world.apply() if by == "spec" else world.annotate(SUSPEND, "off-2")
    await world.settle()
    assert world.condition("Suspended") == ("False", "Resumed")
    assert (world.run["number"], world.run["driverPod"]) == (1, "churn-1-2-driver")
    assert world.run["inputs"] == pinned
    assert "retries" not in world.run
    assert len(world.tracking.runs) == 1


async def test_suspension_by_action_outlives_its_annotation() -> None:
    world = World()
    world.apply()
    world.annotate(SUSPEND, "on-1")
    await world.settle()
    world.annotate(SUSPEND, None)
    await world.settle()
    assert world.condition("Suspended") == ("True", "Suspended")
    assert "run" not in world.status


async def test_a_result_is_not_lost_to_a_suspension() -> None:
    world = World()
    await world.until_running()
    world.ends(world.result())
    world.apply(suspend=True)
    await world.settle()
    assert world.run["phase"] == "Succeeded"
    assert world.condition("Suspended") == ("True", "Suspended")


async def test_deletion_stops_the_run_and_keeps_the_model() -> None:
    world = World()
    await world.until_succeeded()
    world.annotate(RUN_NOW, "monday")
    await world.settle()
    world.runs()
    await world.settle()
    world.delete()
    await world.settle()
    assert world.exists, "the driver is still stopping"
    world.kubernetes.settle()
    await world.step()
    assert not world.exists
    assert world.kubernetes.pods() == []
    assert [run.status for run in world.tracking.runs.values()] == ["FINISHED", "KILLED"]
    assert set(world.tracking.versions) == {("churn", 1)}


async def test_deletion_does_not_wait_for_mlflow() -> None:
    world = World()
    await world.until_running()
    world.tracking.down = True
    world.delete()
    await world.settle()
    world.kubernetes.settle()
    await world.step()
    assert not world.exists


async def test_deletion_before_anything_was_done() -> None:
    world = World()
    world.apply()
    world.delete()
    assert await world.step() is None
    assert not world.exists


async def test_pods_go_after_their_time_and_the_run_stays_finished() -> None:
    world = World()
    await world.until_succeeded(runPolicy={"ttlSecondsAfterFinished": 60})
    assert await world.step() == 60
    world.clock.tick(60)
    await world.settle()
    assert world.kubernetes.pods() == []
    assert (world.run["number"], world.run["phase"]) == (1, "Succeeded")


async def test_history_is_bounded_and_takes_config_maps_with_it() -> None:
    world = World()
    await world.until_succeeded(runPolicy={"historyLimit": 2})
    for day in ("tuesday", "wednesday", "thursday"):
        world.annotate(RUN_NOW, day)
        await world.settle()
        world.ends(world.result())
        await world.settle()
    assert [run["number"] for run in world.status["history"]] == [4, 3]
    maps = [key[3] for key in world.kubernetes.objects if key[1] == "ConfigMap"]
    assert maps == ["churn-3-run", "churn-4-run"]


async def test_progress_is_shown_and_a_stale_one_is_not() -> None:
    world = World()
    await world.until_running()
    world.runs(stage="Evaluating", percent=80, remainingSeconds=12.5)
    await world.settle()
    assert world.run["progress"] == {"stage": "Evaluating", "percent": 80, "remainingSeconds": 12.5}
    assert world.run["phase"] == "Evaluating"
    world.runs(uid="another", stage="Training", percent=1)
    await world.settle()
    assert "progress" not in world.run


async def test_progress_that_is_none_is_ignored() -> None:
    world = World()
    await world.until_running()
    world.runs(stage="Training", percent=4000)
    await world.settle()
    assert "progress" not in world.run


async def test_two_jobs_register_one_model_without_a_mix_up() -> None:
    world = World()
    await world.until_succeeded()
    other = World("other")
    other.tracking = world.tracking
    other.restart()
    await other.until_succeeded()
    assert world.run["model"]["version"] == 1
    assert other.run["model"]["version"] == 2


async def test_without_register_the_model_is_logged_only() -> None:
    world = World()
    await world.until_succeeded(register=None)
    assert world.run["phase"] == "Succeeded"
    assert world.tracking.versions == {}


async def test_promote_never_moves_no_alias() -> None:
    world = World()
    await world.until_succeeded(register={"model": "churn", "alias": "champion", "promote": "Never"})
    assert set(world.tracking.versions) == {("churn", 1)}
    assert world.tracking.aliases == {}


async def test_summary_has_what_kubectl_prints() -> None:
    world = World()
    await world.until_succeeded()
    assert world.status["summary"] == {"table": "customers@0", "metric": "roc_auc 0.91", "model": "churn/1"}


# -- ingestion


async def test_files_are_listed_in_a_manifest_before_launch() -> None:
    world = World()
    world.stores.objects |= {"s3a://raw/customers/a.json": b"1", "s3a://raw/customers/_b.json": b"2"}
    world.apply(**INGEST)
    await world.settle()
    pinned = world.run["inputs"][0]
    assert (pinned["baseVersion"], pinned["files"], "version" in pinned) == (0, 1, False)
    manifest = json.loads(world.stores.objects[pinned["manifest"]])
    assert pinned["manifest"] == f"{TABLE}/_lakeloop/ingest/{world.job['metadata']['uid']}/{world.run['uid']}.json"
    assert [file["uri"] for file in manifest["files"]] == ["s3a://raw/customers/a.json"]
    assert manifest["runUid"] == world.run["uid"]
    run = json.loads(world.object("ConfigMap", "churn-1-run")["data"]["run.json"])
    assert run["inputs"][0]["ingest"]["manifest"] == pinned["manifest"]
    assert run["inputs"][0]["ingest"]["baseVersion"] == 0
    assert run["inputs"][0]["ingest"]["committedVersion"] is None


async def test_the_version_that_ingestion_made_is_pinned_as_soon_as_it_is_known() -> None:
    world = World()
    world.stores.objects["s3a://raw/customers/a.json"] = b"1"
    await world.until_running(**INGEST)
    world.runs(stage="Reading", inputs=[{"name": "customers", "version": 1}])
    await world.settle()
    assert world.run["inputs"][0]["version"] == 1
    world.runs(stage="Reading", inputs=[{"name": "customers", "version": 7}])
    await world.settle()
    assert world.run["inputs"][0]["version"] == 1, "what is pinned stays"


async def test_a_retry_finds_the_commit_that_nobody_heard_of() -> None:
    world = World()
    world.stores.objects["s3a://raw/customers/a.json"] = b"1"
    await world.until_running(**INGEST)
    world.tables.commit(TABLE, world.clock.now(), world.run["uid"])
    world.pod_status(phase="Failed", reason="Evicted")
    await world.settle()
    world.clock.tick(12)
    await world.settle()
    assert world.run["driverPod"] == "churn-1-2-driver"
    assert world.run["inputs"][0]["version"] == 1
    run = json.loads(world.object("ConfigMap", "churn-1-run")["data"]["run.json"])
    assert run["inputs"][0]["ingest"]["committedVersion"] == 1


async def test_the_next_run_loads_new_files_only() -> None:
    world = World()
    world.stores.objects["s3a://raw/customers/a.json"] = b"1"
    await world.until_running(**INGEST)
    world.tables.commit(TABLE, world.clock.now(), world.run["uid"])
    world.ends(world.result(inputs=[{"name": "customers", "version": 1}]))
    await world.settle()
    world.stores.objects["s3a://raw/customers/b.json"] = b"2"
    world.annotate(RUN_NOW, "tuesday")
    await world.settle()
    manifest = json.loads(world.stores.objects[world.run["inputs"][0]["manifest"]])
    assert [file["uri"] for file in manifest["files"]] == ["s3a://raw/customers/b.json"]
    assert world.run["inputs"][0]["baseVersion"] == 1


async def test_files_of_a_run_that_never_committed_are_new_again() -> None:
    world = World()
    world.stores.objects["s3a://raw/customers/a.json"] = b"1"
    await world.until_running(**INGEST)
    world.annotate(STOP, "now")
    await world.settle()
    world.kubernetes.settle()
    world.annotate(RUN_NOW, "again")
    await world.settle()
    assert world.run["number"] == 2
    assert world.run["inputs"][0]["files"] == 1


async def test_no_new_file_reads_the_table_as_it_is() -> None:
    world = World()
    world.apply(**INGEST)
    await world.settle()
    assert world.run["inputs"][0]["files"] == 0
    assert world.run["inputs"][0]["version"] == 0


async def test_overwrite_loads_everything_every_time() -> None:
    world = World()
    world.stores.objects["s3a://raw/customers/a.json"] = b"1"
    ingest = {"from": FROM, "format": "json", "mode": "Overwrite"}
    await world.until_running(inputs=[{"name": "customers", "uri": TABLE, "ingest": ingest}])
    world.tables.commit(TABLE, world.clock.now(), world.run["uid"])
    world.ends(world.result(inputs=[{"name": "customers", "version": 1}]))
    await world.settle()
    world.annotate(RUN_NOW, "tuesday")
    await world.settle()
    assert world.run["inputs"][0]["files"] == 1


# -- children


async def test_children_go_with_the_job() -> None:
    world = World()
    await world.until_running()
    for key, obj in world.kubernetes.objects.items():
        if key[1] not in ("Secret", "TrainingJob"):
            assert [each["uid"] for each in obj["metadata"]["ownerReferences"]] == [world.job["metadata"]["uid"]]


async def test_labels_of_the_resource_are_not_handed_down() -> None:
    world = World()
    world.apply()
    world.kubernetes.change(
        world.ref, lambda obj: obj["metadata"].update(labels={"app.kubernetes.io/instance": "argo", "team": "a"})
    )
    await world.settle()
    for key, obj in world.kubernetes.objects.items():
        if key[1] in ("Pod", "ConfigMap", "Role"):
            assert obj["metadata"]["labels"]["app.kubernetes.io/instance"] == "churn"
            assert "team" not in obj["metadata"]["labels"]


async def test_every_run_that_ends_is_counted_once() -> None:
    world = World()
    await world.until_succeeded()
    await world.settle()
    world.annotate(RUN_NOW, "1")
    await world.settle()
    world.ends(world.failure("Data", "EmptyTable"), code=1)
    await world.settle()
    world.annotate(RUN_NOW, "2")
    await world.settle()
    world.annotate(STOP, "1")
    await world.settle()
    assert world.telemetry.runs == ["Succeeded", "Failed", "Stopped"]


async def test_runs_that_are_superseded_or_deleted_are_counted() -> None:
    world = World()
    del world.tables.tables[TABLE]
    world.apply()
    await world.settle()
    world.apply(dataset={"target": "other"})
    await world.settle()
    assert world.telemetry.runs == ["Stopped"]
    world.delete()
    await world.settle()
    assert not world.exists
    assert world.telemetry.runs == ["Stopped", "Stopped"]


async def test_a_suspension_that_is_none_changes_nothing_and_is_answered_once() -> None:
    world = World()
    world.apply()
    world.annotate(SUSPEND, "on-1")
    await world.settle()
    assert world.condition("Suspended") == ("True", "Suspended")
    world.annotate(SUSPEND, "false")
    await world.settle()
    assert world.condition("Suspended") == ("True", "Suspended"), "the last one that was in its form still holds"
    assert world.status["lastHandled"] == {"suspend": "on-1", "suspend-refused": "false"}
    said = [event.message for _, event in world.kubernetes.events if event.reason == "InvalidAction"]
    assert said == ["lakeloop.io/suspend: false is neither on-<id> nor off-<id>: write one of these, with any new id"]
    world.annotate(SUSPEND, "off-2")
    await world.settle()
    assert world.run["phase"] == "Submitting"


async def test_an_action_that_is_none_is_answered_once() -> None:
    world = World()
    world.apply()
    world.annotate("lakeloop.io/runnow", "1")
    await world.until_succeeded()
    world.restart()
    await world.settle()
    said = [event.message for _, event in world.kubernetes.events if event.reason == "UnknownAction"]
    assert len(said) == 1
    assert "lakeloop.io/run-now" in said[0]
    assert world.status["lastHandled"] == {"runnow": "1"}


async def test_an_id_of_any_length_starts_one_run() -> None:
    world = World()
    await world.until_succeeded()
    world.annotate(RUN_NOW, "x" * 200_000)
    await world.settle()
    world.ends(world.result())
    await world.settle()
    assert world.run["number"] == 2
    assert len(str(world.status)) < 10_000


DIGEST = "sha256:" + 64 * "a"
LAUNCHED = "lakeloop/trainer:test"


@pytest.mark.parametrize(
    ("image_id", "image", "digest"),
    [
        pytest.param(f"docker.io/lakeloop/trainer@{DIGEST}", f"{LAUNCHED}@{DIGEST}", DIGEST, id="pulled"),
        pytest.param(f"docker-pullable://lakeloop/trainer@{DIGEST}", f"{LAUNCHED}@{DIGEST}", DIGEST, id="by Docker"),
        pytest.param(DIGEST, LAUNCHED, DIGEST, id="loaded into the node"),
        pytest.param(f"docker.io/library/import-2026-11-25@{DIGEST}", LAUNCHED, DIGEST, id="loaded by kind"),
        pytest.param("", LAUNCHED, None, id="not said"),
        pytest.param("sha256:short", LAUNCHED, None, id="no digest"),
    ],
)
async def test_a_version_leads_back_to_code_image_and_seed(image_id: str, image: str, digest: str | None) -> None:
    world = World()
    await world.until_running(dataset={"target": "churned", "split": {"seed": 7}})
    world.ends(world.result())
    statuses = [{**world.object("Pod", "churn-1-1-driver")["status"]["containerStatuses"][0], "imageID": image_id}]
    world.pod_status(phase="Succeeded", containerStatuses=statuses)
    await world.settle()
    tags = world.tracking.versions["churn", 1].tags
    assert tags["lakeloop.io/image"] == image
    assert tags.get("lakeloop.io/image-id") == digest
    assert tags["lakeloop.io/seed"] == "7"
    assert tags["lakeloop.io/trigger"] == "SpecChange"
    assert tags["lakeloop.io/spec-hash"] == world.run["trainingSpecHash"]
    assert tags["lakeloop.io/code-digest"] == code_digest(world.job["spec"])
    (run,) = world.tracking.runs.values()
    assert run.tags["lakeloop.io/code-digest"] == tags["lakeloop.io/code-digest"]
    assert run.tags["lakeloop.io/image"] == LAUNCHED


async def test_the_run_spec_holds_what_the_user_wrote() -> None:
    world = World()
    await world.until_running(dataset={"target": "churned"}, runPolicy={"historyLimit": 3})
    written = json.loads(world.object("ConfigMap", "churn-1-run")["data"]["run.json"])["written"]
    assert written == training_parts(world.job["spec"])
    assert "runPolicy" not in written
