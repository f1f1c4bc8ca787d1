"""`storage.caSecretRef`: the certificates reach the pods and the operator's own reads, and nothing else of the Secret."""

import base64
from typing import Any

import pytest
from unit.training.test_certificates import ONE
from unit.training.world import World

from lakeloop.render.certificates import certificates, trust_store

OWN: dict[str, Any] = {"storage": {"caSecretRef": {"name": "lake-ca", "key": "root.pem"}}}
KEY = "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n"


async def test_pods_and_the_operator_are_given_it() -> None:
    world = World()
    world.secret("lake-ca", **{"root.pem": KEY + ONE})
    await world.until_running(**OWN)
    config = world.object("ConfigMap", "churn-1-run")
    assert config["data"]["ca.crt"] == ONE
    assert base64.b64decode(config["binaryData"]["truststore.jks"]) == trust_store(certificates(ONE))
    assert world.stores.access is not None
    assert world.stores.access.ca == ONE
    (container,) = world.drivers[0]["spec"]["containers"]
    assert {"name": "AWS_CA_BUNDLE", "value": "/etc/lakeloop/ca.crt"} in container["env"]


async def test_a_secret_that_is_not_there_is_waited_for() -> None:
    world = World()
    world.apply(**OWN)
    await world.settle()
    assert world.condition("Stalled") == ("True", "SecretNotFound")
    assert world.message("Stalled").startswith("spec.storage.caSecretRef: there is no Secret lake-ca")
    world.secret("lake-ca", **{"root.pem": ONE})
    world.clock.tick(30)
    await world.settle()
    assert world.live_drivers


async def test_a_secret_that_goes_before_the_next_attempt() -> None:
    world = World()
    world.secret("lake-ca", **{"root.pem": ONE})
    await world.until_running(**OWN)
    world.pod_status(phase="Failed", reason="Evicted")
    world.secret("lake-ca")
    await world.settle()
    world.clock.tick(10)
    await world.settle()
    assert world.condition("Stalled") == ("True", "SecretIncomplete")
    assert not world.live_drivers


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({}, "SecretIncomplete"),
        ({"ca.crt": ONE}, "SecretIncomplete"),
        ({"root.pem": "no certificate"}, "SecretInvalid"),
        ({"root.pem": KEY}, "SecretInvalid"),
        ({"root.pem": ONE * 1000}, "SecretInvalid"),
    ],
)
async def test_a_secret_without_certificates(content: dict[str, str], reason: str) -> None:
    world = World()
    world.secret("lake-ca", **content)
    world.apply(**OWN)
    await world.settle()
    assert world.condition("Stalled") == ("True", reason)
    assert "c2VjcmV0" not in world.message("Stalled")


@pytest.mark.parametrize("storage", [{}, {"caSecretRef": {}}])
async def test_none_is_named(storage: dict[str, Any]) -> None:
    world = World()
    await world.until_running(storage=storage)
    assert "ca.crt" not in world.object("ConfigMap", "churn-1-run")["data"]
    assert world.stores.access is not None
    assert world.stores.access.ca is None
