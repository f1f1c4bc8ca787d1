"""Which events of a TrainingJob are worth a pass over it."""

from collections.abc import Mapping
from typing import Any

import kopf
import pytest

from lakeloop.handlers import trainingjob
from lakeloop.reconcile.protocol import Key


@pytest.mark.parametrize(
    ("event", "version", "news"),
    [
        pytest.param("MODIFIED", "7", False, id="as the operator wrote it"),
        pytest.param("MODIFIED", "8", True, id="changed by somebody else"),
        pytest.param("DELETED", "7", True, id="gone"),
        pytest.param("ADDED", "7", True, id="new"),
        pytest.param(None, "7", True, id="listed, after a restart of the watch"),
    ],
)
async def test_news(event: str | None, version: str, news: bool) -> None:
    heard: list[Key] = []

    def wrote(metadata: Mapping[str, Any]) -> bool:
        return bool(metadata["resourceVersion"] == "7")

    registry = kopf.OperatorRegistry()
    trainingjob.register(registry, heard.append, wrote)
    [handler] = registry._watching.get_all_handlers()
    meta = {"resourceVersion": version}
    await handler.fn(type=event, namespace="team-a", name="churn", meta=meta)  # type: ignore[call-arg]
    assert heard == [Key("TrainingJob", "team-a", "churn")] * news
