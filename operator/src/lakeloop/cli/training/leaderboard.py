"""The best models over jobs, from the registry's tags: pure."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from lakeloop.adapters.tracking_protocol import ModelVersion
from lakeloop.cli.training.records import METRIC, own_tags, tables_of
from lakeloop.cli.training.tables import Column, Row, number, span
from lakeloop.render.training.run_config import SMALLER_IS_BETTER

COLUMNS = (
    Column("RANK"),
    Column("MODEL", cut=True),
    Column("METRIC"),
    Column("ALIASES", drop=2, cut=True),
    Column("JOB", drop=3, cut=True),
    Column("RUN", drop=4),
    Column("TABLES", drop=1, cut=True),
    Column("AGE", drop=5),
)


@dataclass(frozen=True, slots=True)
class Place:
    """A model version with its metric."""

    version: ModelVersion
    value: float
    aliases: Sequence[str]

    @property
    def job(self) -> str:
        """`namespace/name`."""
        return own_tags(self.version.tags).get("training-job", "")


def metric_names(versions: Sequence[ModelVersion]) -> list[str]:
    """The metrics that versions were trained for, the most frequent first."""
    counts = Counter(key.removeprefix(METRIC) for each in versions for key in each.tags if key.startswith(METRIC))
    return [name for name, _ in sorted(counts.items(), key=lambda each: (-each[1], each[0]))]


def smaller_is_better(metric: str) -> bool:
    """Whether the best value of a metric that Lakeloop knows is the smallest; others are taken for scores."""
    return metric.removeprefix("test_").removeprefix("train_") in SMALLER_IS_BETTER


def ranked(
    versions: Sequence[ModelVersion],
    aliases: Mapping[tuple[str, int], Sequence[str]],
    metric: str,
    *,
    minimize: bool,
    namespace: str | None = None,
) -> list[Place]:
    """The versions that have the metric, the best first, the newer first among equals; what is no number comes last."""
    places = [
        Place(each, value, aliases.get((each.name, each.version), ()))
        for each in versions
        if (value := _value(each.tags.get(f"{METRIC}{metric}"))) is not None
        and (namespace is None or own_tags(each.tags).get("training-job", "").startswith(f"{namespace}/"))
    ]
    sign = 1 if minimize else -1
    return sorted(
        places,
        key=lambda each: (
            math.isnan(each.value),
            0.0 if math.isnan(each.value) else sign * each.value,
            -each.version.created_ms,
        ),
    )


def _value(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None


def rows(places: Sequence[Place], now: datetime) -> list[Row]:
    """Cells of the table."""
    return [
        {
            "RANK": str(index),
            "MODEL": f"{each.version.name}/{each.version.version}",
            "METRIC": number(each.value),
            "ALIASES": ",".join(each.aliases),
            "JOB": each.job,
            "RUN": own_tags(each.version.tags).get("run", ""),
            "TABLES": ",".join(f"{table.name}@{table.version}" for table in tables_of(each.version.tags)),
            "AGE": span(now.timestamp() - each.version.created_ms / 1000),
        }
        for index, each in enumerate(places, 1)
    ]


def document(place: Place, metric: str, rank: int) -> dict[str, Any]:
    """As `-o json` prints it."""
    tags = own_tags(place.version.tags)
    run = tags.get("run", "")
    return {
        "rank": rank,
        "model": place.version.name,
        "version": place.version.version,
        # JSON has no word for what is no number.
        "metric": {"name": metric, "value": None if math.isnan(place.value) else place.value},
        "aliases": list(place.aliases),
        "job": place.job,
        "run": int(run) if run.isdecimal() else None,
        "inputs": [{"name": t.name, "uri": t.uri, "version": t.version} for t in tables_of(place.version.tags)],
        "digest": tags.get("digest"),
        "created": datetime.fromtimestamp(place.version.created_ms / 1000, UTC).isoformat(timespec="seconds"),
    }
