"""The Spark settings of a run: `spark.properties`.

The pod is what `spark-submit --deploy-mode cluster` would make; what it would put on the driver's command line is here.
Defaults that make small jobs fast, and what only the pod itself knows (its address, its name), are set by the driver.
"""

import math
import re
from collections.abc import Mapping

from lakeloop.api.v1alpha1.defaults import EffectiveSpark
from lakeloop.api.v1alpha1.training_execution import CREDENTIAL_CONF, OPERATOR_CONF
from lakeloop.render.certificates import java_options
from lakeloop.render.errors import InvalidConf, Unrenderable
from lakeloop.render.quantities import value_of
from lakeloop.render.training.logs import LogTarget, event_log
from lakeloop.render.training.names import EXECUTOR, MOUNT, Platform, RunIdentity
from lakeloop.render.training.storage import StorageTarget

_PROVIDERS = "software.amazon.awssdk.auth.credentials"
_EXECUTOR_OVERHEAD = "400m"
"""Beside the heap: the JVM itself, and a Python worker where a query needs one."""

_SECRET = re.compile(CREDENTIAL_CONF)
_SECRET_INSIDE = re.compile(rf"{CREDENTIAL_CONF}[\w.]*\s*[=:]\s*[^\s,;]|://[^/\s:@]+:[^/\s@]+@")
"""In a value: `-Dmy.password=x`, `jdbc:…://user:password@host`."""
_OWNED = re.compile(OPERATOR_CONF)


def mebibytes(quantity: str) -> int:
    """A memory quantity of Kubernetes in MiB, rounded up: `1Gi` → 1024."""
    return math.ceil(value_of(quantity) / 2**20)


def checked_conf(conf: Mapping[str, str]) -> Mapping[str, str]:
    """The user's settings. Raises InvalidConf for one that the operator owns or that looks like a secret."""
    for key, value in conf.items():
        path = f"spec.spark.conf[{key}]"
        if not re.fullmatch(r"spark\.[A-Za-z0-9_.\-]+", key):
            raise InvalidConf(path, "is no Spark setting: those begin with `spark.`")
        if _OWNED.match(key):
            raise InvalidConf(path, "the operator sets this: use spec.spark's own fields, spec.storage or a template")
        if _SECRET.search(key) or _SECRET_INSIDE.search(value):
            raise InvalidConf(
                path,
                f"{'is' if _SECRET.search(key) else 'holds what is'} named like a secret, and settings can be read by"
                " anyone: put it into a Secret and name that in spec.storage.secretRef or in a template's env",
            )
        if "\n" in value or "\r" in value:
            raise InvalidConf(path, "holds a line break: settings are one line each")
    return conf


def spark_conf(
    run: RunIdentity, spark: EffectiveSpark, target: StorageTarget, platform: Platform, logs: LogTarget | None = None
) -> dict[str, str]:
    """All settings of the run. Raises InvalidConf. Beside each: what of spark-submit it stands for."""
    image = spark.image or platform.trainer_image
    conf = {
        "spark.app.name": run.mlflow_run_name,  # --name
        "spark.driver.cores": str(spark.driver.cores),  # --driver-cores
        "spark.driver.memory": f"{mebibytes(spark.driver.memory)}m",  # --driver-memory
        "spark.local.dir": "/work",
        # No query may leave the pinned inputs by naming a path: SELECT * FROM delta.`s3a://…`.
        "spark.sql.runSQLOnFiles": "false",
    }
    conf |= _executors(run, spark, image, platform) if has_executors(spark) else _in_driver(spark)
    conf |= _s3a(target)
    conf |= event_log(logs)
    return conf | dict(checked_conf(spark.conf))


def has_executors(spark: EffectiveSpark) -> bool:
    """Whether anything of the run happens outside the driver's pod."""
    return spark.dynamic_allocation.enabled or spark.executor.instances > 0


def _how_many(spark: EffectiveSpark) -> dict[str, str]:
    dynamic = spark.dynamic_allocation
    if not dynamic.enabled:
        return {"spark.executor.instances": str(spark.executor.instances)}  # --num-executors
    if dynamic.min_executors > dynamic.max_executors:
        # One of the two is a default, which the resource's schema does not know.
        raise Unrenderable(
            "spec.spark.dynamicAllocation",
            f"minExecutors {dynamic.min_executors} is above maxExecutors {dynamic.max_executors}: write both",
        )
    return {
        "spark.dynamicAllocation.enabled": "true",
        "spark.dynamicAllocation.minExecutors": str(dynamic.min_executors),
        "spark.dynamicAllocation.maxExecutors": str(dynamic.max_executors),
        # One to begin with, where there may be one: the first job would ask for it after a second of waiting.
        "spark.dynamicAllocation.initialExecutors": str(max(dynamic.min_executors, 1)),
        # Kubernetes has no shuffle service that would outlive an executor.
        "spark.dynamicAllocation.shuffleTracking.enabled": "true",
    }


def _in_driver(spark: EffectiveSpark) -> dict[str, str]:
    return {"spark.master": f"local[{spark.driver.cores}]"}


def _executors(run: RunIdentity, spark: EffectiveSpark, image: str, platform: Platform) -> dict[str, str]:
    executor = spark.executor
    return {
        "spark.master": "k8s://https://kubernetes.default.svc",  # --master, as cluster mode rewrites it in the pod
        **_how_many(spark),
        "spark.executor.cores": str(executor.cores),  # --executor-cores
        "spark.executor.memory": f"{mebibytes(executor.memory)}m",  # --executor-memory
        "spark.executor.memoryOverhead": _EXECUTOR_OVERHEAD,
        "spark.kubernetes.executor.request.cores": executor.core_request,
        "spark.kubernetes.container.image": image,
        "spark.kubernetes.container.image.pullPolicy": platform.image_pull_policy,
        "spark.kubernetes.executor.podNamePrefix": run.executor_prefix,  # cluster mode: from the application's name
        "spark.kubernetes.executor.podTemplateFile": f"{MOUNT}/executor.yaml",  # cluster mode: mounts it by a ConfigMap
        "spark.kubernetes.executor.podTemplateContainerName": EXECUTOR,
        "spark.kubernetes.executor.deleteOnTermination": "true",
        # Executors have their settings from the driver; a ConfigMap with SPARK_CONF_DIR would be one more write.
        "spark.kubernetes.executor.disableConfigMap": "true",
    }


def _s3a(target: StorageTarget) -> dict[str, str]:
    provider = "WebIdentityTokenFileCredentialsProvider" if target.service_account else None
    conf = {
        # Only the environment is asked for keys: no instance metadata, no files.
        "aws.credentials.provider": f"{_PROVIDERS}.{provider or 'EnvironmentVariableCredentialsProvider'}",
        "endpoint.region": target.region,
        "path.style.access": str(target.path_style).lower(),
        "connection.maximum": "64",
        "threads.max": "16",
    }
    if target.endpoint:
        conf["endpoint"] = target.endpoint
        conf["connection.ssl.enabled"] = str(target.endpoint.startswith("https://")).lower()
    found = {f"spark.hadoop.fs.s3a.{key}": value for key, value in conf.items()}
    if target.ca:
        # Put before the user's extraJavaOptions, by Spark for executors and by the driver for itself.
        found |= {f"spark.{role}.defaultJavaOptions": java_options(MOUNT) for role in ("driver", "executor")}
    return found


def properties(conf: Mapping[str, str]) -> str:
    """The settings as a Java properties file, sorted."""
    return "".join(f"{key}={_escaped(value)}\n" for key, value in sorted(conf.items()))


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\")
