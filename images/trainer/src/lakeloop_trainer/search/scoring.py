"""One fold of one trial of a scikit-learn pipeline. Runs in a worker: a process of the driver's, or an executor's."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lakeloop_trainer.failures import RunFailure, exception_line, scrub
from lakeloop_trainer.run_spec import SearchParameter, Step


@dataclass(frozen=True)
class Folds:
    """The training rows, the pipeline, and the dimensions: what every trial needs."""

    features: Any
    target: Any
    rows: Sequence[tuple[Any, Any]]
    """Row numbers to fit on and to score, of each fold."""
    steps: Sequence[Step]
    parameters: Sequence[SearchParameter]
    threads: int
    """For linear algebra and OpenMP, so that trials beside one another do not fight for the processors."""

    def score(self, params: Mapping[str, Any], fold: int) -> dict[str, float]:
        """Fits on the fold's rows and gives the metrics of the others; raises what the pipeline raises."""
        from threadpoolctl import threadpool_limits

        from lakeloop_trainer import metrics
        from lakeloop_trainer.search.sklearn_space import with_params

        fit, held_out = self.rows[fold]
        with threadpool_limits(self.threads), warnings.catch_warnings(action="ignore"):
            _, pipeline = with_params(self.steps, self.parameters, params)
            pipeline.fit(self.features.iloc[fit], self.target.iloc[fit])
            scored = metrics.score(pipeline, self.features.iloc[held_out], self.target.iloc[held_out])
        return scored.metrics


def outcome(folds: Folds, params: Mapping[str, Any], fold: int) -> tuple[dict[str, float] | None, str]:
    """The metrics, or None and what was raised: an exception itself may not survive the way back."""
    try:
        return folds.score(params, fold), ""
    except RunFailure as failure:
        return None, failure.message
    except MemoryError:
        return None, "it ran out of memory"
    except Exception as error:
        # the text can quote values of rows: only what stands outside of quotes is told
        return None, scrub(re.sub(r"'[^'\n]*'", "'…'", exception_line(error)))
