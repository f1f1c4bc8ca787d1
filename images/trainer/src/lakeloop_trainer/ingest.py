"""Raw files into a Delta table, in one commit that a retry cannot make twice.

The operator pinned the files with their etags in a manifest. The commit carries the run's uid as Delta's
``txnAppId``, so the table's log itself tells whether it was made, and in which version.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from lakeloop_trainer import merge
from lakeloop_trainer.failures import Context, RunFailure, classify
from lakeloop_trainer.run_spec import Ingest, Input
from lakeloop_trainer.storage import ObjectStore, as_spark_path, version_of_transaction

TXN_VERSION = 1
ONE_FILE_BYTES = 128 << 20
"""Raw bytes up to which the commit adds one file: many small files are slow to read ever after."""
COMMIT_TRIES = 4

# What Spark's readers would do unless told: load a record that they cannot read as a row of NULLs, take the columns of
# the second CSV file for those of the first whatever its header says, and a doubled quote for two.
DEFAULT_OPTIONS: Mapping[str, Mapping[str, str]] = {
    "json": {"mode": "FAILFAST"},
    "csv": {"header": "true", "inferSchema": "true", "mode": "FAILFAST", "enforceSchema": "false", "escape": '"'},
}

# Widening or checked casts from what a JSON or CSV reader infers to what the table has.
_CASTS = {
    "bigint": {"tinyint", "smallint", "int", "float", "double", "decimal"},
    "smallint": {"int", "bigint", "float", "double"},
    "tinyint": {"smallint", "int", "bigint", "float", "double"},
    "float": {"double"},
    "int": {"tinyint", "smallint", "bigint", "float", "double", "decimal"},
    "double": {"float", "decimal"},
    "string": {"date", "timestamp", "timestamp_ntz"},
    "date": {"timestamp", "timestamp_ntz"},
    "timestamp": {"timestamp_ntz"},
}

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Manifest:
    """The files that the operator pinned for one ingestion."""

    files: tuple[tuple[str, str], ...]
    """(uri, etag) of each."""
    total_bytes: int


def parse_manifest(raw: bytes, run_uid: str, field: str) -> Manifest:
    """The manifest's files; raises RunFailure (InvalidConf) where it is not this run's."""
    try:
        document = json.loads(raw)
        if document["runUid"] != run_uid:
            raise RunFailure("InvalidConf", f"The ingestion manifest is that of run {document['runUid']}", field)
        files = tuple((str(item["uri"]), str(item["etag"]).strip('"')) for item in document["files"])
        return Manifest(files, sum(int(item.get("size", 0)) for item in document["files"]))
    except (ValueError, KeyError, TypeError) as error:
        raise RunFailure("InvalidConf", f"The ingestion manifest cannot be read: {error!r}", field) from error


@dataclass(frozen=True)
class Prepared:
    """What there is to do for one ingestion."""

    version: int | None
    """The version to read where the load is already done, or there is nothing to load."""
    manifest: Manifest | None


def prepare(item: Input, run_uid: str, store: ObjectStore) -> Prepared:
    """Finds out, without Spark, whether the files still are to be loaded and are still those that were pinned."""
    ingest = _of(item)
    field = f"{item.path}.ingest"
    if ingest.committed_version is not None:
        return Prepared(ingest.committed_version, None)
    committed = version_of_transaction(store, item.uri, run_uid, ingest.base_version)
    if committed is not None:
        log.info("%s: an earlier attempt of this run committed version %d", item.name, committed)
        return Prepared(committed, None)
    if ingest.manifest is None:
        raise RunFailure("InvalidConf", f"{field} has no manifest in the run spec", field)
    manifest = parse_manifest(store.read(ingest.manifest), run_uid, field)
    if not manifest.files:
        if ingest.base_version is None:
            raise RunFailure(
                "EmptyTable", f"{field}.from matches no file, and there is no table at {item.uri} yet", f"{field}.from"
            )
        return Prepared(ingest.base_version, None)
    check_etags(manifest, store, field)
    return Prepared(None, manifest)


def check_etags(manifest: Manifest, store: ObjectStore, field: str) -> None:
    """Raises RunFailure (SourceChanged) where a file is gone or is no longer the one that was pinned."""
    with ThreadPoolExecutor(max_workers=16) as pool:
        now = list(pool.map(lambda entry: store.etag(entry[0]), manifest.files))
    for (uri, pinned), etag in zip(manifest.files, now, strict=True):
        if etag != pinned:
            what = "is gone" if etag is None else "was replaced"
            raise RunFailure(
                "SourceChanged",
                f"{uri} {what} since the run was pinned; start a new run (annotation lakeloop.io/run-now)",
                f"{field}.from",
            )


def load(spark: Any, item: Input, manifest: Manifest, run_uid: str, job: str, store: ObjectStore) -> int:
    """Loads the manifest's files and returns the version that the commit made.

    Raises:
        RunFailure: IngestFailed, SchemaMismatch, or what the store or Spark say.
    """
    ingest = _of(item)
    differences: list[str] = []
    doing = f"Loading {len(manifest.files)} file(s) into {item.uri}"
    context = Context(doing, "IngestFailed", f"{item.path}.ingest")
    try:
        rows = read_raw(spark, ingest, [uri for uri, _ in manifest.files])
        if not rows.columns:
            raise RunFailure("IngestFailed", f"{doing} failed: the files hold no columns", f"{item.path}.ingest.from")
        if ingest.mode == "Merge":
            merge.check_names(ingest.keys, rows.columns, "the files", item.path)
        if ingest.mode != "Overwrite" and ingest.base_version is not None:
            table = spark.read.format("delta").load(as_spark_path(item.uri))
            rows = conform(rows, dict(rows.dtypes), dict(table.dtypes))
            differences = differing(dict(rows.dtypes), dict(table.dtypes))
            if ingest.mode == "Merge":
                merge.check_names(ingest.keys, table.columns, "the table's rows", item.path)
                if differences:  # MERGE would leave such a column out, or cast what Append does not
                    raise RunFailure("SchemaMismatch", f"{doing} failed: {', '.join(differences[:10])}", context.field)
        if ingest.mode == "Merge":
            rows = merge.unique(rows, ingest.keys, item.path)
        if manifest.total_bytes <= ONE_FILE_BYTES:
            rows = rows.coalesce(1)
        _commit(spark, rows, item, ingest, run_uid, job)
    except Exception as error:
        failure = unreadable(error, doing, item) or classify(error, context)
        if failure.reason == "SchemaMismatch" and differences:  # Delta's words are of one of them, and blanked
            failure = RunFailure(failure.reason, f"{doing} failed: {', '.join(differences[:10])}", failure.field)
        raise failure from error
    version = version_of_transaction(store, item.uri, run_uid, ingest.base_version)
    if version is None:
        raise RunFailure("IngestFailed", f"{doing}: the commit is not in the table's log", f"{item.path}.ingest")
    return version


def unreadable(error: BaseException, doing: str, item: Input) -> RunFailure | None:
    """The failure of a record that is not of the format; Spark's own words quote it, and rows are not for messages."""
    text = str(error)
    if "MALFORMED_RECORD" not in text and "malformed records" not in text.lower():
        return None
    named = re.search(r"reading file (\S+?)\.? ", text)
    where = f" in {named.group(1)}" if named else ""
    several = '{multiLine: "true"} reads records that span lines, ' if _of(item).format == "json" else ""
    return RunFailure(
        "IngestFailed",
        f"{doing} failed: there is a malformed record{where}. Of {item.path}.ingest.options, {several}"
        "{mode: DROPMALFORMED} leaves such records out",
        f"{item.path}.ingest",
    )


