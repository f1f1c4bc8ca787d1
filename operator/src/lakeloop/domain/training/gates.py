"""Whether a model passes: bounds on its metrics, and the champion beaten on the same rows. Pure.

The driver only measures. What a measurement means is decided here: a training program that could move an alias would
let any script pass by the gates.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lakeloop.api.v1alpha1.defaults import EffectiveChampion, EffectiveTrainingSpec
from lakeloop.api.v1alpha1.trainingjob import Threshold
from lakeloop.domain.training.driver import Result
from lakeloop.domain.training.observed import SeenChampion
from lakeloop.render.training.run_config import goal

_CHAMPION = "spec.evaluation.champion"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the gates say of a model. `reason` is part of the API."""

    passed: bool
    reason: str
    message: str
    field: str | None = None


def has_gates(spec: EffectiveTrainingSpec) -> bool:
    """Whether anything is asked of a model."""
    return bool(spec.evaluation.thresholds) or spec.evaluation.champion is not None


def champion_alias(spec: EffectiveTrainingSpec) -> tuple[str, str] | None:
    """Registered model and alias of the version to beat; None where there is nothing to compare with."""
    if spec.evaluation.champion is None or spec.registration is None:
        return None
    return spec.registration.model, spec.evaluation.champion.alias or spec.registration.alias or "champion"


def champion_document(champion: SeenChampion | None) -> Mapping[str, Any] | None:
    """The version to beat, as the driver is told of it."""
    if champion is None:
        return None
    return {
        "model": champion.model,
        "version": champion.version,
        "artifactUri": champion.source,
        "digest": champion.digest,
    }


def gate_tags(verdict: Verdict, result: Result) -> Mapping[str, str]:
    """What the registry is told of the verdict: both numbers, and the reason."""
    tags = {"lakeloop.io/gate": "passed" if verdict.passed else "failed", "lakeloop.io/gate.reason": verdict.reason}
    if result.champion is not None:
        tags["lakeloop.io/champion.version"] = str(result.champion.version)
        if result.champion.value is not None and result.objective is not None:
            tags[f"lakeloop.io/champion.metric.{result.objective[0]}"] = repr(result.champion.value)
    return tags


def judge(spec: EffectiveTrainingSpec, result: Result, metrics: Mapping[str, float], champion: int | None) -> Verdict:
    """The verdict. `metrics` are all that the driver measured, `champion` is the version that has the alias now."""
    for index, threshold in enumerate(spec.evaluation.thresholds):
        missed = _missed(threshold, metrics, f"spec.evaluation.thresholds[{index}]")
        if missed is not None:
            return missed
    against = spec.evaluation.champion
    found = _champion(spec, against, result, champion) if against is not None else None
    return found or Verdict(True, "GatesPassed", _passed(spec, result, metrics))


def measured(metric: str, metrics: Mapping[str, float]) -> float | None:
    """A metric of the test rows: `test_<metric>`, or one that is logged by its plain name."""
    return metrics.get(f"test_{metric}", metrics.get(metric))


def _missed(threshold: Threshold, metrics: Mapping[str, float], field: str) -> Verdict | None:
    name, value = threshold.metric, measured(threshold.metric, metrics)
    if value is None:
        known = ", ".join(sorted(metrics)) or "none"
        message = f"{name} was not measured on test rows; the run measured {known}"
        return Verdict(False, "MetricMissing", message, f"{field}.metric")
    if threshold.min is not None and value < threshold.min:
        return Verdict(False, "ThresholdMissed", f"{name} is {value:.6g}, below min {threshold.min:g}", field)
    if threshold.max is not None and value > threshold.max:
        return Verdict(False, "ThresholdMissed", f"{name} is {value:.6g}, above max {threshold.max:g}", field)
    return None


def _champion(
    spec: EffectiveTrainingSpec, against: EffectiveChampion, result: Result, now: int | None
) -> Verdict | None:
    """None: the model may take the champion's place."""
    scored = result.champion
    compared = scored.version if scored is not None else None
    if now != compared:
        was = f"version {compared}" if compared is not None else "no version"
        is_now = f"version {now} has it" if now is not None else "no version has it"
        message = f"the model was compared with {was}, and meanwhile {is_now}: run again to compare with that"
        return Verdict(False, "ChampionChanged", message, _CHAMPION)
    if scored is None:
        return None
    if scored.value is None:
        why = scored.problem or "the driver does not say why"
        message = f"version {scored.version} could not be scored on this run's test rows: {why}"
        return Verdict(False, "ChampionNotComparable", message, _CHAMPION)
    if result.objective is None:
        return Verdict(False, "MetricMissing", "the objective could not be measured", "spec.objective.metric")
    metric, value = result.objective
    better = value - scored.value if goal(spec, metric) == "Maximize" else scored.value - value
    if better < against.min_improvement:
        asked = f", and minImprovement is {against.min_improvement:g}" if against.min_improvement else ""
        message = (
            f"{metric} is {value:.6g}, that of the champion (version {scored.version}) {scored.value:.6g}"
            f" on the same test rows{asked}"
        )
        return Verdict(False, "ChampionNotBeaten", message, _CHAMPION)
    return None


def _passed(spec: EffectiveTrainingSpec, result: Result, metrics: Mapping[str, float]) -> str:
    said = [
        f"{each.metric} {value:.6g}"
        for each in spec.evaluation.thresholds
        if (value := measured(each.metric, metrics)) is not None
    ]
    if result.champion is not None and result.champion.value is not None and result.objective is not None:
        metric, value = result.objective
        said.append(f"{metric} {value:.6g} against {result.champion.value:.6g} of version {result.champion.version}")
    elif spec.evaluation.champion is not None:
        said.append("there was no champion to beat")
    return "; ".join(said)
