"""What a Delta log tells of the files that an old version still needs and VACUUM may take. Pure.

A file that a commit removes stays where it is until VACUUM finds the removal older than the table's retention
(Delta protocol, "Add File and Remove File"; table property `delta.deletedFileRetentionDuration`).
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from urllib.parse import unquote

PROPERTY: Final = "delta.deletedFileRetentionDuration"
DEFAULT_RETENTION: Final = timedelta(days=7)
_PART = re.compile(r"(\d+)\s+(week|day|hour|minute|second)s?", re.IGNORECASE)
_UNITS: Final = {"week": 604800, "day": 86400, "hour": 3600, "minute": 60, "second": 1}
_LONGEST: Final = timedelta(days=365_000)


@dataclass(frozen=True, slots=True)
class Removal:
    """The first commit after a version that removed files of it."""

    version: int
    at: datetime
    paths: Sequence[str]
    """As the log has them, decoded: relative to the table, or whole URIs."""


def actions(commit: bytes) -> list[Mapping[str, Any]]:
    """The actions of a commit file. Raises ValueError where it is none."""
    found = [json.loads(line) for line in commit.splitlines() if line.strip()]
    if not all(isinstance(each, Mapping) for each in found):
        raise ValueError("not a list of actions")
    return found


class Removals:
    """Looks for the first removal, commit by commit, in the order of their versions."""

    def __init__(self) -> None:
        self._added: set[str] = set()

    def look(self, version: int, committed: datetime, found: Iterable[Mapping[str, Any]]) -> Removal | None:
        """What this commit removes of the files that were there at first.

        A file that a commit removes and adds has a new deletion vector, and stays.
        """
        found = list(found)
        added = {str(each["add"]["path"]) for each in found if isinstance(each.get("add"), Mapping)}
        gone = [
            each["remove"]
            for each in found
            if isinstance(each.get("remove"), Mapping) and str(each["remove"]["path"]) not in self._added | added
        ]
        self._added |= added
        if not gone:
            return None
        times = [int(each["deletionTimestamp"]) for each in gone if each.get("deletionTimestamp")]
        at = datetime.fromtimestamp(min(times) / 1000, UTC) if times else committed
        return Removal(version, at, [unquote(str(each["path"])) for each in gone])


def configuration(found: Iterable[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The table's properties, where a commit's actions set them."""
    for each in found:
        if isinstance(each.get("metaData"), Mapping):
            properties = each["metaData"].get("configuration")
            return properties if isinstance(properties, Mapping) else {}
    return None


def retention(properties: Mapping[str, Any]) -> timedelta:
    """How long VACUUM leaves a removed file alone."""
    written = str(properties.get(PROPERTY, ""))
    parts = _PART.findall(written)
    if not parts:
        return DEFAULT_RETENTION
    seconds = sum(int(number) * _UNITS[unit.lower()] for number, unit in parts)
    return min(timedelta(seconds=min(seconds, int(_LONGEST.total_seconds()))), _LONGEST)
