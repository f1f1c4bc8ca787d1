"""Tests of the images: the pure ones always; those of built images only where they are asked for (`-m images`)."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "images: needs root and the built images (`localcluster images build`)")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "images" in (config.option.markexpr or ""):
        return
    built = [item for item in items if item.get_closest_marker("images")]
    if built:
        config.hook.pytest_deselected(items=built)
        items[:] = [item for item in items if item not in built]


@pytest.fixture
def root() -> Path:
    """The checkout."""
    return ROOT
