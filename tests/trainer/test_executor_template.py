"""What Spark makes of the executors' pod template: its own builder, without a cluster."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.spark

TEMPLATE = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"labels": {"lakeloop.io/role": "executor"}},
    "spec": {
        "restartPolicy": "Never",
        "volumes": [{"name": "logs", "emptyDir": {}}],
        "initContainers": [
            {
                "name": "logs",
                "image": "trainer:1",
                "restartPolicy": "Always",
                "command": ["/opt/venv/bin/lakeloop-logs"],
                "env": [
                    {
                        "name": "LAKELOOP_EXECUTOR_ID",
                        "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['spark-exec-id']"}},
                    },
                    {"name": "LAKELOOP_LOG_NAME", "value": "executor-1-$(LAKELOOP_EXECUTOR_ID)"},
                ],
                "volumeMounts": [{"name": "logs", "mountPath": "/logs"}],
            }
        ],
        "containers": [{"name": "executor", "volumeMounts": [{"name": "logs", "mountPath": "/logs"}]}],
    },
}


def test_a_native_sidecar_comes_through(spark: Any, tmp_path: Path) -> None:
    """It stays as it is, and its label is there from the pod's creation on."""
    template = tmp_path / "executor.yaml"
    template.write_text(json.dumps(TEMPLATE))
    jvm = spark.sparkContext._jvm
    conf = jvm.org.apache.spark.SparkConf(False)
    for key, value in {
        "spark.app.name": "churn-7",
        "spark.app.id": "spark-1",
        "spark.master": "k8s://https://127.0.0.1:1",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.port": "7078",
        "spark.kubernetes.container.image": "trainer:1",
        "spark.kubernetes.executor.podTemplateFile": str(template),
        "spark.kubernetes.executor.podTemplateContainerName": "executor",
        "spark.kubernetes.executor.podNamePrefix": "churn-7-1",
        "spark.kubernetes.executor.disableConfigMap": "true",
    }.items():
        conf.set(key, value)
    k8s = jvm.org.apache.spark.deploy.k8s
    none = jvm.scala.Option.empty()
    executor = k8s.KubernetesConf.createExecutorConf(conf, "3", "spark-1", none, 0)
    client = jvm.io.fabric8.kubernetes.client.KubernetesClientBuilder().build()
    profiles = getattr(getattr(jvm.org.apache.spark.resource, "ResourceProfile$"), "MODULE$")
    profile = profiles.getOrCreateDefaultProfile(conf)
    security = jvm.org.apache.spark.SparkEnv.get().securityManager()
    builder = jvm.org.apache.spark.scheduler.cluster.k8s.KubernetesExecutorBuilder()
    made = builder.buildFromFeatures(executor, security, client, profile)
    pod = json.loads(jvm.io.fabric8.kubernetes.client.utils.Serialization.asJson(made.pod().pod()))
    client.close()

    assert pod["spec"]["initContainers"] == TEMPLATE["spec"]["initContainers"]  # type: ignore[index]
    assert pod["metadata"]["labels"]["spark-exec-id"] == "3"
    assert pod["metadata"]["labels"]["lakeloop.io/role"] == "executor"
    assert {"name": "logs", "emptyDir": {}} in pod["spec"]["volumes"]
