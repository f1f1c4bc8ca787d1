"""What the driver may do in its namespace: what Spark's Kubernetes backend calls, and annotate its own pod."""

from typing import Any

from lakeloop.render.training.names import driver_account, job_labels, owner


def driver_rbac(namespace: str, job: str, job_uid: str, service_account: str | None) -> list[dict[str, Any]]:
    """ServiceAccount, Role and RoleBinding, one set per job. A service account of the user's is bound, not made."""
    name = driver_account(job)
    meta = {
        "name": name,
        "namespace": namespace,
        "labels": job_labels(job, "driver"),
        "ownerReferences": owner(job, job_uid),
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
        "rules": [
            _rule("pods", "create", "get", "list", "watch", "delete", "deletecollection", "patch"),
            _rule("configmaps", "create", "get", "list", "watch", "delete", "deletecollection", "update", "patch"),
            _rule("persistentvolumeclaims", "list", "deletecollection"),
            _rule("services", "get", "list", "watch", "create", "delete", "deletecollection"),
        ],
    }
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": meta,
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": service_account or name, "namespace": namespace}],
    }
    return [role, binding] if service_account else [account, role, binding]


def _rule(resource: str, *verbs: str) -> dict[str, Any]:
    return {"apiGroups": [""], "resources": [resource], "verbs": list(verbs)}