def read_raw(spark: Any, ingest: Ingest, uris: Sequence[str]) -> Any:
    """The raw files as a DataFrame, by `DEFAULT_OPTIONS` unless the options say otherwise."""
    options = {**DEFAULT_OPTIONS.get(ingest.format, {})}
    for key, value in ingest.options.items():  # to Spark their case is all one
        options = {name: default for name, default in options.items() if name.lower() != key.lower()} | {key: value}
    # a name is a name: without this Spark would take [, {, * and ? in it for patterns
    paths = [_literal_path(as_spark_path(uri)) for uri in uris]
    return spark.read.format(ingest.format).options(**options).load(paths)


def conform(rows: Any, found: Mapping[str, str], wanted: Mapping[str, str]) -> Any:
    """Casts columns to the table's types where that is a matter of width only; the rest is Delta's to refuse."""
    by_lower = {name.lower(): (name, type_name) for name, type_name in wanted.items()}
    casts = {}
    for name, type_name in found.items():
        target = by_lower.get(name.lower())
        if target and target[1] != type_name and target[1].split("(")[0] in _CASTS.get(type_name, ()):
            casts[name] = rows[name].cast(target[1])
    return rows.withColumns(casts) if casts else rows


def differing(found: Mapping[str, str], wanted: Mapping[str, str]) -> list[str]:
    """In which columns the files are not what the table is, in words."""
    by_lower = {name.lower(): type_name for name, type_name in wanted.items()}
    return [
        f"column {name} is {type_name} in the files and {by_lower[name.lower()]} in the table"
        if name.lower() in by_lower
        else f"column {name} is not in the table"
        for name, type_name in found.items()
        if by_lower.get(name.lower()) != type_name
    ]


def commit_options(run_uid: str, job: str) -> dict[str, str]:
    """Delta's write options that make the commit idempotent and say whose it is."""
    return {
        "txnAppId": run_uid,
        "txnVersion": str(TXN_VERSION),
        "userMetadata": json.dumps({"lakeloop": {"runUid": run_uid, "job": job}}),
    }


def _commit(spark: Any, rows: Any, item: Input, ingest: Ingest, run_uid: str, job: str) -> None:
    options = commit_options(run_uid, job)
    modes = {"Append": "append", "Overwrite": "overwrite", "Merge": "errorifexists"}
    writer = rows.write.format("delta").options(**options).mode(modes[ingest.mode])
    if ingest.mode == "Overwrite":
        writer = writer.option("overwriteSchema", "true")
    exists = ingest.base_version is not None
    for attempt in range(1, COMMIT_TRIES + 1):
        try:
            if ingest.mode == "Merge" and exists:
                merge.commit(spark, rows, item, ingest.keys, options)
            else:
                writer.save(as_spark_path(item.uri))
            return
        except Exception as error:
            # two writers that create one table at once: the loser sees its protocol change. The transaction id makes
            # a second try safe even where the first one landed.
            if attempt == COMMIT_TRIES or not is_conflict(error):
                raise
            log.warning("%s: another writer was first, trying again (%d)", item.name, attempt)
            exists = True


def is_conflict(error: BaseException) -> bool:
    """Whether a commit lost against a concurrent one, so that trying again can help."""
    text = f"{type(error).__name__} {error}"
    return any(
        mark in text
        for mark in (
            "DELTA_CONCURRENT",
            "DELTA_PROTOCOL_CHANGED",
            "DELTA_METADATA_CHANGED",
            "ConcurrentModification",
            "DELTA_PATH_EXISTS",
        )
    )


def _literal_path(path: str) -> str:
    return "".join(f"\\{char}" if char in "[]{}*?\\" else char for char in path)


def _of(item: Input) -> Ingest:
    if item.ingest is None:
        raise ValueError(f"{item.name} has nothing to ingest")
    return item.ingest
