"""The ConfigMap with the digest that a revision's servers check the model against."""

from typing import Any

from lakeloop.render.serving import names


def digest_config(namespace: str, deployment: str, uid: str, *, revision: str, digest: str | None) -> dict[str, Any]:
    """`digest` is `sha256:…`; None where it is not known yet, and the first server tells it."""
    metadata = names.metadata(namespace, deployment, uid, names.revision_name(deployment, revision))
    metadata["labels"] |= {names.REVISION: revision}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"digest": digest or ""}}
