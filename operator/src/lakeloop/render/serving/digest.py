"""The ConfigMap with what a revision's servers check: the model against a digest, and the store against its CA."""

from typing import Any

from lakeloop.render.certificates import CA_KEY
from lakeloop.render.serving import names


def digest_config(
    namespace: str, deployment: str, uid: str, *, revision: str, digest: str | None, ca: str | None = None
) -> dict[str, Any]:
    """`digest` is `sha256:…`; None where it is not known yet, and the first server tells it. `ca`: PEM."""
    metadata = names.metadata(namespace, deployment, uid, names.revision_name(deployment, revision))
    metadata["labels"] |= {names.REVISION: revision}
    data = {"digest": digest or ""} | ({CA_KEY: ca} if ca else {})
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}
