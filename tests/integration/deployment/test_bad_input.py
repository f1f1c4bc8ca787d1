"""ModelDeployments that the API server takes and that cannot be: each is told so, and the operator goes on."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_registry import FakeRegistry
from kubectl import Kubectl, eventually
from operator_process import OperatorProcess

from localcluster.apiserver import ApiServer

# name: the spec's part, and how reason and message begin
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "unknown-field": ({"template": {"spec": {"nodeSelectr": {}}}}, "ManifestRefused spec.server.template: Deployment "),
    "wrong-type": ({"template": {"spec": {"nodeSelector": "x"}}}, "ManifestRefused spec.server.template: Deployment "),
    "number-for-text": (
        {"template": {"metadata": {"labels": {"a": 1}}}},
        "ManifestRefused spec.server.template: Deployment ",
    ),
    "text-for-a-list": (
        {"template": {"spec": {"topologySpreadConstraints": "x"}}},
        "TemplateRefused spec.server.template.spec.topologySpreadConstraints: must be a list",
    ),
    "text-in-a-list": (
        {"template": {"spec": {"topologySpreadConstraints": ["x"]}}},
        "TemplateRefused spec.server.template.spec.topologySpreadConstraints[0]: must be an object",
    ),
    "host-path": (
        {"template": {"spec": {"volumes": [{"name": "x", "hostPath": {"path": "/"}}]}}},
        "TemplateRefused spec.server.template.spec.volumes[0].hostPath: ",
    ),
    "no-such-resource": ({"resources": {"limits": {"foo": 1}}}, "ManifestRefused spec.server.resources: Deployment "),
    "request-above-limit": (
        {"resources": {"requests": {"memory": "2Gi"}, "limits": {"memory": "1Gi"}}},
        "ManifestRefused spec.server.resources: Deployment ",
    ),
    "no-such-field": (
        {"env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "spec.nope"}}}]},
        "ManifestRefused spec.server.env: Deployment ",
    ),
    "variable-of-ours": (
        {"env": [{"name": "AWS_REGION", "value": "x"}]},
        "InvalidSpec spec.server.env[0]: AWS_REGION is set by the operator",
    ),
}


@pytest.fixture
def process(apiserver: ApiServer, kubectl: Kubectl, tmp_path: Path) -> Iterator[OperatorProcess]:
    kubectl.storage_secret()
    with FakeRegistry() as registry:
        registry.register("churn", 1, {"lakeloop.io/input.a": f"s3a://lake/a@{10**30}"})
        registry.set_alias("churn", "champion", 1)
        operator = OperatorProcess(
            apiserver.kubeconfig, tmp_path, namespace=kubectl.namespace, tracking_uri=registry.url
        )
        with operator:
            operator.wait_until_leading()
            yield operator


def deployment(name: str, **spec: Any) -> dict[str, Any]:
    model = {"name": "churn", "alias": "champion"}
    return {
        "apiVersion": "lakeloop.io/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": name},
        "spec": {"model": model, **spec},
    }


def stalled(kubectl: Kubectl, name: str = "churn") -> str:
    """Reason and message; empty where it is not."""
    found = kubectl.condition("md", name, "Stalled")
    return f"{found['reason']} {found['message']}" if found else ""


def test_each_is_told_and_none_ends_the_operator(process: OperatorProcess, kubectl: Kubectl) -> None:
    for name, (server, _) in BAD.items():
        kubectl.apply(deployment(name, server=server))
    kubectl.apply(deployment("many-cpus", server={"resources": {"limits": {"cpu": "1k"}}}))
    for name, (_, told) in BAD.items():
        eventually(lambda name=name: bool(stalled(kubectl, name)))
        assert stalled(kubectl, name).startswith(told)
    ours = "lakeloop.io/model-deployment=many-cpus"
    eventually(lambda: len(kubectl.items("deployment", labels=ours)) == 1)
    assert process.ended() is None
    assert process.metric('lakeloop_reconciles_total{kind="ModelDeployment",outcome="error"}') == 0
    said = {each["reason"] for each in kubectl.items("events")}
    assert {"ManifestRefused", "TemplateRefused", "InvalidSpec"} <= said


def test_what_is_not_ours_is_left_as_it_is(process: OperatorProcess, kubectl: Kubectl) -> None:
    """A Service of the user's had its selector and ports replaced, and went with the ModelDeployment."""
    kubectl("create", "service", "clusterip", "churn", "--tcp=80:9999")
    before = kubectl.get("service", "churn")
    kubectl.apply(deployment("churn"))
    told = "NameTaken metadata.name: Service churn is there already, and not ours"
    eventually(lambda: stalled(kubectl).startswith(told))
    assert kubectl.get("service", "churn") == before
    kubectl("delete", "service", "churn")
    eventually(lambda: stalled(kubectl) == "")
    assert kubectl.get("service", "churn")["metadata"]["ownerReferences"][0]["name"] == "churn"


def test_what_an_earlier_object_left_is_waited_for(process: OperatorProcess, kubectl: Kubectl) -> None:
    """No garbage collector runs here, so that the test is the one that collects."""
    kubectl.apply(deployment("churn"))
    eventually(lambda: "conditions" in kubectl.get("md", "churn").get("status", {}))
    kubectl("delete", "md", "churn", "--cascade=background")
    kubectl.apply(deployment("churn"))
    told = "is of an earlier ModelDeployment of this name, and is being removed"
    eventually(lambda: told in stalled(kubectl))
    kubectl("delete", "services,deployments,configmaps,networkpolicies", "-l", "lakeloop.io/model-deployment=churn")
    eventually(lambda: stalled(kubectl) == "")
    uid = kubectl.get("md", "churn")["metadata"]["uid"]
    assert kubectl.get("service", "churn")["metadata"]["ownerReferences"][0]["uid"] == uid


def test_what_is_no_action_is_answered(process: OperatorProcess, kubectl: Kubectl) -> None:
    kubectl.apply(deployment("churn"))
    kubectl("annotate", "md", "churn", "lakeloop.io/promotion=now")
    eventually(lambda: kubectl.get("md", "churn").get("status", {}).get("lastHandled", {}).get("promotion") == "now")

    def told() -> str:
        return " ".join(each["message"] for each in kubectl.items("events") if each["reason"] == "UnknownAction")

    eventually(lambda: "lakeloop.io/promotion: now" in told())
