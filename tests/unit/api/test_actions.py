"""What is asked for by an annotation, and what is answered where it is not done."""

import pytest

from lakeloop.api.v1alpha1.actions import ACTIONS, LONGEST_ID, Kind, refusals, request_id

CASES: dict[str, tuple[Kind, dict[str, str], list[tuple[str, str]]]] = {
    "none": ("TrainingJob", {}, []),
    "foreign annotations": ("TrainingJob", {"argocd.argoproj.io/sync-wave": "1", "run-now": "1"}, []),
    "all that is done": ("TrainingJob", {f"lakeloop.io/{each}": "on-1" for each in ACTIONS["TrainingJob"]}, []),
    "an empty value": ("ModelDeployment", {"lakeloop.io/promote": ""}, []),
    "all that is done of a deployment": (
        "ModelDeployment",
        {f"lakeloop.io/{each}": "5" for each in ACTIONS["ModelDeployment"]},
        [],
    ),
    "a slip": ("TrainingJob", {"lakeloop.io/runnow": "1"}, [("runnow", "UnknownAction")]),
    "of the other kind": ("TrainingJob", {"lakeloop.io/retry": "1"}, [("retry", "UnknownAction")]),
    "no form": ("TrainingJob", {"lakeloop.io/suspend": "true"}, [("suspend-refused", "InvalidAction")]),
    "no version": ("ModelDeployment", {"lakeloop.io/approve": "yes"}, [("approve-refused", "InvalidAction")]),
    "no id": ("TrainingJob", {"lakeloop.io/suspend": "on-"}, [("suspend-refused", "InvalidAction")]),
}


@pytest.mark.parametrize("name", CASES)
def test_what_is_answered_once(name: str) -> None:
    kind, annotations, answers = CASES[name]
    found = refusals(kind, annotations, None)
    assert [(each.key, each.reason) for each in found] == answers
    assert refusals(kind, annotations, {each.key: each.id for each in found}) == []
    for each in found:
        assert each.message.startswith("lakeloop.io/")


def test_a_new_id_is_answered_again() -> None:
    assert refusals("ModelDeployment", {"lakeloop.io/promotion": "2"}, {"promotion": "1"}) != []


@pytest.mark.parametrize(
    ("action", "value", "asked"),
    [
        ("run-now", "monday", "monday"),
        ("run-now", "", None),
        ("suspend", "on-1", "on-1"),
        ("suspend", "off-x", "off-x"),
        ("suspend", "true", None),
        ("approve", "5", "5"),
        ("approve", "5-again", None),
        ("approve", "0", None),
        ("approve", "5\n", None),
    ],
)
def test_request_id(action: str, value: str, asked: str | None) -> None:
    assert request_id({f"lakeloop.io/{action}": value}, action) == asked


def test_a_long_id_is_kept_short_and_apart_from_others() -> None:
    """An annotation holds 256 KiB, and status keeps each id in several places."""
    one, other = (request_id({"lakeloop.io/run-now": "x" * 200_000 + end}, "run-now") for end in "ab")
    assert one != other
    assert one is not None
    assert len(one) <= LONGEST_ID
