"""What is created for a ModelDeployment, as golden files, and what must hold of every server pod."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from deployment_world import SETTINGS, World, target_of
from unit.training.test_certificates import ONE, TWO

from builders import model_deployment
from lakeloop.api.v1alpha1.defaults import effective_deployment_spec
from lakeloop.render.errors import Unrenderable
from lakeloop.render.serving import names
from lakeloop.render.serving.deployment import scaled
from lakeloop.render.serving.network_policy import server_network_policy
from lakeloop.render.serving.pod import ModelSource, default_workers, server_template, with_revision
from lakeloop.settings import Settings


class Plain(yaml.SafeDumper):
    """Writes what occurs twice twice."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


EVERYTHING: dict[str, Any] = {
    "model": {"name": "churn model", "version": 4},
    "replicas": 3,
    "server": {
        "image": "registry.example/server:9",
        "resources": {"requests": {"cpu": "250m", "memory": "1Gi"}, "limits": {"cpu": "1500m", "memory": "2Gi"}},
        "env": [
            {"name": "MODE", "value": "fast"},
            {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        ],
        "template": {
            "metadata": {"labels": {"team": "a"}, "annotations": {"example.com/note": "hello"}},
            "spec": {
                "nodeSelector": {"disk": "fast"},
                "tolerations": [{"key": "models", "operator": "Exists"}],
                "containers": [
                    {"name": "server", "volumeMounts": [{"name": "scratch", "mountPath": "/scratch"}]},
                    {"name": "sidecar", "image": "registry.example/sidecar:1"},
                ],
                "volumes": [{"name": "scratch", "emptyDir": {}}],
            },
        },
    },
    "gates": {"signature": {"required": False}},
    "storage": {
        "secretRef": {"name": "lake"},
        "endpoint": "https://s3.example.com",
        "region": "eu-central-1",
        "pathStyle": False,
        "caSecretRef": {"name": "lake-ca", "key": "root.pem"},
    },
}


@pytest.mark.parametrize(
    ("name", "spec", "version"),
    [pytest.param("minimal", {}, 1, id="minimal"), pytest.param("everything", EVERYTHING, 4, id="everything")],
)
def test_golden(golden: Callable[[str, str], None], name: str, spec: dict[str, Any], version: int) -> None:
    world = World(**spec)
    world.version = version
    plan = world.act()
    text = yaml.dump_all([dict(each) for each in plan.apply], Dumper=Plain, sort_keys=False, width=120)
    golden(f"serving/{name}.yaml", text)


def template(settings: Settings = SETTINGS, **spec: Any) -> dict[str, Any]:
    deployment = model_deployment(**spec)
    source = ModelSource("churn", 5, "s3://mlflow/1/m-5")
    return server_template("churn", effective_deployment_spec(deployment.spec), source, settings)


def server(pod: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = next(each for each in pod["spec"]["containers"] if each["name"] == "server")
    return found


@pytest.mark.parametrize("spec", [pytest.param({}, id="minimal"), pytest.param(EVERYTHING, id="everything")])
def test_pods_are_restricted_and_have_no_token(spec: dict[str, Any]) -> None:
    pod = template(**spec)["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False
    assert "serviceAccountName" not in pod
    assert pod["securityContext"]["runAsNonRoot"] is True
    for container in pod["containers"]:
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["readOnlyRootFilesystem"] is True
        assert context["capabilities"] == {"drop": ["ALL"]}


def test_secrets_are_named_and_never_written() -> None:
    container = server(template())
    by_name = {each["name"]: each for each in container["env"]}
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        assert by_name[name]["valueFrom"]["secretKeyRef"] == {"name": "lakeloop-storage", "key": name}
        assert "value" not in by_name[name]


def test_draining_fits_into_the_grace_period() -> None:
    env = {each["name"]: each.get("value") for each in server(template())["env"]}
    least, most = int(env["LAKELOOP_DRAIN_LEAST_SECONDS"]), int(env["LAKELOOP_DRAIN_SECONDS"])
    # The server's parent process waits 4 seconds more for its workers.
    assert 0 < least < most < most + 4 < template()["spec"]["terminationGracePeriodSeconds"]


def test_nothing_comes_between_a_pods_deletion_and_its_servers_knowledge_of_it() -> None:
    assert "lifecycle" not in server(template())


def test_workload_identity_takes_no_secret() -> None:
    pod = template(storage={"serviceAccountName": "models"})
    assert pod["spec"]["serviceAccountName"] == "models"
    assert not [each for each in server(pod)["env"] if "secretKeyRef" in each.get("valueFrom", {})]


@pytest.mark.parametrize(
    ("batching", "told"),
    [
        pytest.param(None, [], id="none"),
        pytest.param({}, ["64", "5"], id="the defaults"),
        pytest.param({"maxSize": 8}, ["8", "5"], id="a size"),
        pytest.param({"maxSize": 100_000, "maxDelayMilliseconds": 0.25}, ["100000", "0.25"], id="a part of one ms"),
        pytest.param({"maxDelayMilliseconds": 0}, ["64", "0"], id="no wait"),
    ],
)
def test_servers_are_told_how_to_batch(batching: dict[str, Any] | None, told: list[str]) -> None:
    pod = template(**({} if batching is None else {"server": {"batching": batching}}))
    env = {each["name"]: each.get("value") for each in server(pod)["env"]}
    assert [value for name, value in env.items() if name.startswith("LAKELOOP_BATCH_")] == told


@pytest.mark.parametrize(
    ("limits", "workers"),
    [
        ({}, 1),
        ({"cpu": "500m"}, 1),
        ({"cpu": "1500m"}, 2),
        ({"cpu": "4"}, 4),
        ({"cpu": "0.5"}, 1),
        ({"cpu": "999"}, 64),
    ],
)
def test_workers_follow_the_cpu_limit(limits: dict[str, str], workers: int) -> None:
    assert default_workers({"limits": limits}) == workers


@pytest.mark.parametrize(
    ("spec", "path"),
    [
        pytest.param(
            {"server": {"env": [{"name": "LAKELOOP_MODEL_URI", "value": "s3://other"}]}}, "spec.server.env[0]", id="env"
        ),
        pytest.param(
            {"server": {"env": [{"name": "LAKELOOP_MODEL_DIGEST", "value": ""}]}}, "spec.server.env[0]", id="digest"
        ),
        pytest.param(
            {"server": {"template": {"spec": {"hostNetwork": True}}}},
            "spec.server.template.spec.hostNetwork",
            id="host",
        ),
        pytest.param(
            {"server": {"template": {"spec": {"serviceAccountName": "admin"}}}},
            "spec.server.template.spec.serviceAccountName",
            id="service-account",
        ),
        pytest.param(
            {"server": {"template": {"metadata": {"labels": {"lakeloop.io/revision": "x"}}}}},
            "spec.server.template.metadata.labels[lakeloop.io/revision]",
            id="label",
        ),
    ],
)
def test_what_is_not_the_users_to_set(spec: dict[str, Any], path: str) -> None:
    with pytest.raises(Unrenderable) as caught:
        template(**spec)
    assert caught.value.path == path


def test_revision_depends_on_model_version_and_template_alone() -> None:
    base = target_of(model_deployment(), 5).revision
    assert len(base) == 8
    assert target_of(model_deployment(replicas=7), 5).revision == base
    assert target_of(model_deployment(), 5, {"any": "tag"}).revision == base
    assert target_of(model_deployment(), 6).revision != base
    assert target_of(model_deployment(server={"workers": 2}), 5).revision != base
    assert target_of(model_deployment(model={"name": "fraud", "alias": "champion"}), 5).revision != base


def test_revision_goes_into_labels_spread_and_digest_only() -> None:
    plain = template()
    marked = with_revision(plain, "churn", "0a1b2c3d")
    assert marked["metadata"]["labels"][names.REVISION] == "0a1b2c3d"
    spread = marked["spec"]["topologySpreadConstraints"][0]["labelSelector"]["matchLabels"]
    assert spread[names.REVISION] == "0a1b2c3d"
    assert server(marked)["env"][:-1] == server(plain)["env"]
    assert server(marked)["env"][-1]["valueFrom"]["configMapKeyRef"] == {"name": "churn-0a1b2c3d", "key": "digest"}


def test_scaled_says_again_all_that_was_applied() -> None:
    live = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": "churn-r",
            "namespace": "team-a",
            "uid": "u",
            "resourceVersion": "7",
            "managedFields": [{}],
            "labels": {"a": "b"},
            "ownerReferences": [{"uid": "o"}],
            "annotations": {"deployment.kubernetes.io/revision": "1"},
        },
        "spec": {"replicas": 3, "template": {"spec": {}}},
        "status": {"replicas": 3},
    }
    assert scaled(live, 1) == {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": "churn-r",
            "namespace": "team-a",
            "labels": {"a": "b"},
            "ownerReferences": [{"uid": "o"}],
        },
        "spec": {"replicas": 1, "template": {"spec": {}}},
    }


