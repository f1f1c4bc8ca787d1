"""Manifests of a run against golden files, and what must hold of all of them."""

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import yaml
from unit.training.test_certificates import ONE
from unit.training.world import PLATFORM

from builders import training_job_dict
from lakeloop.api.v1alpha1.common import Storage
from lakeloop.api.v1alpha1.defaults import EffectiveTrainingSpec, effective_training_spec
from lakeloop.api.v1alpha1.trainingjob import RunInput, TrainingJobSpec
from lakeloop.render.certificates import certificates, trust_store
from lakeloop.render.errors import InvalidConf, InvalidParameter, Unrenderable
from lakeloop.render.training.driver import driver_pod
from lakeloop.render.training.driver_rbac import driver_rbac
from lakeloop.render.training.executor import executor_sample
from lakeloop.render.training.logs import LogTarget
from lakeloop.render.training.names import RunIdentity
from lakeloop.render.training.run_config import parameters, run_config
from lakeloop.render.training.spark_conf import checked_conf, has_executors, mebibytes, properties, spark_conf
from lakeloop.render.training.storage import input_uri, storage_target

RUN = RunIdentity("team-a", "churn", "7d1c6f0e", 7, "run-uid", 2)
INGEST = {"from": "s3a://raw/events/*.json", "format": "json"}
FULL: dict[str, Any] = {
    "inputs": [
        {"name": "customers", "uri": "s3a://lake/customers", "version": 12},
        {"name": "events", "table": "web.events", "ingest": INGEST},
    ],
    "dataset": {
        "query": "SELECT * FROM customers JOIN events USING (id)",
        "features": ["tenure", "spend"],
        "target": "churned",
        "split": {"testFraction": 0.25, "seed": 3, "keys": ["id"]},
    },
    "estimator": {
        "steps": [
            {"class": "sklearn.preprocessing.StandardScaler"},
            {
                "class": "sklearn.ensemble.RandomForestClassifier",
                "params": {"max_features": {"float": "1.0"}, "n_estimators": 10, "class_weight": {"0": 1, "1": 2}},
            },
        ]
    },
    "objective": {"metric": "log_loss"},
    "explanation": {"method": "None"},
    "register": {"model": "churn", "alias": "champion", "tags": {"team": "a"}},
    "tracking": {"experiment": "churn", "secretRef": {"name": "mlflow-user"}},
    "spark": {
        "image": "registry.example/trainer:9",
        "driver": {
            "cores": 2,
            "coreRequest": "1500m",
            "memory": "1.5Gi",
            "memoryOverhead": "500M",
            "template": {
                "metadata": {"annotations": {"team": "a"}},
                "spec": {
                    "nodeSelector": {"disk": "ssd"},
                    "containers": [{"name": "driver", "env": [{"name": "MINE", "value": "1"}]}],
                },
            },
        },
        "executor": {
            "instances": 3,
            "cores": 2,
            "memory": "2Gi",
            "template": {"spec": {"tolerations": [{"key": "spot", "operator": "Exists"}]}},
        },
        "conf": {"spark.sql.shuffle.partitions": "64", "spark.driver.extraJavaOptions": "-Dpath=C:\\temp"},
    },
    "storage": {
        "secretRef": {"name": "lake"},
        "endpoint": "https://s3.example",
        "region": "eu-west-1",
        "pathStyle": False,
    },
}
IDENTITY = {
    "storage": {"serviceAccountName": "trainer"},
    "spark": {"executor": {"instances": 0}},
    "runPolicy": {"logs": {"tailBytes": 0}},
}
LOGS = LogTarget("s3a://mlflow/1/mlflow-run/artifacts/logs", 10 << 20)
CASES: dict[str, dict[str, Any]] = {"minimal": {}, "full": FULL, "workload-identity": IDENTITY}


def written(case: str) -> dict[str, Any]:
    spec: dict[str, Any] = training_job_dict(**CASES[case])["spec"]
    return spec


def effective(case: str) -> EffectiveTrainingSpec:
    return effective_training_spec(TrainingJobSpec.parse(written(case)))


def pinned(spec: EffectiveTrainingSpec) -> list[RunInput]:
    return [
        RunInput(
            name=item.name, uri=input_uri(i, item, spec.storage, PLATFORM), base_version=3, manifest="s3a://m", files=2
        )
        if item.ingest
        else RunInput(name=item.name, uri=input_uri(i, item, spec.storage, PLATFORM), version=12)
        for i, item in enumerate(spec.inputs)
    ]


