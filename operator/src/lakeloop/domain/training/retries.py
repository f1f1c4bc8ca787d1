"""Which failures are tried again, how often, and after how long."""

import hashlib
from datetime import datetime, timedelta

from lakeloop.api.v1alpha1.defaults import EffectiveBackoff, EffectiveRetries
from lakeloop.api.v1alpha1.trainingjob import AttemptCounts, FailureClass

JITTER = 0.2
"""Share by which a wait may be shorter or longer: runs that failed together must not come back together."""


def next_counts(before: AttemptCounts | None, failure: FailureClass, budget: EffectiveRetries) -> AttemptCounts | None:
    """The retries made, with one more; None where the class has none left. Data and Gate never have any."""
    counts = before or AttemptCounts()
    if failure == "Infrastructure" and counts.infrastructure < budget.infrastructure:
        return counts.model_copy(update={"infrastructure": counts.infrastructure + 1})
    if failure == "Submission" and counts.submission < budget.submission:
        return counts.model_copy(update={"submission": counts.submission + 1})
    if failure == "Application" and counts.application < budget.application:
        return counts.model_copy(update={"application": counts.application + 1})
    return None


def retry_number(counts: AttemptCounts, failure: FailureClass) -> int:
    """Which retry of its class this is, from 1."""
    by_class = {
        "Infrastructure": counts.infrastructure,
        "Submission": counts.submission,
        "Application": counts.application,
    }
    return by_class.get(failure, 1)


def wait_before(retry: int, backoff: EffectiveBackoff, salt: str) -> timedelta:
    """initialSeconds, times factor after each, a fifth more or less by the salt, at most maxSeconds; whole seconds.

    The salt (the run's uid and the attempt) in place of chance: the same decision taken twice is the same.
    """
    # The exponent is bounded: a float overflows long after maxSeconds is reached.
    seconds = min(backoff.initial_seconds * backoff.factor ** min(retry - 1, 64), float(backoff.max_seconds))
    share = int.from_bytes(hashlib.sha256(salt.encode()).digest()[:8]) / 2**64
    return timedelta(seconds=min(round(seconds * (1.0 + JITTER * (2.0 * share - 1.0))), backoff.max_seconds))


def next_look(since: datetime, now: datetime, backoff: EffectiveBackoff) -> float:
    """Seconds until a waiting run looks again: at first soon, then in proportion to how long it has waited already."""
    waited = (now - since).total_seconds()
    first = min(float(backoff.initial_seconds), 5.0)
    return max(1.0, min(max(first, waited * (backoff.factor - 1.0) / 2), float(backoff.max_seconds), 30.0))
