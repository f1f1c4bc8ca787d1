"""Actions: annotations `lakeloop.io/<action>` whose value is a request id, any new text, and is honoured once."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal["TrainingJob", "ModelDeployment"]

PREFIX: Final = "lakeloop.io/"
SUSPEND: Final = "suspend"
APPROVE: Final = "approve"
LONGEST_ID: Final = 128
"""Characters of an id that status keeps; a longer one is kept as its beginning and a hash."""

ACTIONS: Final[Mapping[Kind, tuple[str, ...]]] = {
    "TrainingJob": ("run-now", "stop", SUSPEND),
    "ModelDeployment": ("promote", "abort", "retry", "rollback", APPROVE),
}


@dataclass(frozen=True, slots=True)
class Refusal:
    """An action that is not done, and why. `key` and `id` go into `status.lastHandled`, so that it is said once."""

    key: str
    id: str
    reason: str
    message: str


def request_id(annotations: Mapping[str, str], action: str) -> str | None:
    """The id by which the action is asked for; None where it is not, or not in its form."""
    value = _id(annotations.get(PREFIX + action, ""))
    form = _FORMS.get(action)
    return value if value and (form is None or form[0].match(value)) else None


def refusals(kind: Kind, annotations: Mapping[str, str], handled: Mapping[str, str] | None) -> list[Refusal]:
    """What is asked for, is not done, and was not answered yet."""
    found = [
        refusal
        for annotation, value in sorted(annotations.items())
        if annotation.startswith(PREFIX) and value
        if (refusal := _refusal(kind, annotation.removeprefix(PREFIX), _id(value))) is not None
    ]
    return [each for each in found if (handled or {}).get(each.key) != each.id]


_FORMS: Final[Mapping[str, tuple[re.Pattern[str], str]]] = {
    SUSPEND: (re.compile(r"(on|off)-."), "neither on-<id> nor off-<id>: write one of these, with any new id"),
    APPROVE: (re.compile(r"[1-9][0-9]{0,15}\Z"), "no version: write the number of the one that may serve"),
}
"""Actions whose value is more than an id: its form, and what is said of another."""


def _refusal(kind: Kind, action: str, asked: str) -> Refusal | None:
    asked_for = f"{PREFIX}{action}: {asked}"
    if action not in ACTIONS[kind]:
        known = ", ".join(PREFIX + each for each in ACTIONS[kind])
        return Refusal(action, asked, "UnknownAction", f"{asked_for} is no action of a {kind}: there are {known}")
    form = _FORMS.get(action)
    if form is not None and not form[0].match(asked):
        message = f"{asked_for} is {form[1]}"
        # Beside the last one that was honoured: that is what still holds.
        return Refusal(f"{action}-refused", asked, "InvalidAction", message)
    return None


def _id(value: str) -> str:
    if len(value) <= LONGEST_ID:
        return value
    return f"{value[: LONGEST_ID - 20]}~{hashlib.sha256(value.encode()).hexdigest()[:16]}"
