"""Which events of a child are worth a pass over its owner."""

from typing import Any

import pytest

from lakeloop.handlers.children import is_news

MADE: dict[str, Any] = {"phase": "Pending", "qosClass": "Burstable"}


@pytest.mark.parametrize(
    ("event", "status", "news"),
    [
        pytest.param("ADDED", MADE, False, id="a pod that was made a moment ago"),
        pytest.param("ADDED", MADE | {"conditions": [{"type": "PodScheduled"}]}, True, id="scheduled already"),
        pytest.param("ADDED", {"phase": "Failed", "reason": "Evicted"}, True, id="refused by a node"),
        pytest.param(None, MADE, True, id="listed, after a restart"),
        pytest.param("MODIFIED", MADE, True, id="changed"),
        pytest.param("DELETED", MADE, True, id="gone before it was scheduled"),
        pytest.param("ADDED", {}, True, id="a Deployment"),
    ],
)
def test_news(event: str | None, status: dict[str, Any], news: bool) -> None:
    assert is_news(event, status) is news
