"""The digest of a model's folder, as the operator, the trainer and the server compute it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

# MLflow writes it into a downloaded copy; it is no part of the model
NOT_PART_OF_MODEL = frozenset({"registered_model_meta"})


def digest_of(files: Mapping[str, str]) -> str:
    """`sha256:` + hex SHA-256 over the lines `<path>\\0<hex sha256>\\n`, sorted by relative POSIX path.

    `files` maps each relative path to the hex SHA-256 of the file's bytes.
    """
    total = hashlib.sha256()
    for path in sorted(files):
        if path.rpartition("/")[2] not in NOT_PART_OF_MODEL:
            total.update(f"{path}\0{files[path]}\n".encode())
    return f"sha256:{total.hexdigest()}"


def hash_file(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_folder(folder: Path) -> dict[str, str]:
    """Relative POSIX path → hex SHA-256, for every file below `folder`."""
    return {
        path.relative_to(folder).as_posix(): hash_file(path) for path in sorted(folder.rglob("*")) if path.is_file()
    }
