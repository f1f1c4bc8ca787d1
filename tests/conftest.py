"""What all tests share. Run in several environments, so that it imports nothing but pytest and hypothesis."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

# An example that takes long says that the machine is busy.
settings.register_profile("lakeloop", deadline=None)
settings.load_profile("lakeloop")
GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture
def golden() -> Callable[[str, str], None]:
    """`golden("driver/minimal.yaml", text)` compares with the committed file; `make update-golden` rewrites it."""

    def compare(name: str, content: str) -> None:
        path = GOLDEN / name
        if os.environ.get("UPDATE_GOLDEN"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content, encoding="utf-8")
        assert path.is_file(), f"there is no {path}: write it with `make update-golden` and read it before committing"
        assert content == path.read_text(encoding="utf-8"), (
            f"not what {path} says; `make update-golden` if it should be"
        )

    return compare
