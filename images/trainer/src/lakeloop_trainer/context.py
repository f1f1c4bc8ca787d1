"""What the user's own code is given: the session with the pinned inputs as views, and the spec's parts as written.

In the driver's process the driver sets it. In a child process (an MLflow project) it is made on first use, from the run
spec that the driver names in the environment, and Spark is started then.
"""

from __future__ import annotations

import atexit
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lakeloop_trainer import run_spec
from lakeloop_trainer import split as splitting
from lakeloop_trainer.failures import RunFailure
from lakeloop_trainer.run_spec import RunSpec

VERSIONS = "LAKELOOP_INPUT_VERSIONS"
"""JSON, input → version: what the driver pinned or made before it started the child."""


class RunContext:
    """One run, as the user's own code sees it."""

    def __init__(self, spec: RunSpec, versions: Mapping[str, int], open_session: Callable[[], Any]) -> None:
        self.spec = spec
        self.versions = dict(versions)
        self._open = open_session
        self._session: Any = None

    @property
    def spark(self) -> Any:
        """The run's session; each input is a temporary view of its name."""
        if self._session is None:
            self._session = self._open()
        return self._session

    @property
    def parameters(self) -> Mapping[str, Any]:
        return dict(self.spec.project.parameters) if self.spec.project else {}

    @property
    def args(self) -> Sequence[str]:
        return self.spec.script.args if self.spec.script else ()

    def rows(self, *, test: bool) -> Any:
        """One side of the split of spec.dataset, as a Spark DataFrame: features, then the target where there is one."""
        from lakeloop_trainer.dataset import open_rows

        dataset = self.spec.dataset
        if dataset.split.column is not None and not dataset.target:
            field = "spec.dataset.target"
            raise RunFailure("InvalidConf", f"{field} is needed to split by time: only rows with a target count", field)
        result = open_rows(self.spark, dataset, self.spec.inputs)
        found = dict(result.dtypes)
        features, target = _columns(self.spec, found)
        side = self._side(result, found, features, target)
        wanted = result.where(side if test else f"NOT ({side})")
        if target:
            name = splitting.quoted(target)
            nan = f" AND NOT isnan({name})" if found[target] in ("float", "double") else ""
            wanted = wanted.where(f"{name} IS NOT NULL{nan}")
        return wanted.select(*[splitting.quoted(name) for name in [*features, *([target] if target else [])]])

    def _side(self, rows: Any, found: Mapping[str, str], features: Sequence[str], target: str | None) -> str:
        """Spark SQL that is true of a test row."""
        split = self.spec.dataset.split
        if split.column is not None and target:
            from lakeloop_trainer import time_split

            return time_split.find(rows, split.column, found[split.column], target, split.test_fraction).expression
        columns = splitting.hash_columns(split.keys, features, target or "")
        return splitting.side_expression(found, [c for c in columns if c], split.seed, split.test_fraction)


def _columns(spec: RunSpec, found: Mapping[str, str]) -> tuple[list[str], str | None]:
    dataset = spec.dataset
    target, keys = dataset.target or None, dataset.split.keys
    wanted = {"spec.dataset.target": target}
    wanted |= {f"spec.dataset.split.keys[{i}]": name for i, name in enumerate(keys)}
    wanted |= {f"spec.dataset.features[{i}]": name for i, name in enumerate(dataset.features or ())}
    wanted["spec.dataset.split.column"] = dataset.split.column
    for field, name in wanted.items():
        if name is not None and name not in found:
            there = ", ".join(list(found)[:20])
            raise RunFailure("ColumnNotFound", f"{field}: the data has no column {name}; there are {there}", field)
    if dataset.features is not None:
        return list(dataset.features), target
    return [name for name in found if name not in (target, dataset.split.column) and name not in keys], target


_current: RunContext | None = None


def provide(context: RunContext) -> None:
    """Makes it the context of this process."""
    global _current
    _current = context


def current() -> RunContext:
    """The context of this process; raises RuntimeError outside of a run."""
    global _current
    if _current is None:
        _current = _of_environment(os.environ)
    return _current


def _of_environment(environ: Mapping[str, str]) -> RunContext:
    path = environ.get("LAKELOOP_RUN_FILE")
    if not path or VERSIONS not in environ:
        raise RuntimeError("lakeloop_run works inside of a run of a TrainingJob; there is none here")
    spec = run_spec.load(Path(path))
    versions = {str(name): int(version) for name, version in json.loads(environ[VERSIONS]).items()}

    def open_session() -> Any:
        from lakeloop_trainer import dataset
        from lakeloop_trainer.session import Jvm, Session
        from lakeloop_trainer.spark_conf import driver_conf, parse_properties

        folder = Path(path).parent
        properties, template = folder / "spark.properties", folder / "executor.yaml"
        jvm = Jvm(
            driver_conf(
                parse_properties(properties.read_text()) if properties.is_file() else {},
                environ,
                f"{spec.job}-{spec.number}",
                str(template) if template.is_file() else None,
            )
        )
        atexit.register(jvm.stop)
        spark = Session(jvm).get()
        dataset.register_views(spark, spec.inputs, versions)
        return spark

    return RunContext(spec, versions, open_session)