def manifests(case: str) -> list[dict[str, Any]]:
    spec = effective(case)
    logs = LOGS if spec.run_policy.logs.tail_bytes else None
    target = storage_target(spec.storage, PLATFORM)
    return [
        *driver_rbac(RUN, target.service_account, executors=has_executors(spec.spark)),
        run_config(RUN, "SpecChange", written(case), spec, pinned(spec), target, PLATFORM, "mlflow-run", logs=logs),
        driver_pod(RUN, spec, target, PLATFORM, "mlflow-run", logs),
    ]


class _Literal(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


_Literal.add_representer(str, _text)


@pytest.mark.parametrize("case", CASES)
def test_golden(case: str, golden: Callable[[str, str], None]) -> None:
    golden(f"training/{case}.yaml", yaml.dump_all(manifests(case), Dumper=_Literal, sort_keys=False, width=120))


@pytest.mark.parametrize("case", CASES)
def test_pods_are_restricted(case: str) -> None:
    spec = effective(case)
    for pod in (
        manifests(case)[-1],
        executor_sample(RUN, spec.spark, storage_target(spec.storage, PLATFORM), PLATFORM, LOGS),
    ):
        context = pod["spec"]["securityContext"]
        assert (context["runAsNonRoot"], context["runAsUser"], context["fsGroup"]) == (True, 10001, 10001)
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["spec"]["enableServiceLinks"] is False
        assert pod["spec"]["restartPolicy"] == "Never"
        for container in [*pod["spec"]["containers"], *pod["spec"].get("initContainers", [])]:
            assert container["securityContext"]["readOnlyRootFilesystem"] is True
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert {mount["mountPath"] for mount in pod["spec"]["containers"][0]["volumeMounts"]} >= {"/tmp", "/work"}


def test_executors_get_no_token() -> None:
    spec = effective("minimal")
    pod = executor_sample(RUN, spec.spark, storage_target(spec.storage, PLATFORM), PLATFORM)
    assert pod["spec"]["automountServiceAccountToken"] is False
    assert "serviceAccountName" not in pod["spec"]


@pytest.mark.parametrize("case", CASES)
def test_no_value_of_a_secret_is_written_anywhere(case: str) -> None:
    pod = manifests(case)[-1]["spec"]
    template = json.loads(manifests(case)[-2]["data"]["executor.yaml"])["spec"]
    containers = [
        each for spec in (pod, template) for kind in ("containers", "initContainers") for each in spec.get(kind, [])
    ]
    for variable in [variable for container in containers for variable in container["env"]]:
        if any(word in variable["name"] for word in ("KEY", "TOKEN", "PASSWORD", "USERNAME")):
            assert "secretKeyRef" in variable["valueFrom"]
    settings = manifests(case)[-2]["data"]["spark.properties"]
    assert "access.key" not in settings
    assert "secret" not in settings


def test_names_fit_into_63_characters() -> None:
    longest = RunIdentity("n" * 63, "j" * 40, "uid", 99_999, "u", 999)
    assert len(longest.driver_pod) <= 63
    assert len(longest.config_map) <= 63
    assert len(f"{longest.executor_prefix}-exec-9999") <= 63


@pytest.mark.parametrize(
    ("quantity", "expected"),
    [("1Gi", 1024), ("400Mi", 400), ("1.5Gi", 1536), ("500M", 477), ("1G", 954), ("1048577", 2), ("2Ti", 2_097_152)],
)
def test_mebibytes(quantity: str, expected: int) -> None:
    assert mebibytes(quantity) == expected


OWNED = [
    "spark.driver.memoryOverhead",
    "spark.driver.defaultJavaOptions",
    "spark.kubernetes.driverEnv.A",
    "spark.kubernetes.memoryOverheadFactor",
    "spark.kubernetes.node.selector.disk",
    "spark.master",
    "spark.app.name",
    "spark.submit.deployMode",
    "spark.driver.host",
    "spark.driver.memory",
    "spark.executor.instances",
    "spark.dynamicAllocation.enabled",
    "spark.kubernetes.namespace",
    "spark.kubernetes.container.image",
    "spark.kubernetes.driver.pod.name",
    "spark.kubernetes.executor.podNamePrefix",
    "spark.kubernetes.executor.podTemplateFile",
    "spark.kubernetes.executor.podTemplateContainerName",
    "spark.kubernetes.executor.secrets.aws",
    "spark.kubernetes.executor.volumes.hostPath.x.mount.path",
    "spark.kubernetes.authenticate.driver.serviceAccountName",
    "spark.jars.packages",
    "spark.sql.runSQLOnFiles",
    "spark.hadoop.fs.s3a.endpoint",
    "spark.hadoop.fs.s3a.aws.credentials.provider",
]
SECRETS = [
    "spark.hadoop.fs.azure.account.key.lake",
    "spark.hadoop.fs.s3a.access.key",
    "spark.hadoop.fs.s3a.secret.key",
    "spark.hadoop.fs.s3a.session.token",
    "spark.executorEnv.AWS_SECRET_ACCESS_KEY",
    "spark.ssl.keyPassword",
    "spark.hadoop.javax.jdo.option.ConnectionPassword",
]


@pytest.mark.parametrize("key", OWNED)
def test_settings_that_are_the_operators(key: str) -> None:
    with pytest.raises(InvalidConf, match="the operator sets this") as refused:
        checked_conf({key: "x"})
    assert refused.value.path == f"spec.spark.conf[{key}]"


@pytest.mark.parametrize("key", SECRETS)
def test_settings_that_look_like_secrets(key: str) -> None:
    with pytest.raises(InvalidConf, match="into a Secret") as refused:
        checked_conf({key: "hunter2"})
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    "key",
    [
        "spark.sql.shuffle.partitions",
        "spark.driver.extraJavaOptions",
        "spark.driver.maxResultSize",
        "spark.executor.memoryOverhead",
        "spark.databricks.delta.snapshotPartitions",
        "spark.kubernetes.allocation.batch.size",
    ],
)
def test_settings_that_are_the_users(key: str) -> None:
    spec = effective_training_spec(TrainingJobSpec.parse(training_job_dict(spark={"conf": {key: "7"}})["spec"]))
    assert spark_conf(RUN, spec.spark, storage_target(spec.storage, PLATFORM), PLATFORM)[key] == "7"


