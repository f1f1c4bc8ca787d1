"""How far a change-over is: the servers that there are, the step of a canary, and what was measured of it."""

from datetime import datetime
from functools import partial
from typing import Final

from lakeloop.api.v1alpha1.deployment_status import Candidate, ModelDeploymentStatus
from lakeloop.domain.deployment.analysis import may_go_on, measured, with_measurements
from lakeloop.domain.deployment.canary import Stage, stage_of
from lakeloop.domain.deployment.children import settled_since
from lakeloop.domain.deployment.course import Course, kept_of, whole
from lakeloop.domain.deployment.gates import Hold
from lakeloop.domain.deployment.observed import Observed
from lakeloop.domain.deployment.rollout import Fleet, has_share

SETTLE_SECONDS: Final = 2.0
"""From a change of what the Service selects until every node's proxy has followed. A server that is taken away answers
for another `DRAIN_LEAST_SECONDS`, so that this need not be the worst case."""


def fleet_of(observed: Observed, status: ModelDeploymentStatus, course: Course, target: str, now: datetime) -> Fleet:
    """The servers that there are, and what is wanted of them."""
    since = settled_since(observed.service)
    return Fleet(
        wanted=observed.spec.replicas,
        stable=status.stable.revision if status.stable else None,
        target=target,
        replicas={each.revision: each.replicas for each in observed.servers.values()},
        ready={each.revision: each.ready for each in observed.servers.values()},
        pinned=observed.pinned if observed.service else target,
        admitted=course.hold is None,
        blue_green=observed.spec.strategy.type == "BlueGreen",
        share=course.stage.share if course.stage else None,
        kept=kept_of(observed, course.rejection),
        settled=since is None or (now - since).total_seconds() >= SETTLE_SECONDS,
    )


def stage_now(
    observed: Observed, status: ModelDeploymentStatus, now: datetime, course: Course, revision: str
) -> Stage | None:
    """Where the canary is. A way back takes no steps, nor does what serves while there is nothing to protect."""
    canary, stable, begun = observed.spec.strategy.canary, status.stable, status.candidate
    if canary is None or stable is None or stable.revision in (None, revision) or course.rejection is not None:
        return None
    if stable.revision not in observed.servers or observed.spec.replicas == 0:
        return None
    same = begun is not None and begun.revision == revision
    step = (begun.step or 0) if begun is not None and same else 0
    since = begun.step_time if begun is not None and same else None
    fleet = fleet_of(observed, status, course, revision, now)
    analysed = partial(_analysed, observed, begun if same else None)
    return stage_of(canary.steps, step, since or now, partial(has_share, fleet), now, analysed)


def with_analysis(observed: Observed, status: ModelDeploymentStatus, now: datetime) -> ModelDeploymentStatus:
    """With what was measured since the last look, where it is of the candidate."""
    counted, analysis, candidate = observed.counted, observed.spec.analysis, status.candidate
    if counted is None or analysis is None or candidate is None or candidate.revision != counted.revision:
        return status
    found = measured(counted.counters, analysis)
    return status.model_copy(update={"candidate": with_measurements(candidate, found, whole(now))})


def _analysed(observed: Observed, candidate: Candidate | None, since: datetime) -> Hold | None:
    """What the analysis of a step waits for; None where nothing."""
    analysis = observed.spec.analysis
    if analysis is None or (candidate is not None and may_go_on(candidate, analysis, since)):
        return None
    few = f"fewer than {analysis.min_requests} requests say nothing" if analysis.on_inconclusive == "Pause" else ""
    told = f"is measured every {analysis.interval_seconds} s" + (f"; {few}" if few else "")
    return Hold("Analysing", told, float(analysis.interval_seconds), pauses=True)