@pytest.mark.parametrize(
    ("endpoint", "port", "inside"),
    [
        ("http://minio.lakeloop-platform.svc:9000", None, "lakeloop-platform"),
        ("http://minio.store.svc.cluster.local:9000", None, "store"),
        ("https://s3.example.com", 443, None),
        ("http://10.0.0.7:9000", 9000, None),
        (None, 443, None),
    ],
)
def test_way_to_the_store(endpoint: str | None, port: int | None, inside: str | None) -> None:
    policy = server_network_policy("team-a", "churn", "uid", storage_endpoint=endpoint)
    store = policy["spec"]["egress"][1]
    if inside:
        assert store["to"] == [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": inside}}}]
    else:
        assert store["ports"] == [{"port": port, "protocol": "TCP"}]
        assert "169.254.0.0/16" in store["to"][0]["ipBlock"]["except"]


def test_servers_are_given_the_stores_ca() -> None:
    """A path in the operator's own pod means nothing in another."""
    world = World()
    world.settings = replace(SETTINGS, storage_ca_file=Path("/only/in/the/operator"), storage_ca=ONE)
    plan = world.act()
    made = {each["kind"]: each for each in plan.apply}
    assert made["ConfigMap"]["data"]["ca.crt"] == ONE
    pod = made["Deployment"]["spec"]["template"]
    assert {"name": "AWS_CA_BUNDLE", "value": "/etc/lakeloop/storage-ca/ca.crt"} in server(pod)["env"]
    (volume,) = [each for each in pod["spec"]["volumes"] if each["name"] == "storage-ca"]
    assert volume["configMap"] == {
        "name": made["ConfigMap"]["metadata"]["name"],
        "items": [{"key": "ca.crt", "path": "ca.crt"}],
    }
    assert "/only/in" not in json.dumps(plan.apply)
    world.settings = replace(SETTINGS, storage_ca=TWO)
    again = world.act()
    assert [each["kind"] for each in again.apply] == ["ConfigMap"], "another CA is no other revision"
    assert again.apply[0]["data"]["ca.crt"] == TWO


def test_the_objects_own_ca_comes_first() -> None:
    settings = replace(SETTINGS, storage_ca=ONE)
    pod = template(settings, storage={"caSecretRef": {"name": "lake-ca"}})
    (volume,) = [each for each in pod["spec"]["volumes"] if each["name"] == "storage-ca"]
    assert volume["secret"]["secretName"] == "lake-ca"