@pytest.mark.parametrize(
    "conf", [{"master": "x"}, {"spark.x": "a\nspark.master=local"}], ids=["no prefix", "two lines"]
)
def test_settings_that_are_none(conf: dict[str, str]) -> None:
    with pytest.raises(InvalidConf):
        checked_conf(conf)


def test_backslashes_survive_a_properties_file() -> None:
    assert properties({"b": "C:\\x", "a": "1"}) == "a=1\nb=C:\\\\x\n"


def test_floats_keep_their_point() -> None:
    document = json.dumps(parameters({"a": {"float": "1.0"}, "b": 1, "c": [{"float": 2}]}, "p"))
    assert document == '{"a": 1.0, "b": 1, "c": [2.0]}'


@pytest.mark.parametrize("value", ["one", "nan", "inf", ""])
def test_floats_that_are_none(value: str) -> None:
    with pytest.raises(InvalidParameter) as refused:
        parameters({"C": [{"float": value}]}, "spec.estimator.steps[0].params")
    assert refused.value.path == "spec.estimator.steps[0].params.C[0]"


def test_a_table_without_a_warehouse() -> None:
    from dataclasses import replace

    item = effective("full").inputs[1]
    assert input_uri(1, item, Storage(), PLATFORM) == "s3a://lake/warehouse/web.db/events"
    assert input_uri(1, item, Storage(warehouse="s3a://own/w/"), PLATFORM) == "s3a://own/w/web.db/events"
    with pytest.raises(Unrenderable) as refused:
        input_uri(1, item, Storage(), replace(PLATFORM, warehouse=None))
    assert refused.value.path == "spec.inputs[1].table"


def test_pods_are_given_the_stores_ca() -> None:
    """A path in the operator's own pod means nothing in another."""
    platform = replace(PLATFORM, storage_ca=ONE, storage_ca_file="/only/in/the/operator")
    spec = effective_training_spec(TrainingJobSpec.parse(training_job_dict()["spec"]))
    target = storage_target(spec.storage, platform)
    inputs = [RunInput(name="customers", uri="s3a://lake/customers", version=1)]
    config = run_config(RUN, "SpecChange", training_job_dict()["spec"], spec, inputs, target, platform, "m")
    assert config["data"]["ca.crt"] == ONE
    assert base64.b64decode(config["binaryData"]["truststore.jks"]) == trust_store(certificates(ONE))
    options = "-Djavax.net.ssl.trustStore=/etc/lakeloop/truststore.jks -Djavax.net.ssl.trustStoreType=JKS"
    for role in ("driver", "executor"):
        assert f"spark.{role}.defaultJavaOptions={options}" in config["data"]["spark.properties"]
    for pod in (driver_pod(RUN, spec, target, platform, "m"), executor_sample(RUN, spec.spark, target, platform)):
        (container,) = pod["spec"]["containers"]
        assert {"name": "AWS_CA_BUNDLE", "value": "/etc/lakeloop/ca.crt"} in container["env"]
        (mount,) = [each for each in container["volumeMounts"] if each["mountPath"] == "/etc/lakeloop"]
        (volume,) = [each for each in pod["spec"]["volumes"] if each["name"] == mount["name"]]
        assert volume["configMap"]["name"] == config["metadata"]["name"]
        assert "/only/in" not in json.dumps(pod)


