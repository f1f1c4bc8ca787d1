"""`kubectl lakeloop run | stop | runs` answered by the operator's own reconciler, on a real API server."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from click.testing import CliRunner, Result
from training_cluster import Cluster

from lakeloop.adapters.kubernetes import KubernetesApi, load_configuration
from lakeloop.api.v1alpha1 import API_VERSION
from lakeloop.api.v1alpha1.spec_hash import training_parts
from lakeloop.cli.commands import cli
from lakeloop.cli.training import records, reproduction
from lakeloop.domain.plan import ObjectRef
from localcluster.apiserver import ApiServer


@pytest.fixture
async def cluster(apiserver: ApiServer, namespace: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Cluster]:
    monkeypatch.setenv("KUBECONFIG", str(apiserver.kubeconfig))
    for variable in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.delenv(variable, raising=False)
    async with KubernetesApi(await load_configuration()) as api:
        made = Cluster(api, namespace)
        await made.secret()
        await made.apply()
        await made.settle()
        yield made


async def command(cluster: Cluster, *words: str) -> Result:
    # By an option: the client looks at KUBECONFIG when it is imported.
    options = ["-n", cluster.namespace, "--kubeconfig", os.environ["KUBECONFIG"]]
    return await asyncio.to_thread(CliRunner().invoke, cli, [*words, *options])


async def test_run_wait_stop_and_runs(cluster: Cluster) -> None:
    await cluster.pod_status(phase="Running")
    await cluster.settle()
    stopped = asyncio.create_task(command(cluster, "stop", "churn", "--wait"))
    while not stopped.done():
        await cluster.settle()
        await asyncio.sleep(0.1)
    done = await stopped
    assert done.stdout == "run 1 of churn: Stopped\n", done.output
    asked = asyncio.create_task(command(cluster, "run", "churn", "--wait"))
    while not asked.done():
        await cluster.settle()
        run = (await cluster.status())["run"]
        if run["number"] == 2 and run["phase"] == "Submitting":
            await cluster.driver_ends()
        await asyncio.sleep(0.1)
    done = await asked
    assert done.exit_code == 0, done.output
    assert "run 2 Succeeded" in done.stdout
    assert "churn/1" in done.stdout
    found = json.loads((await command(cluster, "runs", "churn", "-o", "json")).stdout)["items"]
    assert [(each["number"], each["trigger"], each["phase"]) for each in found] == [
        (2, "Manual", "Succeeded"),
        (1, "SpecChange", "Stopped"),
    ]
    assert found[0]["objective"] == {"metric": "roc_auc", "value": 0.91}


async def test_the_job_of_a_reproduction_is_taken(cluster: Cluster) -> None:
    """The API server's rules and the operator find nothing wrong with it, and it runs the recorded version."""
    await cluster.driver_ends()
    await cluster.settle()
    job = await cluster.job()
    assert job is not None
    tags = cluster.tracking.versions["churn", 1].tags
    record = replace(records.of_status(job, job["status"]["run"]), tags=records.own_tags(tags))
    made = reproduction.manifest(job, training_parts(job["spec"]), record, "team-a/churn")
    await cluster.api.create(made)
    for _ in range(5):
        await cluster.reconciler.reconcile(cluster.namespace, "churn-repro-1")
    found = await cluster.api.get(ObjectRef(API_VERSION, "TrainingJob", cluster.namespace, "churn-repro-1"))
    assert found is not None
    run = found["status"]["run"]
    assert (run["phase"], run["inputs"][0]["version"]) == ("Submitting", 0)
    pods = await cluster.api.list("v1", "Pod", cluster.namespace, {"lakeloop.io/training-job": "churn-repro-1"})
    assert [pod["spec"]["containers"][0]["image"] for pod in pods] == [tags["lakeloop.io/image"]]
