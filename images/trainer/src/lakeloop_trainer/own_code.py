"""The user's own code as files of this machine: from a ConfigMap, from an archive or a folder in the object store.

It is copied to where it may be written to, and is the same for every attempt of a run: the first one leaves the code's
digest in MLflow, and a later one that finds other code fails.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from lakeloop_trainer import archives
from lakeloop_trainer.attempt import tracking_errors
from lakeloop_trainer.digest import model_digest
from lakeloop_trainer.failures import Context, RunFailure, classify

if TYPE_CHECKING:
    from lakeloop_trainer.storage import ObjectStore
    from lakeloop_trainer.tracking import Tracker

DIGEST_TAG = "lakeloop.io/code-files-digest"
"""Of the files. `lakeloop.io/code-digest` is the operator's, and is of what the spec says of the code."""
COMMIT_TAG = "mlflow.source.git.commit"
MAX_PACKED = 256 << 20
MAX_LOGGED_FILES = 500
MAX_LOGGED_BYTES = 32 << 20

log = logging.getLogger("lakeloop_trainer")


def from_config_map(mounted: Path, into: Path) -> None:
    """The ConfigMap's keys as files; an archive among them is unpacked beside the others."""
    keys = [path for path in sorted(mounted.iterdir()) if path.is_file() and not path.name.startswith("..")]
    for path in keys:
        if archives.is_archive(path.name):
            _unpacked(path, into, "spec.script.configMapRef")
        else:
            shutil.copyfile(path, into / path.name)


def from_object(store: ObjectStore, uri: str, into: Path, field: str, missing: str) -> None:
    """An archive, unpacked, or one file. ``missing``: the reason where there is no such object."""
    name = PurePosixPath(uri.rstrip("/")).name
    with_advice = f"{field}: {uri}"
    try:
        size = store.size(uri)
        if size is None:
            raise RunFailure(missing, f"{with_advice} is not there: upload it, or correct the address", field)
        if size > MAX_PACKED:
            raise _too_large(uri, field)
        content = store.read(uri)
    except Exception as error:
        raise classify(error, Context(f"Reading {uri}", "StorageUnavailable", field, False)) from error
    if not archives.is_archive(name):
        (into / name).write_bytes(content)
        return
    packed = into.parent / f"packed-{name}"
    packed.write_bytes(content)
    try:
        _unpacked(packed, into, field)
    finally:
        packed.unlink()


def from_folder(store: ObjectStore, uri: str, into: Path, field: str, missing: str) -> None:
    """Every file below a folder of the store."""
    try:
        found = list(store.files(uri))
        if not found:
            raise RunFailure(missing, f"{field}: there is no file below {uri}/", field)
        if sum(size for _, size in found) > MAX_PACKED or len(found) > archives.MAX_FILES:
            raise _too_large(uri, field)
        for name, _ in found:
            if ".." in PurePosixPath(name).parts or name.startswith("/"):
                raise RunFailure("CodeRefused", f"{field}: {uri} holds {name!r}, which leads out of it", field)
            target = into / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(store.read(f"{uri.rstrip('/')}/{name}"))
    except Exception as error:
        raise classify(error, Context(f"Reading {uri}", "StorageUnavailable", field, False)) from error


def _unpacked(archive: Path, into: Path, field: str) -> None:
    try:
        archives.unpack(archive, into)
    except archives.ArchiveRefused as error:
        name = archive.name.removeprefix("packed-")
        raise RunFailure("CodeRefused", f"{field}: {name} {error}", field) from error


def _too_large(uri: str, field: str) -> RunFailure:
    message = f"{field}: {uri} is larger than {MAX_PACKED >> 20} MiB or has too many files: pack the code alone"
    return RunFailure("CodeRefused", message, field)


def file_in(folder: Path, path: str, field: str, missing: str) -> Path:
    """The file of that relative path; raises RunFailure that names the files there are."""
    found = (folder / path).resolve()
    if found.is_file() and found.is_relative_to(folder.resolve()):
        return folder / path
    names = [each.relative_to(folder).as_posix() for each in sorted(folder.rglob("*")) if each.is_file()]
    there = ", ".join(names[:10]) or "no file at all"
    more = " …" if len(names) > 10 else ""
    raise RunFailure(missing, f"{field} is {path}, and there is {there}{more}", field)


def pin(tracker: Tracker, folder: Path, field: str) -> str:
    """The code's digest, which every attempt of the run shares; raises RunFailure (CodeChanged)."""
    digest = model_digest(folder)
    before = tracker.run_tags.get(DIGEST_TAG)
    if before is not None and before != digest:
        raise RunFailure(
            "CodeChanged",
            f"{field}: the code is not what an earlier attempt of this run had ({digest[:19]}…, then "
            f"{before[:19]}…): start a new run by the action lakeloop.io/run-now",
            field,
        )
    with tracking_errors("Logging the code's digest"):
        tracker.tags({DIGEST_TAG: digest})
    return digest


def artifacts(folder: Path) -> Mapping[str, Path]:
    """What of the code is logged with the run: all of it, unless it is very much."""
    files = {f"code/{path.relative_to(folder).as_posix()}": path for path in _source_files(folder)}
    if len(files) > MAX_LOGGED_FILES or sum(path.stat().st_size for path in files.values()) > MAX_LOGGED_BYTES:
        kept = {name: path for name, path in files.items() if path.suffix in (".py", ".yaml", ".yml", "")}
        log.warning("the code is large: of %d files only Python and YAML are logged", len(files))
        return dict(list(kept.items())[:MAX_LOGGED_FILES])
    return files


def _source_files(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_symlink()]
