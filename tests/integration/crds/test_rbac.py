"""The generated rules are enough for what the operator does, and for nothing worse."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from kubectl import Kubectl, Refused

from lakeloop.codegen import rbac
from localcluster.apiserver import ApiServer

USER = "lakeloop-operator"


@pytest.fixture
def operator(apiserver: ApiServer, kubectl: Kubectl) -> Kubectl:
    """kubectl as somebody who may do what the operator may do in a watched namespace: the test's."""
    kubectl.apply(role(rbac.rules()["watched"], "operator"))
    kubectl("create", "rolebinding", "operator", "--role=operator", f"--user={USER}")
    return Kubectl(apiserver.kubectl, apiserver.kubeconfig_for(USER), kubectl.namespace)


def role(rules: Sequence[Mapping[str, Any]], name: str = "driver") -> dict[str, Any]:
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": {"name": name},
        "rules": list(rules),
    }


def test_drivers_role_can_be_granted(operator: Kubectl) -> None:
    operator.apply(role([grant.rule() for grant in rbac.DRIVER]))
    operator("create", "serviceaccount", "driver")
    operator("create", "rolebinding", "driver", "--role=driver", f"--serviceaccount={operator.namespace}:driver")


@pytest.mark.parametrize(
    "rule",
    [
        pytest.param({"apiGroups": [""], "resources": ["secrets"], "verbs": ["list"]}, id="list secrets"),
        pytest.param({"apiGroups": [""], "resources": ["pods/exec"], "verbs": ["create"]}, id="exec"),
        pytest.param({"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}, id="everything"),
    ],
)
def test_more_cannot_be_granted(operator: Kubectl, rule: dict[str, Any]) -> None:
    with pytest.raises(Refused, match="attempting to grant RBAC permissions not currently held"):
        operator.apply(role([rule]))


@pytest.mark.parametrize(
    ("verb", "resource", "answer"),
    [
        ("patch", "trainingjobs/status", "yes"),
        ("update", "modeldeployments/finalizers", "yes"),
        ("delete", "deployments.apps", "yes"),
        ("get", "secrets", "yes"),
        ("list", "secrets", "no"),
        ("create", "trainingjobs", "no"),
        ("delete", "modeldeployments", "no"),
        ("create", "pods/exec", "no"),
        ("patch", "nodes", "no"),
    ],
)
def test_may(operator: Kubectl, verb: str, resource: str, answer: str) -> None:
    kind, _, subresource = resource.partition("/")
    question = ["auth", "can-i", verb, kind, f"--subresource={subresource}"]
    if answer == "yes":
        assert operator(*question).strip() == "yes"
    else:
        with pytest.raises(Refused):
            operator(*question)


def test_other_namespaces_are_out_of_reach(operator: Kubectl) -> None:
    with pytest.raises(Refused, match="forbidden"):
        operator("get", "pods", "--namespace=default")


def test_generated_file_is_what_the_api_server_takes(admin: Kubectl) -> None:
    for scope, rules in rbac.rules().items():
        stored = admin("apply", "--dry-run=server", "-o", "json", "-f", "-", stdin=json.dumps(role(rules, scope)))
        assert json.loads(stored)["rules"] == rules
