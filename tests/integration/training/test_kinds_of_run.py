"""Each kind of run, with an operator that dies after its Nth write, for every N: always the same end.

Writes are those to the API server (real), and to MLflow and the object store (in memory).
"""

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Any

import pytest
from training_cluster import Cluster
from unit.training.world import TABLE

from lakeloop.adapters.kubernetes import KubernetesApi, load_configuration
from lakeloop.api.v1alpha1 import API_VERSION
from lakeloop.domain.plan import ObjectRef
from localcluster.apiserver import ApiServer

SIDE_BY_SIDE = 6
FROM = "s3a://raw/customers/*.json"
INGEST = {"inputs": [{"name": "customers", "uri": TABLE, "ingest": {"from": FROM, "format": "json"}}]}
LATE = {"startDeadlineSeconds": 100_000, "activeDeadlineSeconds": 100_000}
"""The API server stamps pods with its own time, which lies up to an hour back once the clock stands at a tick."""
HOURLY = {"triggers": {"schedule": {"cron": "0 * * * *"}}, "runPolicy": LATE}
FOLLOWING = {"triggers": {"delta": {"input": "customers", "debounceSeconds": 10}}}
GATE = {"evaluation": {"champion": {"alias": "champion"}}}


async def started(cluster: Cluster, annotations: Mapping[str, str] | None = None, **parts: Any) -> None:
    """A run whose driver is at work."""
    await cluster.apply(annotations, **parts)
    await cluster.settle()
    await cluster.pod_status(phase="Running")
    await cluster.settle()


async def evicted(cluster: Cluster) -> None:
    """The first driver is evicted, the second does well."""
    await started(cluster)
    await cluster.pod_status(phase="Failed", reason="Evicted")
    await cluster.settle()
    cluster.clock.tick(12)
    await cluster.settle()
    await cluster.driver_ends()
    await cluster.settle()


async def ingested(cluster: Cluster) -> None:
    """Files are pinned, loaded by a driver that dies after its commit, and not loaded again by the next."""
    cluster.stores.objects["s3a://raw/customers/a.json"] = b"{}"
    await started(cluster, **INGEST)
    run = (await cluster.status())["run"]
    cluster.tables.commit(TABLE, cluster.clock.now(), app_id=run["uid"])
    await cluster.pod_status(phase="Failed", reason="Evicted")
    await cluster.settle()
    cluster.clock.tick(12)
    await cluster.settle()
    await cluster.driver_ends(inputs=[{"name": "customers", "version": 1}])
    await cluster.settle()


async def scripted(cluster: Cluster) -> None:
    """The script is edited between two attempts: the second has that of the first."""
    meta = {"name": "code", "namespace": cluster.namespace}
    config_map = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta}
    await cluster.api.apply({**config_map, "data": {"train.py": "first"}})
    await started(cluster, estimator=None, script={"configMapRef": {"name": "code"}, "path": "train.py"})
    await cluster.api.apply({**config_map, "data": {"train.py": "second"}})
    await cluster.pod_status(phase="Failed", reason="Evicted")
    await cluster.settle()
    cluster.clock.tick(15)
    await cluster.settle()
    await cluster.driver_ends()
    await cluster.settle()


async def gated(cluster: Cluster) -> None:
    """The first model gets the alias, the second is worse and does not."""
    await started(cluster, **GATE)
    await cluster.driver_ends()
    await cluster.settle()
    await started(cluster, {"lakeloop.io/run-now": "again"}, **GATE)
    await cluster.driver_ends(champion={"version": 1, "value": 0.99})
    await cluster.settle()


async def failed(cluster: Cluster) -> None:
    """The data is wrong."""
    await started(cluster)
    failure = {"class": "Data", "reason": "ColumnNotFound", "message": "no column age", "field": "spec.dataset.target"}
    await cluster.driver_ends(outcome="Failed", failure=failure, model=None, metrics={}, objective=None)
    await cluster.settle()


async def stopped(cluster: Cluster) -> None:
    """The user stops it in the middle."""
    await started(cluster)
    await cluster.apply({"lakeloop.io/stop": "enough"})
    await cluster.settle()


async def replaced(cluster: Cluster) -> None:
    """A new spec takes the place of a run at work."""
    policy = {"runPolicy": {"concurrency": "Replace"}}
    await started(cluster, **policy)
    await started(cluster, dataset={"target": "other"}, **policy)
    await cluster.driver_ends()
    await cluster.settle()


