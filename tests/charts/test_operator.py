"""The operator's chart: settings, roles, clean-up, switches."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from charts.rendering import CHARTS, Object, one, render

from lakeloop.settings import Settings

RULES = yaml.safe_load((CHARTS / "lakeloop" / "generated" / "rbac-rules.yaml").read_text())


def settings(objects: list[Object]) -> Settings:
    """What the operator makes of the environment that the chart gives it."""
    (container,) = one(objects, "Deployment", "lakeloop-operator")["spec"]["template"]["spec"]["containers"]
    downward = {"LAKELOOP_NAMESPACE": "lakeloop-system", "LAKELOOP_POD_NAME": "pod"}
    given = {each["name"]: each.get("value") for each in container["env"]}
    assert {name for name, value in given.items() if value is None} == downward.keys()
    return Settings.from_env({**given, **downward})


def test_the_operator_understands_its_defaults() -> None:
    """Every variable of the chart is one that the operator reads, with the meaning that the chart gives it."""
    found = settings(render("lakeloop"))
    assert found.watch_namespaces == ()
    assert found.tracking_uri == found.tracking_ui_url == "http://mlflow.lakeloop-platform.svc:5000"
    assert found.storage_endpoint == "http://minio.lakeloop-platform.svc:9000"
    assert found.storage_warehouse == "s3a://lake/warehouse"
    assert found.trainer_image == "localhost/lakeloop/trainer:0.1.0"
    assert found.server_image == "localhost/lakeloop/model-server:0.1.0"
    assert found.webhook_url == "http://lakeloop-operator.lakeloop-system.svc:8080/webhooks/mlflow"
    assert found.webhook_secret_file == Path("/etc/lakeloop/webhook/secret")
    assert (found.log_level, found.log_format, found.http_port, found.leader_election) == ("INFO", "json", 8080, True)


@pytest.mark.parametrize(
    ("values", "attribute", "expected"),
    [
        ({"watchNamespaces": ["a", "b"]}, "watch_namespaces", ("a", "b")),
        ({"tracking": {"uri": "http://m:1", "uiUrl": "https://page"}}, "tracking_ui_url", "https://page"),
        ({"storage": {"endpoint": ""}}, "storage_endpoint", None),
        ({"storage": {"pathStyle": False}}, "storage_path_style", False),
        ({"storage": {"ca": {"configMap": "x"}}}, "storage_ca_file", Path("/etc/lakeloop/storage-ca/ca.crt")),
        ({"server": {"serviceType": "NodePort"}}, "server_service_type", "NodePort"),
        ({"webhook": {"enabled": False}}, "webhook_url", None),
        ({"webhook": {"url": "http://elsewhere/x"}}, "webhook_url", "http://elsewhere/x"),
        ({"registryResyncSeconds": 5}, "registry_resync_seconds", 5),
        ({"deltaPollSeconds": 30}, "delta_poll_seconds", 30),
        ({"imagePullPolicy": "Never"}, "image_pull_policy", "Never"),
        ({"images": {"trainer": {"repository": "r/t", "tag": "sha256:ab"}}}, "trainer_image", "r/t@sha256:ab"),
        ({"log": {"level": "debug", "format": "text"}}, "log_level", "DEBUG"),
    ],
)
def test_values_reach_the_operator(values: dict[str, Any], attribute: str, expected: Any) -> None:
    """One row per setting."""
    assert getattr(settings(render("lakeloop", **values)), attribute) == expected


def role(objects: list[Object], kind: str, name: str, namespace: str | None = None) -> Any:
    """The rules of a role."""
    (found,) = [
        each["rules"]
        for each in objects
        if each["kind"] == kind and each["metadata"]["name"] == name and each["metadata"].get("namespace") == namespace
    ]
    return found


def test_all_namespaces_by_a_cluster_role() -> None:
    """Nothing but the generated rules."""
    objects = render("lakeloop")
    assert role(objects, "ClusterRole", "lakeloop-operator-lakeloop-system") == RULES["cluster"] + RULES["watched"]
    assert role(objects, "Role", "lakeloop-operator-own", "lakeloop-system") == RULES["own"]


def test_some_namespaces_by_roles() -> None:
    """The cluster role then holds no secrets, no pods, nothing but what comes and goes."""
    objects = render("lakeloop", watchNamespaces=["a", "b"])
    assert role(objects, "ClusterRole", "lakeloop-operator-lakeloop-system") == RULES["cluster"]
    for namespace in ("a", "b"):
        assert role(objects, "Role", "lakeloop-operator", namespace) == RULES["watched"]
    cluster_wide = {each["metadata"]["name"] for each in objects if each["kind"] == "ClusterRoleBinding"}
    assert cluster_wide == {"lakeloop-operator-lakeloop-system"}


def test_every_binding_has_its_role_and_account() -> None:
    """In both modes."""
    for values in ({}, {"watchNamespaces": ["a", "b"]}):
        objects = render("lakeloop", **values)
        have = {(each["kind"], each["metadata"].get("namespace"), each["metadata"]["name"]) for each in objects}
        for each in objects:
            if each["kind"].endswith("Binding"):
                ref = each["roleRef"]
                namespace = each["metadata"].get("namespace") if ref["kind"] == "Role" else None
                assert (ref["kind"], namespace, ref["name"]) in have
                for subject in each["subjects"]:
                    assert ("ServiceAccount", subject["namespace"], subject["name"]) in have


def test_crds_outlive_the_release() -> None:
    """Uninstalling must not delete the users' objects."""
    crds = [each for each in render("lakeloop") if each["kind"] == "CustomResourceDefinition"]
    assert {each["metadata"]["name"] for each in crds} == {"trainingjobs.lakeloop.io", "modeldeployments.lakeloop.io"}
    assert all(each["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep" for each in crds)


def test_clean_up_runs_before_the_rest_goes() -> None:
    """Its account and roles are there before it, and everything is gone after it."""
    objects = [each for each in render("lakeloop") if each["metadata"]["name"].startswith("lakeloop-cleanup")]
    assert {each["kind"] for each in objects} == {
        "ServiceAccount", "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding", "Job",
    }  # fmt: skip
    for each in objects:
        notes = each["metadata"]["annotations"]
        assert notes["helm.sh/hook"] == "pre-delete"
        assert "hook-succeeded" in notes["helm.sh/hook-delete-policy"]
        assert int(notes.get("helm.sh/hook-weight", 0)) == (0 if each["kind"] == "Job" else -5)


@pytest.mark.parametrize(
    ("values", "kind", "name"),
    [
        ({"crds": {"install": False}}, "CustomResourceDefinition", "trainingjobs.lakeloop.io"),
        ({"rbac": {"create": False}}, "ClusterRole", "lakeloop-operator-lakeloop-system"),
        ({"rbac": {"aggregate": False}}, "ClusterRole", "lakeloop-view-lakeloop-system"),
        ({"cleanup": {"enabled": False}}, "Job", "lakeloop-cleanup"),
        ({"networkPolicy": {"enabled": False}}, "NetworkPolicy", "lakeloop-operator"),
        ({"podDisruptionBudget": {"enabled": False}}, "PodDisruptionBudget", "lakeloop-operator"),
        ({"webhook": {"enabled": False}}, "Secret", "lakeloop-webhook"),
        ({"webhook": {"existingSecret": "mine"}}, "Secret", "lakeloop-webhook"),
    ],
)
def test_switches(values: dict[str, Any], kind: str, name: str) -> None:
    """There by default, not there when switched off."""
    assert one(render("lakeloop"), kind, name)
    assert not [e for e in render("lakeloop", **values) if (e["kind"], e["metadata"]["name"]) == (kind, name)]


def test_service_monitor() -> None:
    """Off by default: its CRD is not everywhere."""
    objects = render("lakeloop", metrics={"serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}}})
    monitor = one(objects, "ServiceMonitor", "lakeloop-operator")
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    labels = one(objects, "Service", "lakeloop-operator")["metadata"]["labels"]
    assert monitor["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert not [each for each in render("lakeloop") if each["kind"] == "ServiceMonitor"]
