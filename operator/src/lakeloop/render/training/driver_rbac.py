"""What the driver may do in its namespace: annotate its own pod and, with executors, what Spark's backend calls."""

from typing import Any

from lakeloop.render.training.names import RunIdentity, driver_account, job_labels, owner


def driver_rbac(run: RunIdentity, service_account: str | None, *, executors: bool) -> list[dict[str, Any]]:
    """ServiceAccount, Role and RoleBinding, one set per job, with what this attempt needs.

    A service account of the user's is bound, not made.
    """
    name, namespace = driver_account(run.job), run.namespace
    meta = {
        "name": name,
        "namespace": namespace,
        "labels": job_labels(run.job, "driver"),
        "ownerReferences": owner(run.job, run.job_uid),
    }
    account = {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": meta,
        # The driver pod asks for its token itself; nothing else that may use the account gets one unasked.
        "automountServiceAccountToken": False,
    }
    role = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": meta,
        # To patch any pod would be to change any pod's image.
        "rules": _with_executors() if executors else [_rule("pods", "patch") | {"resourceNames": [run.driver_pod]}],
    }
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": meta,
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": service_account or name, "namespace": namespace}],
    }
    return [role, binding] if service_account else [account, role, binding]


def _with_executors() -> list[dict[str, Any]]:
    return [
        _rule("pods", "create", "get", "list", "watch", "delete", "deletecollection", "patch"),
        _rule("configmaps", "create", "get", "list", "watch", "delete", "deletecollection", "update", "patch"),
        _rule("persistentvolumeclaims", "list", "deletecollection"),
        _rule("services", "get", "list", "watch", "create", "delete", "deletecollection"),
    ]


def _rule(resource: str, *verbs: str) -> dict[str, Any]:
    return {"apiGroups": [""], "resources": [resource], "verbs": list(verbs)}