async def at_the_next_tick(cluster: Cluster) -> None:
    """Sets the clock, and has the operator look."""
    cluster.clock.moment = datetime.fromisoformat((await cluster.status())["nextScheduleTime"])
    await cluster.settle()


async def ticked(cluster: Cluster) -> None:
    """Two ticks, the second while the run of the first is at work."""
    await started(cluster, **HOURLY)
    await cluster.driver_ends()
    await cluster.settle()
    await at_the_next_tick(cluster)
    await at_the_next_tick(cluster)
    await cluster.driver_ends()
    await cluster.settle()


async def replaced_at_a_tick(cluster: Cluster) -> None:
    """A tick takes the place of a run at work."""
    await started(cluster, **{**HOURLY, "runPolicy": {**LATE, "concurrency": "Replace"}})
    await at_the_next_tick(cluster)
    await cluster.driver_ends()
    await cluster.settle()


async def committed(cluster: Cluster) -> None:
    """One commit while a run is at work and one after it: each has its run."""
    await started(cluster, **FOLLOWING)
    cluster.tables.commit(TABLE, cluster.clock.now())
    cluster.clock.tick(11)
    await cluster.driver_ends()
    await cluster.settle()
    await cluster.driver_ends()
    await cluster.settle()
    cluster.tables.commit(TABLE, cluster.clock.now())
    for seconds in (5, 11):
        cluster.clock.tick(seconds)
        await cluster.settle()
    await cluster.driver_ends()
    await cluster.settle()


async def deleted(cluster: Cluster) -> None:
    """The job is deleted while its driver is at work."""
    await started(cluster)
    await cluster.api.delete(ObjectRef(API_VERSION, "TrainingJob", cluster.namespace, "churn"))
    await cluster.settle()


KINDS: Mapping[str, Callable[[Cluster], Awaitable[None]]] = {
    each.__name__: each
    for each in (
        evicted,
        ingested,
        scripted,
        gated,
        failed,
        stopped,
        replaced,
        ticked,
        replaced_at_a_tick,
        committed,
        deleted,
    )
}


async def end(cluster: Cluster) -> dict[str, Any]:
    """All that a kind of run comes to, without what differs from one time to another."""
    job = await cluster.job()
    status = job.get("status", {}) if job is not None else {}
    runs = [
        (run["number"], run["trigger"], run["phase"], run["attempt"], run.get("failure", {}).get("reason"),
         run.get("model", {}).get("version"), run.get("codeDigest"),
         [each.get("version") for each in run.get("inputs", [])])
        for run in status.get("history", [])
    ]  # fmt: skip
    return {
        "runs": runs,
        "conditions": sorted((each["type"], each["status"], each["reason"]) for each in status.get("conditions", [])),
        "handled": status.get("lastHandled"),
        "learned": status.get("triggers", {}).get("delta"),
        "pods": sorted((pod["metadata"]["name"], pod["status"]["phase"]) for pod in await cluster.pods()),
        "mlflow": [run.status for run in cluster.tracking.runs.values()],
        "versions": sorted(cluster.tracking.versions),
        "aliases": dict(cluster.tracking.aliases),
        "manifests": sum("/_lakeloop/ingest/" in uri for uri in cluster.stores.objects),
    }


@pytest.mark.parametrize("kind", KINDS)
async def test_a_kill_after_any_write_changes_nothing(
    apiserver: ApiServer, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(apiserver.kubeconfig))
    for variable in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.delenv(variable, raising=False)
    side_by_side = asyncio.Semaphore(SIDE_BY_SIDE)

    async with KubernetesApi(await load_configuration()) as api:

        async def outcome(crash_after: int | None) -> tuple[dict[str, Any], int]:
            async with side_by_side:
                namespace = f"kinds-{uuid.uuid4().hex[:8]}"
                meta = {"name": namespace}
                await api.request("POST", "/api/v1/namespaces", body={"metadata": meta})
                cluster = Cluster(api, namespace)
                await cluster.secret()
                cluster.writes.crash_after = crash_after
                await KINDS[kind](cluster)
                assert cluster.writes.crash_after is None, f"no crash after write {crash_after}"
                return await end(cluster), cluster.writes.made

        undisturbed, writes = await outcome(None)
        assert undisturbed["mlflow"], "the kind of run is one"
        disturbed = await asyncio.gather(*(outcome(number) for number in range(1, writes + 1)))
    found = {number: state for number, (state, _) in enumerate(disturbed, 1) if state != undisturbed}
    assert found == {}, f"undisturbed: {undisturbed}"
    print(f"{kind}: {writes} writes")