# -- logs


def minimal(**parts: Any) -> EffectiveTrainingSpec:
    return effective_training_spec(TrainingJobSpec.parse(training_job_dict(**parts)["spec"]))


def with_logs(**parts: Any) -> list[dict[str, Any]]:
    """Driver and executor."""
    spec = minimal(**parts)
    target = storage_target(spec.storage, PLATFORM)
    return [
        driver_pod(RUN, spec, target, PLATFORM, "m", LOGS),
        executor_sample(RUN, spec.spark, target, PLATFORM, LOGS),
    ]


def env_of(container: dict[str, Any]) -> dict[str, Any]:
    return {each["name"]: each.get("value", each.get("valueFrom")) for each in container["env"]}


@pytest.mark.parametrize("index", [0, 1], ids=["driver", "executor"])
def test_a_native_sidecar_shares_a_folder_with_the_main_container(index: int) -> None:
    pod = with_logs()[index]["spec"]
    (sidecar,), (main,) = pod["initContainers"], pod["containers"]
    assert (sidecar["name"], sidecar["restartPolicy"]) == ("logs", "Always")
    assert sidecar["image"] == main["image"]
    assert sidecar["resources"]["limits"] == {"memory": "128Mi"}
    for container in (sidecar, main):
        assert {"name": "logs", "mountPath": "/logs"} in container["volumeMounts"]
        assert env_of(container)["LAKELOOP_LOG_FOLDER"] == "/logs"
        assert env_of(container)["LAKELOOP_LOG_TAIL_BYTES"] == "10485760"
    assert {"name": "logs", "emptyDir": {}} in pod["volumes"]
    assert env_of(sidecar)["LAKELOOP_LOG_URI"] == LOGS.uri
    assert env_of(sidecar)["AWS_ACCESS_KEY_ID"] == {
        "secretKeyRef": {"name": "lakeloop-storage", "key": "AWS_ACCESS_KEY_ID"}
    }
    assert env_of(sidecar)["AWS_ENDPOINT_URL_S3"] == PLATFORM.storage_endpoint
    # nothing of it but the store's
    assert not any(name.startswith("MLFLOW_TRACKING") for name in env_of(sidecar))


def test_the_names_of_the_logs() -> None:
    driver, executor = (pod["spec"]["initContainers"][0] for pod in with_logs())
    assert env_of(driver)["LAKELOOP_LOG_NAME"] == "driver-2"
    assert env_of(executor)["LAKELOOP_EXECUTOR_ID"] == {"fieldRef": {"fieldPath": "metadata.labels['spark-exec-id']"}}
    names = [each["name"] for each in executor["env"]]
    # Kubernetes replaces what was defined before
    assert names.index("LAKELOOP_EXECUTOR_ID") < names.index("LAKELOOP_LOG_NAME")
    assert env_of(executor)["LAKELOOP_LOG_NAME"] == "executor-2-$(LAKELOOP_EXECUTOR_ID)"


def test_the_sidecar_does_not_see_the_drivers_token() -> None:
    """Kubernetes mounts no token where something is mounted already."""
    driver, executor = with_logs()
    (sidecar,), (main,) = driver["spec"]["initContainers"], driver["spec"]["containers"]
    token = "/var/run/secrets/kubernetes.io/serviceaccount"
    assert {"name": "no-token", "mountPath": token, "readOnly": True} in sidecar["volumeMounts"]
    assert {"name": "no-token", "emptyDir": {}} in driver["spec"]["volumes"]
    assert token not in {each["mountPath"] for each in main["volumeMounts"]}
    assert executor["spec"]["automountServiceAccountToken"] is False


