"""Whether all of a finished run's logs are in the object store. No run waits for it.

Each container's sidecar leaves a marker: that it has begun, and at the end that it has uploaded everything.
"""

from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any, Final

from lakeloop.api.v1alpha1.trainingjob import TERMINAL_PHASES, Run
from lakeloop.domain.plan import Manifest, Plan
from lakeloop.domain.training import driver as drivers
from lakeloop.domain.training.situation import Situation, after
from lakeloop.render.training.logs import driver_name, executor_id, executor_name
from lakeloop.render.training.names import ATTEMPT, RUN_UID

GONE_SECONDS: Final = 15.0
"""After the end of a run whose pods are over. One that was deleted without grace has its sidecar a moment longer."""
STOPPING_SECONDS: Final = 60.0
"""After the end of a run whose pods are still on their way out: their grace period, and some."""
UNKNOWN_SECONDS: Final = 600.0
"""After the end of a run, while the store does not answer."""
_LOOK_SECONDS: Final = 5.0
_UNKNOWN_LOOK_SECONDS: Final = 30.0


def unsettled(sit: Situation) -> Run | None:
    """The newest finished run of which it is not said yet whether its logs are whole."""
    runs = (sit.status.run, *(sit.status.history or ()))
    return next((run for run in runs if run is not None and _is_unsettled(run)), None)


def _is_unsettled(run: Run) -> bool:
    return run.phase in TERMINAL_PHASES and run.logs is not None and run.logs.complete is None


def worth_a_look(sit: Situation, run: Run) -> bool:
    """Whether the markers can be final."""
    return not _pods_at_work(sit, run) or _is_after(sit, run, STOPPING_SECONDS)


def settle(sit: Situation) -> Plan | None:
    """Status says whether the logs are whole, once that is known or will not change any more."""
    run, seen = unsettled(sit), sit.observed.logs
    if run is None or run.logs is None or seen is None:
        return None
    whole = seen.markers is not None and _whole(sit, run, seen.markers)
    if not whole and not _is_after(sit, run, _patience(sit, run, known=seen.markers is not None)):
        return None
    settled = run.model_copy(update={"logs": run.logs.model_copy(update={"complete": whole})})
    newest = sit.status.run
    changes: dict[str, Any] = {
        "history": tuple(settled if each.uid == run.uid else each for each in sit.status.history or ()) or None,
        "run": settled if newest is not None and newest.uid == run.uid else newest,
    }
    said = "are complete" if whole else "are not complete"
    return Plan(
        "logs",
        f"the logs of run {run.number} {said}",
        status=sit.status.model_copy(update=changes).wire(),
        requeue_after=0,
    )


def next_look(sit: Situation, status: Mapping[str, Any] | None) -> float | None:
    """Seconds until it is worth a look again, by the status as it will be; None where nothing is open."""
    runs = [sit.status.run] if status is None else _runs(status)
    if not any(run is not None and _is_unsettled(run) for run in (*runs, *(sit.status.history or ()))):
        return None
    unknown = sit.observed.logs is not None and sit.observed.logs.markers is None
    return _UNKNOWN_LOOK_SECONDS if unknown else _LOOK_SECONDS


def _runs(status: Mapping[str, Any]) -> Iterator[Run]:
    if status.get("run"):
        yield Run.parse(status["run"])


def _whole(sit: Situation, run: Run, markers: Mapping[str, bool]) -> bool:
    """Every container that began has ended well, and none is missing that is known to have been there."""
    last = run.attempt or 1
    attempts = range(1, last + 1 if run.driver_pod else last)
    wanted = {driver_name(attempt) for attempt in attempts} | set(_executors(sit, run))
    return wanted <= markers.keys() and all(markers.values())


def _executors(sit: Situation, run: Run) -> Iterator[str]:
    for pod in drivers.executors_of(sit.observed.pods, run.uid or ""):
        labels = drivers.labels(pod)
        number = executor_id(labels)
        if number is not None:
            yield executor_name(labels.get(ATTEMPT, ""), number)


def _pods(sit: Situation, run: Run) -> Iterator[Manifest]:
    return (pod for pod in sit.observed.pods if drivers.labels(pod).get(RUN_UID) == run.uid)


def _pods_at_work(sit: Situation, run: Run) -> bool:
    return any(not (drivers.is_terminal(pod) or drivers.is_lost(pod, sit.now)) for pod in _pods(sit, run))


def _patience(sit: Situation, run: Run, *, known: bool) -> float:
    if not known:
        return UNKNOWN_SECONDS
    return STOPPING_SECONDS if _pods_at_work(sit, run) else GONE_SECONDS


def _is_after(sit: Situation, run: Run, seconds: float) -> bool:
    return sit.now >= after(run.completion_time, seconds, sit.now - timedelta(seconds=seconds))
