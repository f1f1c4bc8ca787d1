"""The digest that ties a registered model version to its files."""

from __future__ import annotations

import hashlib
from pathlib import Path

LEFT_OUT = frozenset({"registered_model_meta"})
"""Written by MLflow beside the model at registration or download; no part of the model."""


def model_digest(folder: Path) -> str:
    """``sha256:`` and the hex SHA-256 over the model's files.

    For every file below ``folder``, sorted by relative POSIX path, the line ``<path>\\0<hex sha256 of the file>\\n``.
    """
    total = hashlib.sha256()
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    for name in sorted(files):
        if files[name].name in LEFT_OUT:
            continue
        with files[name].open("rb") as stream:
            of_file = hashlib.file_digest(stream, "sha256").hexdigest()
        total.update(f"{name}\0{of_file}\n".encode())
    return f"sha256:{total.hexdigest()}"