def test_the_sidecar_trusts_the_stores_ca() -> None:
    platform = replace(PLATFORM, storage_ca=ONE)
    spec = minimal()
    target = storage_target(spec.storage, platform)
    for pod in (
        driver_pod(RUN, spec, target, platform, "m", LOGS),
        executor_sample(RUN, spec.spark, target, platform, LOGS),
    ):
        (sidecar,) = pod["spec"]["initContainers"]
        assert env_of(sidecar)["AWS_CA_BUNDLE"] == "/etc/lakeloop/ca.crt"
        (mount,) = [each for each in sidecar["volumeMounts"] if each["mountPath"] == "/etc/lakeloop"]
        assert mount["name"] in {each["name"] for each in pod["spec"]["volumes"]}


def test_overlays_reach_the_sidecar_and_keep_its_image() -> None:
    more = {"name": "logs", "resources": {"limits": {"memory": "256Mi"}}}
    own = {"name": "mine", "image": "busybox"}
    template = {"spec": {"initContainers": [more, own], "containers": [{"name": "driver", "tty": False}]}}
    pod, _ = with_logs(spark={"driver": {"template": template}})
    first, second = pod["spec"]["initContainers"]
    assert first["resources"] == {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"memory": "256Mi"}}
    assert (first["restartPolicy"], second["name"]) == ("Always", "mine")
    with pytest.raises(Unrenderable) as refused:
        with_logs(spark={"driver": {"template": {"spec": {"initContainers": [more | {"image": "other"}]}}}})
    assert refused.value.path == "spec.spark.driver.template.spec.initContainers[0].image"


def conf_of(spec: EffectiveTrainingSpec, logs: LogTarget | None = LOGS) -> dict[str, str]:
    return spark_conf(RUN, spec.spark, storage_target(spec.storage, PLATFORM), PLATFORM, logs)


def test_the_event_log_goes_where_the_sidecar_finds_it() -> None:
    conf = conf_of(minimal())
    assert conf["spark.eventLog.enabled"] == "true"
    assert conf["spark.eventLog.dir"] == "file:///logs/events"
    off = conf_of(minimal(spark={"conf": {"spark.eventLog.enabled": "false"}}))
    assert off["spark.eventLog.enabled"] == "false"


def test_without_logs_there_is_nothing_of_them() -> None:
    spec = minimal()
    target = storage_target(spec.storage, PLATFORM)
    for pod in (driver_pod(RUN, spec, target, PLATFORM, "m"), executor_sample(RUN, spec.spark, target, PLATFORM)):
        assert "initContainers" not in pod["spec"]
        assert "/logs" not in json.dumps(pod)
    assert not any(key.startswith("spark.eventLog") for key in conf_of(spec, None))


# -- executors that come and go


def test_dynamic_allocation() -> None:
    dynamic = {"enabled": True, "minExecutors": 2, "maxExecutors": 6}
    conf = conf_of(minimal(spark={"dynamicAllocation": dynamic, "executor": {"instances": 3}}))
    assert "spark.executor.instances" not in conf
    assert {key.rpartition(".")[2]: value for key, value in conf.items() if "dynamicAllocation.m" in key} == {
        "minExecutors": "2",
        "maxExecutors": "6",
    }
    assert conf["spark.dynamicAllocation.enabled"] == "true"
    assert conf["spark.dynamicAllocation.initialExecutors"] == "2"
    assert conf["spark.dynamicAllocation.shuffleTracking.enabled"] == "true"


def test_dynamic_allocation_begins_with_one() -> None:
    """`executor.instances: 0`, which would mean the driver alone, is not used."""
    conf = conf_of(minimal(spark={"dynamicAllocation": {"enabled": True}, "executor": {"instances": 0}}))
    assert conf["spark.master"].startswith("k8s://")
    assert conf["spark.dynamicAllocation.minExecutors"] == "0"
    assert conf["spark.dynamicAllocation.maxExecutors"] == "4"
    assert conf["spark.dynamicAllocation.initialExecutors"] == "1"


def test_dynamic_allocation_that_is_switched_off() -> None:
    conf = conf_of(minimal(spark={"dynamicAllocation": {"enabled": False, "maxExecutors": 6}}))
    assert conf["spark.executor.instances"] == "1"
    assert not any("dynamicAllocation" in key for key in conf)


def test_more_executors_at_least_than_at_most_by_default() -> None:
    with pytest.raises(Unrenderable) as refused:
        conf_of(minimal(spark={"dynamicAllocation": {"enabled": True, "minExecutors": 5}}))
    assert refused.value.path == "spec.spark.dynamicAllocation"
