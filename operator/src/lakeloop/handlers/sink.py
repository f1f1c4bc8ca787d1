"""Where handlers put what they heard of: keys, and nothing of what the event said."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from lakeloop.reconcile.protocol import Key

OWNERS: Final[Mapping[str, str]] = {
    "lakeloop.io/training-job": "TrainingJob",
    "lakeloop.io/model-deployment": "ModelDeployment",
}
"""Label of a child → kind of the object that it is of."""

Enqueue = Callable[[Key], None]


def owner_of(namespace: str, labels: Mapping[str, Any]) -> Key | None:
    """The object that a child is of; None where its labels name none."""
    for label, kind in OWNERS.items():
        if name := labels.get(label):
            return Key(kind, namespace, str(name))
    return None
