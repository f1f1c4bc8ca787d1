"""Spark's settings for a run: what the operator wrote, what the driver must set itself, and defaults for small tables.

Pure: `session` starts a JVM with what comes out of here.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping

DELTA = {
    "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
    "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
}

# Unset, each of these costs a small table seconds. A user's spark.conf and the operator's settings win.
DEFAULTS = {
    **DELTA,
    # 50 tasks over an empty log otherwise
    "spark.databricks.delta.snapshotPartitions": "1",
    # let the session finish while executors still start; tasks queue until the first one is there
    "spark.scheduler.minRegisteredResourcesRatio": "0",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.sql.catalogImplementation": "in-memory",
    "spark.sql.execution.arrow.pyspark.enabled": "true",
    "spark.databricks.delta.properties.defaults.enableChangeDataFeed": "false",
    "spark.databricks.delta.history.metricsEnabled": "true",
    "spark.hadoop.fs.s3a.impl": "org.apache.hadoop.fs.s3a.S3AFileSystem",
    # a store that is down is said so after seconds, not after Hadoop's quarter of an hour
    "spark.hadoop.fs.s3a.attempts.maximum": "3",
    "spark.hadoop.fs.s3a.retry.limit": "4",
    # credentials come from the environment alone: no probing of instance metadata
    "spark.hadoop.fs.s3a.aws.credentials.provider": (
        "software.amazon.awssdk.auth.credentials.EnvironmentVariableCredentialsProvider"
    ),
    "spark.hadoop.fs.s3a.fast.upload.buffer": "bytebuffer",
    # a commit is put where there is none: with Delta's own, of two writers at once one loses its rows
    "spark.delta.logStore.s3a.impl": "io.lakeloop.S3ConditionalLogStore",
}

# Set whatever anyone wrote: a run reads its pinned inputs and nothing else, neither files nor, by ${env:…} in a query,
# the variables of its own process.
ENFORCED = {
    "spark.sql.runSQLOnFiles": "false",
    "spark.sql.legacy.createHiveTableByDefault": "false",
    "spark.sql.variable.substitute": "false",
}

_SIZE = re.compile(r"^(\d+)\s*([kmgt]?)b?$", re.IGNORECASE)
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


def parse_properties(text: str) -> dict[str, str]:
    """A ``spark.properties`` file: ``key=value`` or ``key value`` a line, ``#`` comments."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        stripped = line.strip()
        if not stripped or stripped[0] in "#!":
            continue
        key, _, value = re.sub(r"\s*[=:]\s*|\s+", "\0", stripped, count=1).partition("\0")
        found[key] = value.replace("\\:", ":").replace("\\=", "=").replace("\\\\", "\\")
    return found


def driver_conf(
    properties: Mapping[str, str], environ: Mapping[str, str], app_name: str, executor_template: str | None
) -> dict[str, str]:
    """All settings of the session.

    ``environ`` gives the pod's name, namespace and address (``LAKELOOP_POD_*``); ``executor_template`` the path of the
    executors' pod template, where there is one.
    """
    conf = {**DEFAULTS, **properties, **ENFORCED}
    conf.setdefault("spark.master", "local[*]")
    conf.setdefault("spark.app.name", app_name)
    cores = total_cores(conf)
    conf.setdefault("spark.sql.shuffle.partitions", str(max(2, 2 * cores)))
    conf.setdefault("spark.driver.memory", "1g")
    heap = size_bytes(conf["spark.driver.memory"], default_unit="m")
    # a result that cannot fit is refused by Spark with a message, instead of the pod being killed without one
    conf.setdefault("spark.driver.maxResultSize", str(max(heap * 6 // 10, 64 << 20)))
    if conf["spark.master"].startswith("local"):
        conf.setdefault("spark.driver.host", "127.0.0.1")
        conf.setdefault("spark.driver.bindAddress", "127.0.0.1")
        return conf
    if address := environ.get("LAKELOOP_POD_IP"):
        conf["spark.driver.host"] = f"[{address}]" if ":" in address else address
        conf["spark.driver.bindAddress"] = conf["spark.driver.host"]
    if name := environ.get("LAKELOOP_POD_NAME"):
        conf["spark.kubernetes.driver.pod.name"] = name  # makes this pod the executors' owner
    if namespace := environ.get("LAKELOOP_POD_NAMESPACE"):
        conf["spark.kubernetes.namespace"] = namespace
    if executor_template:
        conf.setdefault("spark.kubernetes.executor.podTemplateFile", executor_template)
        conf.setdefault("spark.kubernetes.executor.podTemplateContainerName", "executor")
    return conf


def total_cores(conf: Mapping[str, str]) -> int:
    """Cores that tasks can use at once."""
    local = re.fullmatch(r"local(?:\[(\*|\d+)(?:,\d+)?\])?", conf.get("spark.master", ""))
    if local:
        wanted = local.group(1)
        return (os.cpu_count() or 1) if wanted == "*" else int(wanted or 1)
    executors = int(conf.get("spark.executor.instances", "1"))
    if conf.get("spark.dynamicAllocation.enabled") == "true":
        executors = max(executors, int(conf.get("spark.dynamicAllocation.maxExecutors", "4")))
    return max(1, executors * int(conf.get("spark.executor.cores", "1")))


def size_bytes(text: str, default_unit: str = "") -> int:
    """Bytes of a size as Spark writes it (``1g``, ``512m``, ``1024``); raises ValueError."""
    match = _SIZE.match(text.strip())
    if not match:
        raise ValueError(f"{text!r} is not a size such as 1g or 512m")
    return int(match.group(1)) * _UNITS[(match.group(2) or default_unit).lower()]


def memory_for_rows(conf: Mapping[str, str], container_limit: int | None) -> int:
    """Bytes that the collected rows may take in this process: a third of what the JVM leaves of the container.

    On their way in they are here twice, with a column more. Then a pipeline's step makes a copy of the training rows,
    and its learner another.
    """
    return max(memory_left(conf, container_limit) // 3, 64 << 20)


def memory_left(conf: Mapping[str, str], container_limit: int | None) -> int:
    """Bytes that the JVM and the interpreter leave of the container; 12 GiB where there is no limit (None)."""
    heap = size_bytes(conf.get("spark.driver.memory", "1g"), default_unit="m")
    if container_limit is None:
        return 12 << 30
    # 25 % of the heap: metaspace, code cache, Arrow buffers; 250 MB: the interpreter with its libraries
    return max(container_limit - math.ceil(heap * 1.25) - (250 << 20), 0)
