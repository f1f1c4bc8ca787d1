"""What the user's own code left in its MLflow run: metrics, and the model."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lakeloop_trainer import own_champion
from lakeloop_trainer.attempt import tracking_errors
from lakeloop_trainer.digest import model_digest
from lakeloop_trainer.failures import RunFailure
from lakeloop_trainer.result import Outcome
from lakeloop_trainer.tracking import MODEL_NAME, LoggedModel

if TYPE_CHECKING:
    from lakeloop_trainer.attempt import Attempt
    from lakeloop_trainer.own_champion import Scores


@dataclass(frozen=True)
class Found:
    """What belongs to this attempt; what an earlier one logged before it died does not."""

    metrics: Mapping[str, float]
    """By name, the last value; NaN and infinities are among them."""
    model: LoggedModel | None


def outcome(attempt: Attempt, since: float, open_session: Callable[[], Any]) -> Outcome:
    """The result of code that ended well. ``since``: when it began, in seconds of the epoch.

    ``open_session`` gives a Spark session with the views: it is asked for where there is a champion to compare with.

    Raises:
        RunFailure: NoModelLogged, MetricMissing, or what MLflow's errors stand for.
    """
    found = _look(attempt, int(since * 1000))
    spec = attempt.spec
    if found.model is None and spec.raw.get("register"):
        raise RunFailure(
            "NoModelLogged",
            "spec.register wants a model, and the code logged none in its run: call mlflow.<flavor>.log_model(model, "
            f'name="{MODEL_NAME}", signature=…), or take spec.register away',
            "spec.register",
        )
    finite = {name: value for name, value in found.metrics.items() if math.isfinite(value)}
    objective: dict[str, Any] | None = None
    if spec.objective is not None:
        name = spec.objective.metric
        if name not in found.metrics:
            there = ", ".join(sorted(found.metrics)[:20]) or "none at all"
            raise RunFailure(
                "MetricMissing",
                f"spec.objective.metric is {name}, and the code logged {there}: log it by "
                f'mlflow.log_metric("{name}", …)',
                "spec.objective.metric",
            )
        objective = {"metric": name, "value": finite.get(name)}
    scores = own_champion.compared(attempt, found.model, open_session) if found.model else None
    if scores is not None and objective is not None:
        _log_scores(attempt, scores, objective["metric"])
        if scores.value is not None:
            finite[f"test_{objective['metric']}"] = objective["value"] = scores.value
    return Outcome(
        uid=spec.uid,
        attempt=attempt.number,
        inputs=attempt.result_inputs(),
        metrics=finite,
        objective=objective,
        model=found.model.document() if found.model else None,
        champion=scores.comparison.document() if scores else None,
    )


def _log_scores(attempt: Attempt, scores: Scores, metric: str) -> None:
    version, values = scores.comparison.version, {f"champion.{metric}": scores.comparison.value}
    values[f"test_{metric}"] = scores.value
    tracker = attempt.tracker()
    with tracking_errors("Logging the champion's score"):
        tracker.metrics({name: value for name, value in values.items() if value is not None})
        tracker.tags({"lakeloop.io/champion.version": str(version)})


def _look(attempt: Attempt, since: int) -> Found:
    tracker = attempt.tracker()
    with tracking_errors("Reading what the code logged"):
        run = tracker.client.get_run(tracker.run_id)
        metrics = {
            each.key: float(each.value)
            for each in run.data._metric_objs
            if attempt.number == 1 or each.timestamp >= since
        }
        models = tracker.client.search_logged_models(
            [tracker.experiment_id],
            filter_string=f"source_run_id = '{tracker.run_id}'",
            order_by=[{"field_name": "creation_time", "ascending": False}],
        )
        newest = _chosen([each for each in models if attempt.number == 1 or each.creation_timestamp >= since])
        model = None if newest is None else _downloaded(newest)
    return Found(metrics, model)


def _chosen(models: Sequence[Any]) -> Any:
    """Of several, newest first: the last one named `model`, else the last."""
    ready = [each for each in models if str(each.status) == "READY"]
    named = [each for each in ready if each.name == MODEL_NAME]
    return next(iter([*named, *ready]), None)


def _downloaded(model: Any) -> LoggedModel:
    from mlflow.artifacts import download_artifacts
    from mlflow.models import Model

    location = str(model.artifact_location)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(download_artifacts(artifact_uri=location, dst_path=temporary))
        signature = Model.load(str(folder)).signature is not None
        return LoggedModel(str(model.model_id), location, model_digest(folder), signature)
