"""Which images there are, what each is built from, and the tag that follows from it: pure but for reading files."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

PREFIX = "localhost/lakeloop"


@dataclass(frozen=True)
class Definition:
    """One image: the folder that is its build context (relative to the repository's root), and its base."""

    name: str
    context: str
    base: str  # a key of bases.BASES
    seconds: int  # what a cold build took on two cores, as a weight for "how long is left"

    @property
    def dockerfile(self) -> str:
        return f"images/{self.name}/Dockerfile"


DEFINITIONS: tuple[Definition, ...] = (
    Definition("minio", "images/minio", "debian", 150),
    Definition("postgres", "images/postgres", "debian", 60),
    Definition("mlflow", "images/mlflow", "python", 100),
    Definition("operator", "operator", "python", 60),
    Definition("model-server", "images/model-server", "python", 70),
    Definition("trainer", "images/trainer", "python", 330),
)


def present(root: Path) -> list[Definition]:
    """The images whose Dockerfile and context are there."""
    return [one for one in DEFINITIONS if (root / one.dockerfile).is_file() and (root / one.context).is_dir()]


def select(root: Path, names: Sequence[str]) -> list[Definition]:
    """Those with the given names, or all. Raises ValueError for an unknown name."""
    known = {one.name: one for one in present(root)}
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise ValueError(f"no such image: {', '.join(unknown)}; there are {', '.join(known)}")
    return [known[name] for name in names] if names else list(known.values())


def context_files(root: Path, definition: Definition) -> list[Path]:
    """The files that the build sees, relative to the context, sorted: all but those below a name in .dockerignore."""
    context = root / definition.context
    ignore = context / ".dockerignore"
    ignored = set(ignore.read_text().split()) if ignore.is_file() else set()
    return sorted(
        path.relative_to(context)
        for path in context.rglob("*")
        if path.is_file() and not ignored & set(path.relative_to(context).parts)
    )


def tag(parts: Iterable[tuple[str, bytes]]) -> str:
    """The first 12 hex digits of SHA-256 over names and contents."""
    digest = hashlib.sha256()
    for name, content in parts:
        digest.update(f"{name}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()[:12]


def reference(root: Path, definition: Definition, base: str) -> str:
    """``localhost/lakeloop/<name>:<tag>``: the same files on the same base have the same name."""
    context = root / definition.context
    parts = [("base", base.encode()), ("Dockerfile", (root / definition.dockerfile).read_bytes())]
    parts += [(str(path), (context / path).read_bytes()) for path in context_files(root, definition)]
    return f"{PREFIX}/{definition.name}:{tag(parts)}"
