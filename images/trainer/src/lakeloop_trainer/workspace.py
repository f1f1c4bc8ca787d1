"""Where a run may put files that are larger than a few: the emptyDir `/work` of its pod."""

from __future__ import annotations

import os
import tempfile
from functools import cache
from pathlib import Path

WORK = Path("/work")
VARIABLE = "LAKELOOP_WORK_DIR"


def folder(name: str) -> Path:
    """A folder of that name, made if it is not there; the same one throughout this process."""
    found = _root() / name
    found.mkdir(parents=True, exist_ok=True)
    return found


@cache
def _root() -> Path:
    if given := os.environ.get(VARIABLE):
        return Path(given)
    if WORK.is_dir() and os.access(WORK, os.W_OK):
        return WORK / "lakeloop"
    return Path(tempfile.mkdtemp(prefix="lakeloop-work-"))
