"""Which of the models in a run is the run's."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from lakeloop_trainer.logged import _chosen


def model(name: str, number: int, status: str = "READY") -> Any:
    return SimpleNamespace(name=name, number=number, status=status)


@pytest.mark.parametrize(
    ("newest_first", "chosen"),
    [
        ([], None),
        ([model("b", 2), model("a", 1)], 2),
        ([model("b", 3), model("model", 2), model("model", 1)], 2),
        ([model("model", 2, "PENDING"), model("model", 1)], 1),
        ([model("b", 2, "FAILED")], None),
    ],
)
def test_the_model_of_a_run(newest_first: list[Any], chosen: int | None) -> None:
    found = _chosen(newest_first)
    assert (found.number if found is not None else None) == chosen
