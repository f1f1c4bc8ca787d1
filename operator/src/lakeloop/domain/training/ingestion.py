"""Which raw files a run loads. The manifest that fixes them is written before launch and never changed."""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

_WILDCARDS: Final = "*?["


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A raw file, as the store lists it."""

    uri: str
    etag: str
    size: int
    """Bytes."""


def manifest_folder(table: str, job_uid: str) -> str:
    """Where the manifests of a job's ingestions into a table lie; Delta and VACUUM leave `_lakeloop` alone."""
    return f"{table.rstrip('/')}/_lakeloop/ingest/{job_uid}/"


def manifest_uri(table: str, job_uid: str, run_uid: str) -> str:
    """Where a run's manifest lies."""
    return f"{manifest_folder(table, job_uid)}{run_uid}.json"


def run_uid_of(manifest: str) -> str | None:
    """The run whose manifest this is; None where the URI is no manifest's."""
    name = manifest.rpartition("/")[2]
    return name.removesuffix(".json") if name.endswith(".json") else None


def listing_prefix(pattern: str) -> str:
    """What all files that match begin with."""
    first = min((pattern.index(each) for each in _WILDCARDS if each in pattern), default=len(pattern))
    return pattern[:first]


def matching(pattern: str, files: Iterable[SourceFile]) -> list[SourceFile]:
    """The files that the pattern means, by URI. A pattern without wildcards is a file, or a folder with all in it.

    `*`, `?` and `[…]` match within a folder. Hidden files (`_…`, `.…`) are left out, as Spark does.
    """
    wanted = re.compile(_expression(pattern))
    return sorted(
        (each for each in files if wanted.fullmatch(each.uri) and not _hidden(each.uri)), key=lambda one: one.uri
    )


def _hidden(uri: str) -> bool:
    return uri.endswith("/") or uri.rpartition("/")[2].startswith(("_", "."))


def _expression(pattern: str) -> str:
    if not any(each in pattern for each in _WILDCARDS):
        return re.escape(pattern.rstrip("/")) + "(/[^/]*)?"
    parts: list[str] = []
    at = 0
    while at < len(pattern):
        char = pattern[at]
        closing = pattern.find("]", at + 2) if char == "[" else -1
        if char == "*":
            parts.append("[^/]*")
        elif char == "?":
            parts.append("[^/]")
        elif closing > 0:
            inner = pattern[at + 1 : closing]
            negated = inner.startswith(("!", "^"))
            body = re.sub(r"([\\\[\]^&~|])", r"\\\1", inner[1:] if negated else inner)
            parts.append(f"[{'^/' if negated else ''}{body}]")
            at = closing
        else:
            parts.append(re.escape(char))
        at += 1
    return "".join(parts)


def not_yet_ingested(
    files: Iterable[SourceFile], manifests: Mapping[str, Mapping[str, Any]], committed: Collection[str]
) -> list[SourceFile]:
    """Files that no earlier, committed ingestion of this job loaded. `manifests`: run uid → manifest."""
    loaded = {
        (entry["uri"], entry["etag"])
        for uid, manifest in manifests.items()
        if uid in committed
        for entry in manifest.get("files", ())
    }
    return [each for each in files if (each.uri, each.etag) not in loaded]


def manifest(run_uid: str, pattern: str, files: Iterable[SourceFile], base_version: int | None) -> dict[str, Any]:
    """The manifest's content."""
    return {
        "runUid": run_uid,
        "from": pattern,
        "baseVersion": base_version,
        "files": [{"uri": each.uri, "etag": each.etag, "size": each.size} for each in files],
    }
