"""What a new version must pass, and how it is taken back, under load: docs/rollouts.md on the real node."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml
from e2e.conftest import manifest
from e2e.load import Load

from lakeloop.cli.demo import NAMESPACE, address, condition, fresh

pytestmark = pytest.mark.e2e
NAME = "e2e-gates"
NEEDED = {"type": "long", "name": "age", "required": True}


@pytest.fixture(scope="module")
def register(platform: Any, demo: str) -> Callable[..., None]:
    """Registers the quickstart's model under another name, its signature changed, as somebody else would."""
    platform.mlflow("POST", "registered-models/create", name=NAME)
    uri = platform.mlflow("GET", "model-versions/get-download-uri", name="quickstart", version="1")["artifact_uri"]
    prefix = uri.removeprefix("s3://mlflow/").rstrip("/")

    def add(version: int, *columns: dict[str, Any]) -> None:
        for found in platform.store.list_objects_v2(Bucket="mlflow", Prefix=f"{prefix}/")["Contents"]:
            body = platform.store.get_object(Bucket="mlflow", Key=found["Key"])["Body"].read()
            name = found["Key"].removeprefix(f"{prefix}/")
            if name == "MLmodel" and columns:
                model = yaml.safe_load(body)
                inputs = json.loads(model["signature"]["inputs"])
                model["signature"]["inputs"] = json.dumps([*inputs, *columns])
                model.pop("saved_input_example_info", None)
                body = yaml.safe_dump(model).encode()
            platform.store.put_object(Bucket="mlflow", Key=f"{NAME}/{version}/{name}", Body=body)
        made = platform.mlflow("POST", "model-versions/create", name=NAME, source=f"s3://mlflow/{NAME}/{version}")
        assert made["model_version"]["version"] == str(version)

    return add


@pytest.fixture
def deployed(platform: Any, register: Callable[..., None]) -> Iterator[None]:
    """Version 1 serves."""
    register(1)
    move(platform, 1)
    platform.apply(manifest("ModelDeployment", NAME, {"model": {"name": NAME, "alias": "champion"}}))
    serves(platform, 1)
    yield
    platform.kubectl("-n", NAMESPACE, "delete", "md", NAME)
    platform.mlflow("DELETE", "registered-models/delete", name=NAME)


def move(platform: Any, version: int) -> None:
    """Sets the alias."""
    platform.mlflow("POST", "registered-models/alias", name=NAME, alias="champion", version=str(version))


def act(platform: Any, action: str) -> None:
    """`kubectl annotate`, as documented."""
    platform.kubectl("-n", NAMESPACE, "annotate", "md", NAME, f"lakeloop.io/{action}", "--overwrite")


def serves(platform: Any, version: int) -> Any:
    """The object once that version serves alone."""
    return platform.until(
        "modeldeployment",
        NAME,
        lambda obj: (
            fresh(obj)
            and obj["status"].get("stable", {}).get("version") == version
            and condition(obj, "RollingOut").get("status") != "True"
            and condition(obj, "Ready").get("status") == "True"
        ),
    )


def test_gates_and_the_way_back(platform: Any, deployed: None, register: Callable[..., None]) -> None:
    register(2, NEEDED)
    register(3, {**NEEDED, "required": False})
    with Load(address(platform.kubectl, NAME)) as load:
        move(platform, 2)
        refused = platform.until(
            "modeldeployment", NAME, lambda obj: [each["version"] for each in obj["status"].get("rejected", [])] == [2]
        )
        (why,) = refused["status"]["rejected"]
        assert why["reason"] == "SignatureBreaking"
        assert "input age is new (long) and required" in why["message"]
        assert condition(refused, "Ready")["status"] == "True"
        assert set(load.answers) == {f"{NAME}/1"}, "no request went to it"

        spec = {"model": {"name": NAME, "alias": "champion"}, "gates": {"approval": "Required"}}
        platform.apply(manifest("ModelDeployment", NAME, spec))
        move(platform, 3)
        platform.until(
            "modeldeployment",
            NAME,
            lambda obj: (
                condition(obj, "RollingOut").get("reason") == "AwaitingApproval"
                and obj["status"]["candidate"].get("readyReplicas") == 1
            ),
        )
        assert set(load.answers) == {f"{NAME}/1"}
        act(platform, "approve=3")
        serves(platform, 3)

        act(platform, "rollback=now")
        back = serves(platform, 1)
        assert [(each["version"], each["reason"]) for each in back["status"]["rejected"]] == [(3, "RolledBack")]
        assert back["status"]["history"][0]["reason"] == "RolledBack"
    assert load.failures == []
    assert set(load.answers) == {f"{NAME}/1", f"{NAME}/3"}
