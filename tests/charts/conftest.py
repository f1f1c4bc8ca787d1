"""Helm, as the tests of the charts run it."""

import pytest
from charts.rendering import helm_executable


@pytest.fixture(scope="session")
def helm() -> str:
    """Helm's path."""
    return helm_executable()
