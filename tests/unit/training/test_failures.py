"""Failures: which class and reason each gets, what is tried again, and that no pod is left alive."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from unit.training.world import TABLE, World

from builders import NAMESPACE
from lakeloop.adapters.kubernetes_protocol import KubernetesError
from lakeloop.domain.plan import ObjectRef
from lakeloop.domain.training.watch import POLL_SECONDS

MISSING_SECRET = {"storage": {"secretRef": {"name": "nobody"}}}


def no_table(world: World) -> None:
    del world.tables.tables[TABLE]


def no_bucket(world: World) -> None:
    world.stores.buckets.remove("lake")


def wrong_key(world: World) -> None:
    world.stores.secret_key = "another"


def store_down(world: World) -> None:
    world.stores.down = True


def mlflow_down(world: World) -> None:
    world.tracking.down = True


def mlflow_password(world: World) -> None:
    world.tracking.password = "set"


def broken_secret(world: World) -> None:
    world.secret("lakeloop-storage", AWS_ACCESS_KEY_ID="me\n", AWS_SECRET_ACCESS_KEY="right")


def half_a_secret(world: World) -> None:
    world.secret("lakeloop-storage", AWS_ACCESS_KEY_ID="me")


def nothing(world: World) -> None:
    pass


def one(**parts: Any) -> dict[str, Any]:
    return {"inputs": [{"name": "customers", **parts}]}


FROM = "s3a://raw/customers/*.json"
# name: what is wrong, the spec, class, reason, field
WAITING: dict[str, tuple[Callable[[World], None], dict[str, Any], str, str, str]] = {
    "missing table": (no_table, {}, "Data", "TableNotFound", "spec.inputs[0].uri"),
    "missing table by name": (nothing, one(table="sales.customers"), "Data", "TableNotFound", "spec.inputs[0].table"),
    "missing version": (nothing, one(uri=TABLE, version=9), "Data", "VersionNotFound", "spec.inputs[0].version"),
    "too early a timestamp": (
        nothing,
        one(uri=TABLE, timestamp="2020-01-01T00:00:00Z"),
        "Data",
        "VersionNotFound",
        "spec.inputs[0].timestamp",
    ),
    "missing bucket": (no_bucket, {}, "Submission", "BucketNotFound", "spec.inputs[0].uri"),
    "wrong credentials": (wrong_key, {}, "Submission", "CredentialsRefused", "spec.storage.secretRef"),
    "missing Secret": (nothing, MISSING_SECRET, "Submission", "SecretNotFound", "spec.storage.secretRef"),
    "Secret with a line break": (broken_secret, {}, "Submission", "SecretInvalid", "spec.storage.secretRef"),
    "half a Secret": (half_a_secret, {}, "Submission", "SecretIncomplete", "spec.storage.secretRef"),
    "store down": (store_down, {}, "Infrastructure", "StorageUnavailable", "spec.inputs[0].uri"),
    "MLflow down": (mlflow_down, {}, "Infrastructure", "TrackingUnavailable", "spec.tracking"),
    "MLflow wants a password": (mlflow_password, {}, "Submission", "CredentialsRefused", "spec.tracking.secretRef"),
    "nothing to ingest": (
        no_table,
        one(uri=TABLE, ingest={"from": FROM, "format": "json"}),
        "Data",
        "SourceNotFound",
        "spec.inputs[0].ingest.from",
    ),
}


@pytest.mark.parametrize("name", WAITING)
async def test_waits_then_fails(name: str) -> None:
    breaks, spec, failure, reason, field = WAITING[name]
    world = World()
    breaks(world)
    world.apply(**spec)
    again = await world.settle()
    assert again is not None
    assert 1 <= again <= 30
    assert world.condition("Stalled") == ("True", reason)
    assert field in world.message("Stalled")
    assert world.run["phase"] == "Pending"
    assert [event.reason for _, event in world.kubernetes.events].count(reason) == 1
    assert world.drivers == []

    world.clock.tick(600)
    await world.settle()
    assert world.run["phase"] == "Failed"
    assert world.run["failure"] | {"message": ""} == {"class": failure, "reason": reason, "message": "", "field": field}
    assert field in world.run["failure"]["message"]
    assert world.drivers == []


# what the driver says: class, reason, retried
SAID: dict[str, tuple[str, str, bool]] = {
    "data": ("Data", "EmptyTable", False),
    "application": ("Application", "ImportError", False),
    "gate": ("Gate", "BelowThreshold", False),
    "infrastructure": ("Infrastructure", "StorageUnavailable", True),
    "submission": ("Submission", "CredentialsRefused", True),
    "submission that cannot heal": ("Submission", "InvalidConf", False),
}


@pytest.mark.parametrize("name", SAID)
async def test_driver_says_why(name: str) -> None:
    failure, reason, retried = SAID[name]
    world = World()
    await world.until_running()
    world.ends(world.failure(failure, reason, "spec.somewhere"), code=1)
    await world.settle()
    assert world.run["failure"]["class"] == failure
    assert world.run["failure"]["reason"] == reason
    assert "spec.somewhere" in world.run["failure"]["message"]
    assert world.run["phase"] == ("Pending" if retried else "Failed")
    assert world.run["attempt"] == (2 if retried else 1)
    assert world.live_drivers == []
    status = world.tracking.runs["run1"].status
    assert status == ("RUNNING" if retried else "FAILED")


def evicted(world: World) -> None:
    world.pod_status(phase="Failed", reason="Evicted", message="The node was low on resource: memory.")


async def test_an_eviction_for_the_pods_own_limit_says_what_to_raise() -> None:
    world = World()
    await world.until_running()
    told = "Pod ephemeral local storage usage exceeds the total limit of containers 100Mi. "
    world.pod_status(phase="Failed", reason="Evicted", message=told)
    await world.settle()
    failure = world.run["failure"]
    assert (failure["reason"], failure["field"]) == ("DriverEvicted", "spec.spark.driver.template")
    assert failure["message"].endswith("of containers 100Mi. Raise that limit, or write less")


def preempted(world: World) -> None:
    disrupted = {"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"}
    world.pod_status(phase="Failed", conditions=[disrupted])


def out_of_memory(world: World) -> None:
    world.ends(None, code=137, reason="OOMKilled")


def killed(world: World) -> None:
    world.ends(None, code=137, reason="Error")


def node_lost(world: World) -> None:
    world.pod_status(phase="Failed", reason="NodeLost", message="Node n1 is gone")


def node_taken_away(world: World) -> None:
    message = "PodGC: node no longer exists"
    disrupted = {"type": "DisruptionTarget", "status": "True", "reason": "DeletionByPodGC", "message": message}
    world.pod_status(phase="Failed", conditions=[disrupted])


def deleted_by_hand(world: World) -> None:
    ref = world.pod_ref()
    world.kubernetes.remove((ref.api_version, ref.kind, ref.namespace, ref.name))
    world.kubernetes.settle()


def no_container_statuses(world: World) -> None:
    world.pod_status(phase="Failed")


def somebody_elses_result(world: World) -> None:
    world.ends(world.result(uid="another"))


def last_attempts_result(world: World) -> None:
    world.ends(world.result(attempt=0))


def not_json(world: World) -> None:
    world.pod_status(
        phase="Failed",
        containerStatuses=[{"name": "driver", "state": {"terminated": {"exitCode": 1, "message": "Killed"}}}],
    )


DEATHS: dict[str, tuple[Callable[[World], None], str]] = {
    "evicted": (evicted, "DriverEvicted"),
    "preempted": (preempted, "DriverEvicted"),
    "out of memory": (out_of_memory, "DriverOOMKilled"),
    "killed": (killed, "DriverDied"),
    "node lost": (node_lost, "DriverLost"),
    "node taken away": (node_taken_away, "DriverLost"),
    "deleted by hand": (deleted_by_hand, "DriverLost"),
    "terminal without container statuses": (no_container_statuses, "DriverDied"),
    "the result of another run": (somebody_elses_result, "DriverDied"),
    "the result of another attempt": (last_attempts_result, "DriverDied"),
    "a message that is no result": (not_json, "DriverDied"),
}


@pytest.mark.parametrize("name", DEATHS)
async def test_death_is_retried_with_the_same_inputs(name: str) -> None:
    dies, reason = DEATHS[name]
    world = World()
    await world.until_running()
    pinned = world.run["inputs"]
    world.tables.commit(TABLE, world.clock.now())
    dies(world)
    await world.settle()
    assert world.run["phase"] == "Pending"
    assert world.run["failure"]["class"] == "Infrastructure"
    assert world.run["failure"]["reason"] == reason
    assert "driverPod" not in world.run
    assert "progress" not in world.run
    assert (await world.step() or 0) > 0, "the wait before the next attempt"
    world.clock.tick(12)
    await world.settle()
    assert world.run["driverPod"] == "churn-1-2-driver"
    assert world.run["inputs"] == pinned
    assert len(world.tracking.runs) == 1
    world.ends(world.result())
    await world.settle()
    assert world.run["phase"] == "Succeeded"
    assert "failure" not in world.run


def node_goes_silent(world: World) -> None:
    """Its pods are deleted by the taint manager, and no kubelet is there to say that they ended."""
    ref = world.pod_ref()
    world.kubernetes.remove((ref.api_version, ref.kind, ref.namespace, ref.name))


async def test_a_driver_on_a_node_that_does_not_answer_is_not_waited_for_for_ever() -> None:
    world = World()
    await world.until_running()
    silent, pinned = world.pod_ref(), world.run["inputs"]
    node_goes_silent(world)
    await world.settle()
    world.clock.tick(60)
    await world.settle()
    assert (world.run["phase"], world.run["attempt"]) == ("Running", 1), "its kubelet has a minute"
    world.clock.tick(1)
    await world.settle()
    assert (world.run["phase"], world.run["failure"]["reason"]) == ("Pending", "DriverLost")
    world.clock.tick(12)
    await world.settle()
    assert world.run["driverPod"] == "churn-1-2-driver"
    assert world.run["inputs"] == pinned
    # it was at work all the time, and its node is back
    stale = {"exitCode": 0, "reason": "Completed", "message": json.dumps(world.result(attempt=1))}
    ended = [{"name": "driver", "state": {"terminated": stale}}]
    world.kubernetes.change(silent, lambda pod: pod.update(status={"phase": "Succeeded", "containerStatuses": ended}))
    await world.settle()
    assert world.run["phase"] == "Submitting"
    world.ends(world.result())
    await world.settle()
    assert world.run["phase"] == "Succeeded"
    assert len(world.tracking.versions) == 1


async def test_a_silent_node_does_not_hold_the_deletion_of_a_job() -> None:
    world = World()
    await world.until_running()
    node_goes_silent(world)
    world.delete()
    await world.settle()
    assert world.exists
    world.clock.tick(61)
    await world.settle()
    assert not world.exists


async def test_infrastructure_retries_back_off_and_end() -> None:
    world = World()
    await world.until_running()
    waits = []
    while world.run["phase"] != "Failed":
        evicted(world)
        waits.append(await world.settle())
        if world.run["phase"] == "Pending":
            world.clock.tick(waits[-1] or 0)
            await world.settle()
    assert all(0.8 * want <= got <= 1.2 * want for want, got in zip([10, 20, 40, 80, 160], waits[:-1], strict=True))
    assert world.run["attempt"] == 6
    assert world.run["retries"]["infrastructure"] == 5
    assert len(world.drivers) == 6
    assert world.live_drivers == []


# what the API server says of the driver's pod: reason, whether the run waits
REFUSALS: dict[str, tuple[int, str, dict[str, Any], str, bool]] = {
    "quota": (403, "pods is forbidden: exceeded quota: small", {}, "QuotaExceeded", True),
    "policy": (403, "violates PodSecurity", {}, "SubmissionRefused", True),
    "policy on a template": (
        403,
        "violates PodSecurity",
        {"spark": {"driver": {"template": {"spec": {"volumes": [{"name": "x", "nfs": {}}]}}}}},
        "TemplateRefused",
        False,
    ),
    "invalid": (422, "spec.containers[0].resources: Invalid value", {}, "SubmissionRefused", False),
}


@pytest.mark.parametrize("name", REFUSALS)
async def test_api_server_refuses_the_driver(name: str) -> None:
    status, message, spec, reason, waits = REFUSALS[name]
    world = World()
    world.kubernetes.refuse = lambda manifest, dry_run: (
        KubernetesError(status, "Refused", message) if manifest["kind"] == "Pod" else None
    )
    world.apply(**spec)
    await world.settle()
    assert world.condition("Stalled") == ("True", reason)
    assert message in world.message("Stalled")
    assert world.run["phase"] == ("Pending" if waits else "Failed")
    if waits:
        world.kubernetes.refuse = lambda manifest, dry_run: None
        await world.settle()
        assert world.run["phase"] == "Submitting"


async def test_executor_template_is_checked_before_launch() -> None:
    world = World()
    world.kubernetes.refuse = lambda manifest, dry_run: (
        KubernetesError(422, "Invalid", "tolerations[0].operator: Unsupported value") if dry_run else None
    )
    world.apply(spark={"executor": {"template": {"spec": {"tolerations": [{"operator": "Sometimes"}]}}}})
    await world.settle()
    assert world.run["failure"]["reason"] == "TemplateRefused"
    assert world.run["failure"]["field"] == "spec.spark.executor.template"
    assert world.drivers == []


# what the operator itself sees in the spec: class, reason, field
WRONG: dict[str, tuple[dict[str, Any], str, str, str]] = {
    "operator's setting": (
        {"spark": {"conf": {"spark.kubernetes.namespace": "kube-system"}}},
        "Submission",
        "InvalidConf",
        "spec.spark.conf[spark.kubernetes.namespace]",
    ),
    "secret": (
        {"spark": {"conf": {"spark.hadoop.my.api.token": "x"}}},
        "Submission",
        "InvalidConf",
        "spec.spark.conf[spark.hadoop.my.api.token]",
    ),
    "secret inside a setting": (
        {"spark": {"conf": {"spark.driver.extraJavaOptions": "-Xss4m -Dmy.password=hunter2"}}},
        "Submission",
        "InvalidConf",
        "spec.spark.conf[spark.driver.extraJavaOptions]",
    ),
    "password in an address": (
        {"spark": {"conf": {"spark.sql.catalog.x.url": "jdbc:postgresql://me:hunter2@db/x"}}},
        "Submission",
        "InvalidConf",
        "spec.spark.conf[spark.sql.catalog.x.url]",
    ),
    "a feature twice": (
        {"dataset": {"target": "t", "features": ["a", "b", "a"]}},
        "Submission",
        "InvalidSpec",
        "spec.dataset.features[2]",
    ),
    "host path": (
        {"spark": {"driver": {"template": {"spec": {"volumes": [{"name": "x", "hostPath": {"path": "/"}}]}}}}},
        "Submission",
        "TemplateRefused",
        "spec.spark.driver.template.spec.volumes[0].hostPath",
    ),
    "two loads into one table": (
        {
            "inputs": [
                {"name": "a", "uri": TABLE, "ingest": {"from": FROM, "format": "json"}},
                {"name": "b", "uri": f"{TABLE}/", "ingest": {"from": FROM, "format": "json"}},
            ],
            "dataset": {"query": "SELECT * FROM a", "target": "churned"},
        },
        "Submission",
        "InvalidSpec",
        "spec.inputs[1].ingest",
    ),
    "memory that would have no effect": (
        {"spark": {"conf": {"spark.driver.memoryOverhead": "1g"}}},
        "Submission",
        "InvalidConf",
        "spec.spark.conf[spark.driver.memoryOverhead]",
    ),
    "no number": (
        {"estimator": {"steps": [{"class": "a.B", "params": {"C": {"float": "one"}}}]}},
        "Application",
        "InvalidParameter",
        "spec.estimator.steps[0].params.C",
    ),
}


@pytest.mark.parametrize("name", WRONG)
async def test_wrong_spec_fails_at_once(name: str) -> None:
    spec, failure, reason, field = WRONG[name]
    world = World()
    world.apply(**spec)
    await world.settle()
    assert world.run["phase"] == "Failed"
    assert (world.run["failure"]["class"], world.run["failure"]["reason"]) == (failure, reason)
    assert world.run["failure"]["field"] == field
    assert world.drivers == []


STUCK: dict[str, tuple[dict[str, Any], str, str | None]] = {
    "unschedulable": (
        {"conditions": [{"type": "PodScheduled", "status": "False", "message": "0/1 nodes: Insufficient memory"}]},
        "DriverUnschedulable",
        "spec.spark.driver",
    ),
    "image": (
        {"containerStatuses": [{"name": "driver", "image": "x", "state": {"waiting": {"reason": "ErrImagePull"}}}]},
        "ImagePullFailed",
        "spec.spark.image",
    ),
    "configuration": (
        {"containerStatuses": [{"name": "driver", "state": {"waiting": {"reason": "CreateContainerConfigError"}}}]},
        "DriverConfigError",
        None,
    ),
}


@pytest.mark.parametrize("name", STUCK)
async def test_driver_that_does_not_start(name: str) -> None:
    status, reason, field = STUCK[name]
    world = World()
    world.apply()
    await world.settle()
    world.pod_status(phase="Pending", **status)
    await world.settle()
    assert world.run["phase"] == "Submitting"
    assert world.condition("Stalled") == ("True", reason)
    world.clock.tick(600)
    await world.settle()
    assert world.run["phase"] == "Failed"
    assert (world.run["failure"]["class"], world.run["failure"]["reason"]) == ("Submission", reason)
    assert world.run["failure"].get("field") == field
    assert world.live_drivers == []


async def test_deadline_while_mlflow_is_down() -> None:
    world = World()
    await world.until_running()
    world.ends(world.result())
    world.tracking.down = True
    await world.settle()
    assert world.condition("Stalled") == ("True", "TrackingUnavailable")
    world.clock.tick(3600)
    await world.settle()
    failure = world.run["failure"]
    assert (failure["class"], failure["reason"]) == ("Infrastructure", "DeadlineExceeded")
    assert "waited at last: spec.tracking: MLflow does not answer" in failure["message"]


@pytest.mark.parametrize("name", ["unschedulable", "missing table"])
async def test_start_deadline_is_kept_to_the_second(name: str) -> None:
    """The operator looks ever more seldom, but not past the deadline."""
    world = World()
    if name == "missing table":
        no_table(world)
    world.apply(runPolicy={"startDeadlineSeconds": 47})
    began = world.clock.now()
    again = await world.settle()
    if name == "unschedulable":
        world.pod_status(phase="Pending", **STUCK[name][0])
        again = await world.settle()
    while world.run["phase"] != "Failed":
        world.clock.tick(again or 0)
        again = await world.settle()
    assert 47 <= (world.clock.now() - began).total_seconds() <= 49


async def test_deadline() -> None:
    world = World()
    await world.until_running(runPolicy={"activeDeadlineSeconds": 100})
    world.clock.tick(100)
    await world.settle()
    assert world.run["failure"]["reason"] == "DeadlineExceeded"
    assert all(pod["metadata"].get("deletionTimestamp") for pod in world.live_drivers)
    assert world.tracking.runs["run1"].status == "FAILED"


async def test_registry_down_after_training_waits_with_the_result() -> None:
    world = World()
    await world.until_running()
    world.ends(world.result())
    world.tracking.down = True
    await world.settle()
    assert world.condition("Stalled") == ("True", "TrackingUnavailable")
    assert world.run["phase"] == "Evaluating"
    deleted_by_hand(world)
    world.tracking.down = False
    world.records(world.result())
    await world.settle()
    assert world.run["phase"] == "Succeeded"
    assert world.tracking.aliases == {("churn", "champion"): 1}


async def test_name_that_the_registry_refuses() -> None:
    world = World()
    world.tracking.refused_names.add("churn")
    await world.until_running()
    world.ends(world.result())
    await world.settle()
    assert world.run["failure"]["reason"] == "TrackingRefused"
    assert world.run["failure"]["field"] == "spec.register"


async def test_result_of_a_driver_whose_pod_is_gone_is_read_from_mlflow() -> None:
    world = World()
    await world.until_running()
    world.records(world.result())
    deleted_by_hand(world)
    await world.settle()
    assert world.run["phase"] == "Succeeded"


async def test_message_of_a_secret_names_no_value() -> None:
    world = World()
    wrong_key(world)
    world.apply()
    await world.settle()
    text = str(world.status) + str(world.kubernetes.events)
    assert "right" not in text.replace("copyright", "")


LEFT = {
    "labels": {
        "app.kubernetes.io/managed-by": "lakeloop",
        "lakeloop.io/training-job": "churn",
        "lakeloop.io/role": "driver",
        "lakeloop.io/run-uid": "old",
    },
    "ownerReferences": [
        {"apiVersion": "lakeloop.io/v1alpha1", "kind": "TrainingJob", "name": "churn", "uid": "old", "controller": True}
    ],
}


def put(world: World, kind: str, name: str, version: str = "v1", **meta: Any) -> ObjectRef:
    world.kubernetes.put(
        {"apiVersion": version, "kind": kind, "metadata": {"name": name, "namespace": NAMESPACE, **meta}}
    )
    return ObjectRef(version, kind, NAMESPACE, name)


async def test_what_an_earlier_object_left_is_removed_first() -> None:
    world = World()
    pod = put(world, "Pod", "churn-1-1-driver", **LEFT)
    world.kubernetes.change(pod, lambda obj: obj.update(status={"phase": "Running"}))
    put(world, "ConfigMap", "churn-1-run", **LEFT)
    world.apply()
    await world.settle()
    assert world.run["phase"] == "Pending"
    world.kubernetes.settle()
    assert await world.settle() == POLL_SECONDS, "the ConfigMap is looked for again"
    await world.settle()
    assert world.run["phase"] == "Submitting"


@pytest.mark.parametrize("left", ["ServiceAccount", "Role", "RoleBinding"])
async def test_what_an_earlier_object_left_is_waited_for(left: str) -> None:
    """Kubernetes collects it in its own time. Two owners are one too many: the run would have failed for good."""
    world = World()
    version = "v1" if left == "ServiceAccount" else "rbac.authorization.k8s.io/v1"
    ref = put(world, left, "churn-driver", version, **LEFT)
    world.apply()
    again = await world.settle()
    assert world.condition("Stalled") == ("True", "NameTaken")
    assert "of an earlier TrainingJob of this name" in world.message("Stalled")
    assert world.run["phase"] == "Pending"
    assert again is not None
    assert 0 < again <= 5
    world.kubernetes.remove((ref.api_version, ref.kind, NAMESPACE, ref.name))
    await world.settle()
    assert world.run["phase"] == "Submitting"


@pytest.mark.parametrize(
    ("kind", "name", "version"),
    [
        ("ServiceAccount", "churn-driver", "v1"),
        ("Role", "churn-driver", "rbac.authorization.k8s.io/v1"),
        ("ConfigMap", "churn-1-run", "v1"),
    ],
)
async def test_what_is_not_ours_is_left_as_it_is(kind: str, name: str, version: str) -> None:
    world = World()
    ref = put(world, kind, name, version, annotations={"eks.amazonaws.com/role-arn": "mine"})
    before = await world.kubernetes.get(ref)
    world.apply()
    await world.settle()
    assert world.condition("Stalled") == ("True", "NameTaken")
    assert world.message("Stalled") == (
        f"metadata.name: {kind} {name} is there already, and not ours: delete it, or give this TrainingJob another name"
    )
    assert await world.kubernetes.get(ref) == before
    assert world.drivers == []


async def test_a_pod_that_only_has_our_label_is_left_alone() -> None:
    world = World()
    put(world, "Pod", "notebook", labels={"lakeloop.io/training-job": "churn", "lakeloop.io/role": "driver"})
    await world.until_succeeded()
    world.clock.tick(100_000)
    await world.settle()
    assert [pod["metadata"]["name"] for pod in world.kubernetes.pods()] == ["notebook"]


async def test_our_own_that_lost_its_owner_is_taken_over() -> None:
    world = World()
    await world.until_succeeded()
    ref = ObjectRef("v1", "ServiceAccount", NAMESPACE, "churn-driver")
    world.kubernetes.change(ref, lambda obj: obj["metadata"].pop("ownerReferences"))
    world.annotate("lakeloop.io/run-now", "1")
    await world.settle()
    assert world.run["phase"] == "Submitting"
    found = await world.kubernetes.get(ref)
    assert found is not None
    assert found["metadata"]["ownerReferences"]


async def test_a_driver_is_not_gone_because_a_list_is_old() -> None:
    world = World()
    await world.until_running()
    world.kubernetes.unlisted.add("churn-1-1-driver")
    await world.settle()
    assert (world.run["phase"], world.run["attempt"]) == ("Running", 1)
    world.ends(world.result())
    await world.settle()
    assert world.run["phase"] == "Succeeded"
    assert len(world.drivers) == 1


@pytest.mark.parametrize("pod_is_there", [True, False], ids=["pod", "record alone"])
async def test_a_run_that_was_over_in_time_is_not_failed_by_an_operator_that_was_away(pod_is_there: bool) -> None:
    world = World()
    await world.until_running()
    world.records(world.result())
    world.ends(world.result())
    if not pod_is_there:
        world.kubernetes.remove(("v1", "Pod", "team-a", "churn-1-1-driver"))
    world.restart()
    world.clock.tick(3 * 86400)
    await world.settle()
    assert (world.run["phase"], world.run["attempt"]) == ("Succeeded", 1)
    assert world.tracking.aliases == {("churn", "champion"): 1}


async def test_trials_that_a_dead_driver_left_open_are_ended_with_their_run() -> None:
    world = World()
    await world.until_running(
        search={"parameters": [{"name": "0.C", "values": [1, 2]}]}, runPolicy={"retries": {"infrastructure": 0}}
    )
    parent, experiment = world.run["mlflow"]["runId"], world.run["mlflow"]["experimentId"]
    nested = {"mlflow.parentRunId": parent}
    trial = await world.tracking.create_run(experiment, "churn-1-trial-0", 0, nested)
    done = await world.tracking.create_run(experiment, "churn-1-trial-1", 0, nested)
    await world.tracking.end_run(done.run_id, "FINISHED", 1)
    world.ends(None, code=137, reason="OOMKilled")
    await world.settle()
    found = {run_id: run.status for run_id, run in world.tracking.runs.items()}
    assert found == {parent: "FAILED", trial.run_id: "KILLED", done.run_id: "FINISHED"}
