"""What a candidate's servers have counted while it had traffic, held against the bounds of `spec.analysis`.

A quantile is that of a histogram, as Prometheus makes it: linear within a bucket, and the highest finite bound for what
took longer (https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from lakeloop.api.v1alpha1.defaults import EffectiveAnalysis
from lakeloop.api.v1alpha1.deployment_rollout import AnalysisMetric
from lakeloop.api.v1alpha1.deployment_status import Candidate, Measurement

_QUANTILES: Final[Mapping[str, float]] = {"latency-p50": 0.5, "latency-p99": 0.99}
_DIGITS: Final = 6


@dataclass(frozen=True, slots=True)
class Counters:
    """Requests for predictions: those that one server has answered since it started, or many in a while."""

    requests: float = 0.0
    errors: float = 0.0
    """Answered by a status of 500 or more: those below are the callers'."""
    seconds: Mapping[float, float] = field(default_factory=dict)
    """Upper bound of a bucket, in seconds → requests that took at most so long. The last bound is infinite."""


def between(before: Mapping[str, Counters], now: Mapping[str, Counters]) -> Counters:
    """What all servers together have answered since. By server: one that has started anew counts from 0."""
    requests = errors = 0.0
    seconds: dict[float, float] = {}
    for server, counted in now.items():
        old = before.get(server, Counters())
        if counted.requests < old.requests:
            old = Counters()
        requests += counted.requests - old.requests
        errors += counted.errors - old.errors
        for bound, count in counted.seconds.items():
            seconds[bound] = seconds.get(bound, 0.0) + count - old.seconds.get(bound, 0.0)
    return Counters(requests, errors, seconds)


def quantile(share: float, seconds: Mapping[float, float]) -> float | None:
    """The time within which that share of the requests was answered; None where there were none."""
    bounds = sorted(seconds)
    total = seconds[bounds[-1]] if bounds else 0.0
    if total <= 0:
        return None
    rank, below, lower = share * total, 0.0, 0.0
    for bound in bounds:
        if seconds[bound] >= rank:
            if math.isinf(bound):
                return lower
            inside = seconds[bound] - below
            return lower + (bound - lower) * ((rank - below) / inside if inside > 0 else 1.0)
        below, lower = seconds[bound], bound
    return lower


def measured(counters: Counters, analysis: EffectiveAnalysis) -> tuple[Measurement, ...]:
    """One measurement of each metric. Below `minRequests` it says nothing."""
    return tuple(_measured(counters, metric, analysis.min_requests) for metric in analysis.metrics)


def _measured(counters: Counters, metric: AnalysisMetric, least: int) -> Measurement:
    if metric.name in _QUANTILES:
        value = quantile(_QUANTILES[metric.name], counters.seconds)
    else:
        value = counters.errors / counters.requests if counters.requests > 0 else None
    told = counters.requests >= max(1, least) and value is not None
    return Measurement(
        metric=metric.name,
        value=round(value, _DIGITS) if value is not None else None,
        requests=round(counters.requests),
        passed=_within(value, metric) if told and value is not None else None,
    )


def _within(value: float, metric: AnalysisMetric) -> bool:
    return (metric.min is None or value >= metric.min) and (metric.max is None or value <= metric.max)


def with_measurements(candidate: Candidate, found: Sequence[Measurement], now: datetime) -> Candidate:
    """The candidate with its newest figures. A measurement counts as failed once, however many metrics are off."""
    failures = (candidate.analysis_failures or 0) + any(each.passed is False for each in found)
    return candidate.model_copy(
        update={"analysis": tuple(found), "analysis_time": now, "analysis_failures": failures or None}
    )


def complaint(candidate: Candidate, analysis: EffectiveAnalysis) -> str | None:
    """Why the candidate has failed; None where it has not."""
    failures = candidate.analysis_failures or 0
    if failures <= analysis.failure_limit:
        return None
    return f"{failures} measurements failed, and {analysis.failure_limit} are borne: {described(candidate, analysis)}"


def described(candidate: Candidate, analysis: EffectiveAnalysis) -> str:
    """The newest figures that are off, with their bounds."""
    bounds = {each.name: each for each in analysis.metrics}
    return "; ".join(
        f"{each.metric} is {each.value:g}{_bounds(bounds[each.metric])} (of {each.requests} requests)"
        for each in candidate.analysis or ()
        if each.passed is False and each.value is not None and each.metric in bounds
    )


def _bounds(metric: AnalysisMetric) -> str:
    told = [f"at least {metric.min:g}"] if metric.min is not None else []
    told += [f"at most {metric.max:g}"] if metric.max is not None else []
    return f", and may be {' and '.join(told)}" if told else ""


def may_go_on(candidate: Candidate, analysis: EffectiveAnalysis, since: datetime) -> bool:
    """Whether the step that began then was measured, over a whole interval of its own, and well."""
    measured_at = candidate.analysis_time
    if measured_at is None or measured_at < since + timedelta(seconds=analysis.interval_seconds):
        return False
    passed = [each.passed for each in candidate.analysis or ()]
    if False in passed:
        return False
    return None not in passed or analysis.on_inconclusive == "Proceed"
