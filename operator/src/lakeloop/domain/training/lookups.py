"""What else must be looked at before a plan can be made."""

from typing import Literal

from lakeloop.domain.training import driver as drivers
from lakeloop.domain.training.active import outcome
from lakeloop.domain.training.decide import CHAIN
from lakeloop.domain.training.situation import Situation

Lookup = Literal["inputs", "tracked", "ingested", "record", "version"]


def next_lookup(sit: Situation) -> Lookup | None:
    """The one thing to look for next, after what was seen already; None: a plan can be made. Pure.

    Looking costs calls to other systems, so that nothing is looked for that no policy would ask for.
    """
    run = sit.run
    if run is None or sit.observed.problems or any(policy(sit) is not None for policy in CHAIN):
        return None
    if run.inputs is None:
        return "inputs"
    if run.mlflow is None:
        return "tracked"
    if sit.driver is not None and not (drivers.is_terminal(sit.driver) or drivers.is_lost(sit.driver, sit.now)):
        return None
    if sit.driver is None and run.phase == "Pending":
        again = (run.attempt or 1) > 1 and (run.next_attempt_time is None or sit.now >= run.next_attempt_time)
        unknown = any(each.manifest is not None and each.version is None for each in run.inputs)
        return "ingested" if again and unknown else None
    result = outcome(sit)
    if result is None:
        return "record"
    return "version" if result.succeeded and sit.run_spec.registration is not None else None
