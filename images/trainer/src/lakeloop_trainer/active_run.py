"""MLflow's fluent API for the user's own code in this process: inside the run that the operator made."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def inside(run_id: str) -> Iterator[None]:
    """Makes the run the active one.

    `mlflow.start_run()` in the code, the most common first line of a training script, gives this run again, whether it
    is active or was ended; a run of the code's own is one with ``nested=True``. What the code leaves open below is
    ended; the run itself stays as it is, for the operator to end.
    """
    import mlflow
    from mlflow.tracking import fluent

    original = fluent.start_run
    # else the first nested run would be this one, resumed
    os.environ.pop("MLFLOW_RUN_ID", None)

    def start_run(run_id_: str | None = None, *arguments: Any, **options: Any) -> Any:
        wanted = options.pop("run_id", None) or run_id_
        if options.get("nested") or wanted not in (None, run_id):
            return original(wanted, *arguments, **options)
        active = mlflow.active_run()
        if active is None:
            fluent._active_experiment_id = None  # MLflow resumes no run of another experiment
            active = original(run_id=run_id)
        elif active.info.run_id != run_id:
            return original(wanted, *arguments, **options)  # raises: a nested run is active
        if tags := options.get("tags"):
            mlflow.set_tags(tags)
        return active

    original(run_id=run_id)
    mlflow.start_run = fluent.start_run = start_run  # type: ignore[assignment]
    status = "FAILED"
    try:
        yield
        status = "FINISHED"
    finally:
        mlflow.start_run = fluent.start_run = original
        while (active := mlflow.active_run()) is not None and active.info.run_id != run_id:
            mlflow.end_run(status)
