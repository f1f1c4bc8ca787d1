"""What else must be looked at before a plan can be made."""

from collections.abc import Iterator
from typing import Literal

from lakeloop.api.v1alpha1.trainingjob import Run
from lakeloop.domain.training import driver as drivers
from lakeloop.domain.training import logs, policies
from lakeloop.domain.training.conclude import outcome
from lakeloop.domain.training.decide import CHAIN
from lakeloop.domain.training.gates import champion_alias
from lakeloop.domain.training.situation import Situation
from lakeloop.render.training.storage import own_ca

Lookup = Literal["commits", "inputs", "script", "ingested", "record", "version", "champion", "logs", "ca"]


def next_lookup(sit: Situation) -> Lookup | None:
    """The one thing to look for next, after what was seen already; None: a plan can be made. Pure.

    Looking costs calls to other systems, so that nothing is looked for that no policy would ask for.
    """
    over = logs.unsettled(sit)
    if over is not None and "logs" not in sit.observed.looked and logs.worth_a_look(sit, over):
        return "logs"
    if "commits" not in sit.observed.looked and _follows_commits(sit):
        return "commits"
    if sit.observed.problems or not _undecided(sit):
        return None
    return next((each for each in _wanted(sit) if each not in sit.observed.looked), None)


def _wanted(sit: Situation) -> Iterator[Lookup]:
    run = sit.run
    if run is None:
        return
    if run.inputs is None:
        yield "inputs"
    elif run.mlflow is None and sit.observed.tracked is None:
        return
    elif sit.driver is None and run.phase == "Pending":
        yield from _before_launch(sit, run)
    elif sit.driver is None or drivers.is_terminal(sit.driver) or drivers.is_lost(sit.driver, sit.now):
        yield from _at_the_end(sit)


def _before_launch(sit: Situation, run: Run) -> Iterator[Lookup]:
    if run.next_attempt_time is not None and sit.now < run.next_attempt_time:
        return
    if own_ca(sit.run_spec.storage) is not None:
        yield "ca"
    if sit.lacks_script:
        yield "script"
    unknown = any(each.manifest is not None and each.version is None for each in run.inputs or ())
    if (run.attempt or 1) > 1 and unknown:
        yield "ingested"
    if champion_alias(sit.run_spec) is not None:
        yield "champion"


def _at_the_end(sit: Situation) -> Iterator[Lookup]:
    result = outcome(sit)
    if result is None or not result.whole:
        yield "record"
    if result is None or not result.succeeded or sit.run_spec.registration is None:
        return
    yield "version"
    if champion_alias(sit.run_spec) is not None:
        yield "champion"


def _follows_commits(sit: Situation) -> bool:
    """Whether what was committed to the delta trigger's table can make a difference."""
    if sit.spec.triggers.delta is None or policies.deletion(sit) is not None or policies.stop(sit) is not None:
        return False
    run = sit.run
    if sit.suspended:
        # First what is at work is stopped.
        return run is None or (run.phase == "Pending" and sit.driver is None)
    if run is not None:
        return sit.spec.run_policy.concurrency == "Replace" and run.inputs is not None and _undecided(sit)
    return _undecided(sit)


def _undecided(sit: Situation) -> bool:
    return all(policy(sit) is None for policy in CHAIN)
