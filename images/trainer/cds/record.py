"""Makes the class-data archive of the image: ``record.py ARCHIVE``. Runs once, while the image is built.

A small Spark run on a Delta table behind S3A notes which classes a driver and an executor load; the JVM then parses and
verifies them once and for all (application class-data sharing, JEP 310). Driver and executor share the one archive.
A JVM uses it only with the very same jars in the very same order (``$SPARK_HOME/jars/*.jar`` by name) and ignores it
silently otherwise (``-Xshare:auto``).
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from s3_stub import serve

# What the run below does not come to: it has no Kubernetes.
KUBERNETES = (
    "org/apache/spark/scheduler/cluster/k8s/KubernetesExecutorBackend",
    "org/apache/spark/scheduler/cluster/k8s/KubernetesClusterManager",
    "org/apache/spark/scheduler/cluster/k8s/KubernetesClusterSchedulerBackend",
    "org/apache/spark/scheduler/cluster/k8s/ExecutorPodsAllocator",
    "org/apache/spark/scheduler/cluster/k8s/ExecutorPodsLifecycleManager",
    "org/apache/spark/scheduler/cluster/k8s/ExecutorPodsWatchSnapshotSource",
    "org/apache/spark/scheduler/cluster/k8s/ExecutorPodsPollingSnapshotSource",
    "org/apache/spark/scheduler/cluster/k8s/KubernetesExecutorBuilder",
)
RAW = "raw/rows.json"
ROWS = "".join(json.dumps({"x": float(i), "y": i % 2, "s": f"n{i}"}) + "\n" for i in range(5)).encode()
POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "p", "labels": {"a": "b"}, "ownerReferences": [{"uid": "u", "controller": True}]},
    "spec": {
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "volumes": [{"name": "v", "emptyDir": {}}, {"name": "c", "configMap": {"name": "c"}}],
        "containers": [
            {
                "name": "executor",
                "env": [
                    {"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
                    {"name": "B", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                ],
                "resources": {"requests": {"cpu": "1", "memory": "1Gi"}},
                "volumeMounts": [{"name": "v", "mountPath": "/v"}],
                "securityContext": {"capabilities": {"drop": ["ALL"]}},
            }
        ],
    },
    "status": {"phase": "Running", "containerStatuses": [{"name": "executor", "state": {"running": {}}}]},
}


def class_path(home: Path) -> str:
    """The jars by name: what the driver and the executor are started with."""
    return ":".join(str(jar) for jar in sorted((home / "jars").glob("*.jar"), key=lambda jar: jar.name))


def merged(lists: Iterable[str]) -> list[str]:
    """One class list from several: names without the ids of their run, and the hints (``@lambda-…``) after them.

    Classes of other loaders than the built-in ones (``source:``) are left out: they belong to one run.
    """
    names: dict[str, None] = {}
    hints: dict[str, None] = {}
    for text in lists:
        for line in text.splitlines():
            if line.startswith("@"):
                hints[line] = None
            elif line and not line.startswith("#") and " source:" not in line:
                names[line.split()[0]] = None
    return [*names, *hints]


def run(folder: Path, endpoint: str) -> None:
    """Write, append, checkpoint, time travel, aggregate: driver and executor are JVMs of their own."""
    from pyspark.sql import SparkSession

    options = f"-Djdk.net.hosts.file={folder}/hosts -XX:DumpLoadedClassList="
    conf = {
        "spark.driver.extraJavaOptions": f"{options}{folder}/driver.lst",
        "spark.executor.extraJavaOptions": f"{options}{folder}/executor.lst",
        "spark.executor.memory": "768m",
        "spark.ui.enabled": "false",
        "spark.sql.shuffle.partitions": "2",
        "spark.databricks.delta.snapshotPartitions": "1",
        "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
        "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
        "spark.sql.execution.arrow.pyspark.enabled": "true",
        "spark.hadoop.fs.s3a.endpoint": endpoint,
        "spark.hadoop.fs.s3a.path.style.access": "true",
        "spark.hadoop.fs.s3a.aws.credentials.provider": (
            "software.amazon.awssdk.auth.credentials.EnvironmentVariableCredentialsProvider"
        ),
        "spark.hadoop.fs.s3a.fast.upload.buffer": "bytebuffer",
        "spark.delta.logStore.s3a.impl": "io.lakeloop.S3ConditionalLogStore",
        "spark.local.dir": str(folder),
    }
    builder = SparkSession.builder.master("local-cluster[1,1,768]").appName("class-data")
    for key, value in conf.items():
        builder = builder.config(key, value)
    spark = builder.getOrCreate()
    table, raw = "s3a://lake/t", f"s3a://lake/{RAW}"
    loaded = spark.read.json(raw, schema="x double, y int, s string")
    loaded.write.format("delta").save(table)
    for number in range(11):  # past the tenth commit, at which Delta writes its first checkpoint
        loaded.write.format("delta").mode("append").option("txnAppId", "a").option("txnVersion", number).save(table)
    spark.read.format("delta").option("versionAsOf", 3).load(table).createOrReplaceTempView("t")
    query = "SELECT s, avg(x) AS m, count(*) AS n FROM t WHERE y IS NOT NULL GROUP BY s ORDER BY s"
    frame = spark.sql(query).toPandas()
    spark.sql("SELECT *, xxhash64(0, s) AS h FROM t").selectExpr("*", "pmod(h, 100) < 20 AS test").toPandas()
    spark.sql(f"DESCRIBE HISTORY delta.`{table}`").collect()
    if len(frame) != 5 or int(frame["n"].sum()) != 20:
        raise SystemExit(f"the run read something else than it wrote:\n{frame}")
    java = spark._jvm
    pod = java.io.fabric8.kubernetes.client.utils.Serialization.unmarshal(json.dumps(POD))
    java.io.fabric8.kubernetes.client.utils.Serialization.asYaml(pod)
    client = java.io.fabric8.kubernetes.client.KubernetesClientBuilder().build()
    try:
        client.pods().inNamespace("n").withName("p").get()
    except Exception as error:  # there is no API server: what counts is that the client's classes were loaded
        print(f"client: {type(error).__name__}")
    client.close()
    spark.stop()


def main(archive: Path) -> None:
    """Raises SystemExit when the run or the JVM fails: without its archive an image is slow, and no one would know."""
    home = Path(os.environ["SPARK_HOME"])
    server, endpoint = serve({RAW: ROWS})
    with tempfile.TemporaryDirectory(prefix="cds-") as name:
        folder = Path(name)
        os.environ |= {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_REGION": "us-east-1"}
        os.environ |= {"KUBERNETES_MASTER": "http://127.0.0.1:1"}
        os.environ |= {"SPARK_LOCAL_IP": "127.0.0.1", "SPARK_LOCAL_HOSTNAME": "127.0.0.1"}
        # A container's name is known to no one while it is being built.
        (folder / "hosts").write_text(f"127.0.0.1 localhost {socket.gethostname()}\n")
        run(folder, endpoint)
        server.shutdown()
        lists = [(folder / f"{role}.lst").read_text() for role in ("driver", "executor")]
        everything = folder / "all.lst"
        everything.write_text("\n".join([*merged(["\n".join(KUBERNETES), *lists])]) + "\n")
        archive.parent.mkdir(parents=True, exist_ok=True)
        # With G1, whichever collector a JVM will use later: it is the one that can write the archived heap.
        command = ["java", "-Xshare:dump", "-XX:+UseG1GC", "-Xlog:cds=error", "-Xlog:cds+heap=error"]
        command += [
            f"-XX:SharedClassListFile={everything}",
            f"-XX:SharedArchiveFile={archive}",
            "-cp",
            class_path(home),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0 or not archive.is_file():
            raise SystemExit(f"no archive:\n{done.stdout[-4000:]}{done.stderr[-4000:]}")
    archive.chmod(0o644)
    counts = " + ".join(str(len(text.splitlines())) for text in lists)
    print(f"{archive}: {archive.stat().st_size / 1e6:.0f} MB, {counts} classes")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
