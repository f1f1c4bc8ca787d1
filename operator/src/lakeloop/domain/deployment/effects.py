"""What a ModelDeployment's pass writes to the registry."""

from dataclasses import dataclass

from lakeloop.domain.plan import Effect


@dataclass(frozen=True, slots=True)
class TagVersion(Effect):
    """Sets a tag of a model version; `value` None takes it away.

    Best effort: serving must not wait for the registry. A tag that is missing is seen, and set, by a later pass.
    """

    model: str
    version: int
    key: str
    value: str | None
