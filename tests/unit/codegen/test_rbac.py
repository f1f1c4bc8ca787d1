"""What the operator may do: as much as it needs."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import lakeloop.render
from lakeloop.adapters.kubernetes import PLURALS
from lakeloop.codegen import rbac
from lakeloop.render.training.driver_rbac import driver_rbac
from lakeloop.render.training.names import RunIdentity

Permission = tuple[str, str, str]


def permissions(grants: tuple[rbac.Grant, ...]) -> set[Permission]:
    """Group, resource, verb."""
    return {(grant.group, resource, verb) for grant in grants for resource in grant.resources for verb in grant.verbs}


def rendered() -> Iterator[tuple[str, str]]:
    """API group and kind of each manifest that is written out in the renderers."""
    for path in Path(lakeloop.render.__path__[0]).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Dict):
                constants = {
                    key.value: value.value
                    for key, value in zip(node.keys, node.values, strict=True)
                    if isinstance(key, ast.Constant) and isinstance(value, ast.Constant)
                }
                if {"apiVersion", "kind"} <= constants.keys() and "name" not in constants:
                    group, slash, _ = constants["apiVersion"].partition("/")
                    yield (group if slash else ""), constants["kind"]


RUN = RunIdentity("team-a", "churn", "job-uid", 3, "run-uid", 2)


def rules(*, executors: bool) -> list[dict[str, Any]]:
    """Of the role of a driver."""
    made = driver_rbac(RUN, None, executors=executors)
    found: list[dict[str, Any]] = next(each["rules"] for each in made if each["kind"] == "Role")
    return found


def test_a_driver_alone_may_write_on_its_own_pod_and_nothing_else() -> None:
    assert rules(executors=False) == [
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["patch"], "resourceNames": ["churn-3-2-driver"]}
    ]


def test_drivers_table_is_the_role_that_is_rendered() -> None:
    granted = {
        (group, resource, verb)
        for rule in rules(executors=True)
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    assert granted == permissions(rbac.DRIVER)


def test_operator_holds_what_it_grants_to_drivers() -> None:
    """Kubernetes refuses a Role that grants more than its author holds."""
    assert permissions(rbac.DRIVER) - permissions(rbac.WATCHED) == set()


def test_whatever_is_rendered_may_be_made_changed_and_removed() -> None:
    found = set(rendered())
    assert {("", "ConfigMap"), ("apps", "Deployment")} <= found
    held = permissions(rbac.WATCHED)
    for group, kind in sorted(found):
        for verb in ("get", "create", "patch", "delete"):
            assert (group, PLURALS[kind], verb) in held, f"nothing lets the operator {verb} a {kind}"


def test_secrets_are_read_by_name_only() -> None:
    grants = [grant for scope in rbac.SCOPES.values() for grant in scope]
    assert {verb for grant in grants if "secrets" in grant.resources for verb in grant.verbs} == {"get"}


@pytest.mark.parametrize("verb", ["*", "escalate", "bind", "impersonate"])
def test_no_verb_that_gets_more(verb: str) -> None:
    held = permissions(tuple(grant for scope in rbac.SCOPES.values() for grant in scope))
    assert verb not in {word for permission in held for word in permission}


def test_yaml_is_the_table() -> None:
    assert yaml.safe_load(rbac.as_yaml()) == rbac.rules()
