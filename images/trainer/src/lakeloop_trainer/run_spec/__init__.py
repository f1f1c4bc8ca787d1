"""The run spec: what the operator resolved for one run (``/etc/lakeloop/run.json``).

The file's shape is fixed in docs/design/2026-11-24-contracts-between-the-parts.md.
"""

from lakeloop_trainer.run_spec.parsing import load, parse
from lakeloop_trainer.run_spec.types import (
    SCRIPT_FOLDER,
    Champion,
    Dataset,
    Estimator,
    Expectation,
    Explanation,
    Ingest,
    Input,
    Objective,
    Project,
    RunSpec,
    Script,
    Search,
    SearchParameter,
    Split,
    Step,
)

__all__ = [
    "SCRIPT_FOLDER",
    "Champion",
    "Dataset",
    "Estimator",
    "Expectation",
    "Explanation",
    "Ingest",
    "Input",
    "Objective",
    "Project",
    "RunSpec",
    "Script",
    "Search",
    "SearchParameter",
    "Split",
    "Step",
    "load",
    "parse",
]
