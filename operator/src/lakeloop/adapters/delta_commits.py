"""What a commit of a Delta log did to the table's rows (Delta protocol, "Actions", "Commit Provenance Information")."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from lakeloop.adapters.delta_log_protocol import Commit

LARGEST_BYTES: Final = 8 * 1024 * 1024
"""Of a commit that is read; a larger one is taken for new rows, an unknown number of them."""
MAINTENANCE: Final = frozenset(
    {
        "OPTIMIZE",
        "REORG",
        "VACUUM START",
        "VACUUM END",
        "FSCK",
        "SET TBLPROPERTIES",
        "UNSET TBLPROPERTIES",
        "COMPUTE STATS",
        "CLUSTER BY",
        "ADD CONSTRAINT",
        "DROP CONSTRAINT",
        "UPGRADE PROTOCOL",
        "CHANGE COLUMN",
        "RENAME COLUMN",
    }
)
"""Operations that change how rows are kept. None of them should say that data changes; some writers do."""
_CHANGED_ROWS: Final[Mapping[str, tuple[str, ...]]] = {
    "MERGE": ("numTargetRowsInserted", "numTargetRowsUpdated"),
    "UPDATE": ("numUpdatedRows",),
    "DELETE": (),
}
"""These write files anew with rows that they did not touch: what they count themselves is told instead."""


def commit_of(version: int, time: datetime, content: bytes | None) -> Commit:
    """What the commit did. One that cannot be read counts: nothing that may be new is missed."""
    try:
        info: Mapping[str, Any] = {}
        added: list[int | None] = []
        removed, actions = False, 0
        for line in (content or b"").splitlines():
            if not line.strip():
                continue
            action = json.loads(line)
            actions += 1
            info = action.get("commitInfo") or info
            add, remove = action.get("add"), action.get("remove")
            if add is not None and add.get("dataChange", True):
                added.append(_whole(_stats(add).get("numRecords")))
            removed = removed or (remove is not None and remove.get("dataChange", True))
        if not actions:
            return Commit(version, time, counts=True, rows=None)
        operation = str(info.get("operation") or "").upper()
        if not (added or removed) or operation in MAINTENANCE or _own(info):
            return Commit(version, time, counts=False)
        return Commit(version, time, counts=True, rows=_rows(operation, info, added))
    except (ValueError, TypeError, AttributeError, RecursionError):
        return Commit(version, time, counts=True, rows=None)


def _own(info: Mapping[str, Any]) -> bool:
    """Whether Lakeloop's ingestion made it; see the contracts."""
    told = info.get("userMetadata")
    try:
        document = json.loads(told) if isinstance(told, str) else told
    except (ValueError, RecursionError):
        return False
    mark = document.get("lakeloop") if isinstance(document, dict) else None
    return isinstance(mark, dict) and bool(mark.get("runUid"))


def _rows(operation: str, info: Mapping[str, Any], added: Sequence[int | None]) -> int | None:
    metrics = info.get("operationMetrics")
    counts = {_plain(key): value for key, value in metrics.items()} if isinstance(metrics, dict) else {}
    if operation in _CHANGED_ROWS:
        found = [_whole(counts.get(_plain(name))) for name in _CHANGED_ROWS[operation]]
        return sum(each or 0 for each in found) if found == [] or any(each is not None for each in found) else None
    if all(each is not None for each in added):
        return sum(each or 0 for each in added)
    return _whole(counts.get(_plain("numOutputRows")))


def _stats(add: Mapping[str, Any]) -> Mapping[str, Any]:
    try:
        found = json.loads(add.get("stats") or "{}")
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _plain(name: str) -> str:
    """Spark writes `numOutputRows`, delta-rs `num_output_rows`."""
    return name.replace("_", "").lower()


def _whole(value: Any) -> int | None:
    try:
        number = int(value)
    except (ValueError, TypeError, OverflowError):
        return None
    return min(number, 2**53) if number >= 0 else None
