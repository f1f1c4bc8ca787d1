"""Which deliveries are believed, and what they say."""

import json
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from lakeloop.adapters.webhook import (
    DELIVERY_HEADER,
    MAX_BODY_BYTES,
    SIGNATURE_HEADER,
    TIMESTAMP_HEADER,
    TOLERANCE_SECONDS,
    Inbox,
    Refused,
    RegistryChange,
    sign,
)

SECRET = b"hush"
NOW = datetime(2026, 11, 24, 8, 0, 0, tzinfo=UTC)
STAMP = str(int(NOW.timestamp()))


def body(entity: str = "model_version_alias", **data: Any) -> bytes:
    data = {"name": "churn", "alias": "champion", "version": "5"} | data
    return json.dumps({"entity": entity, "action": "created", "data": data}).encode()


def headers(content: bytes, *, secret: bytes = SECRET, stamp: str = STAMP, delivery: str = "d-1") -> dict[str, str]:
    return {
        DELIVERY_HEADER: delivery,
        TIMESTAMP_HEADER: stamp,
        SIGNATURE_HEADER: sign(secret, delivery, stamp, content),
    }


def test_signature_as_mlflow_makes_it() -> None:
    """A value that `mlflow.webhooks.delivery._generate_hmac_signature` (3.17.2) gave for these arguments."""
    assert sign(b"hush", "d-1", "1764000000", b'{"a": 1}') == "v1,sAWdgWHW4NoA6eM4St7khl3zcbQAx/yoD+2lEp9ISHo="


def test_genuine_delivery() -> None:
    content = body()
    delivery = Inbox(SECRET).check(headers(content), content, NOW)
    assert delivery.change == RegistryChange("churn", "champion", 5, NOW)


@pytest.mark.parametrize(
    ("content", "change"),
    [
        pytest.param(body("model_version", alias=None), ("churn", None, 5), id="version-created"),
        pytest.param(body(version=None), ("churn", "champion", None), id="alias-deleted"),
        pytest.param(body(version="five"), ("churn", "champion", None), id="version-not-a-number"),
        pytest.param(body("prompt"), None, id="another-entity"),
    ],
)
def test_what_it_says(content: bytes, change: tuple[Any, ...] | None) -> None:
    found = Inbox(SECRET).check(headers(content), content, NOW).change
    assert (found and (found.model, found.alias, found.version)) == change


GOOD = body()


@pytest.mark.parametrize(
    ("given", "content", "status"),
    [
        pytest.param(headers(GOOD, secret=b"other"), GOOD, 401, id="another-secret"),
        pytest.param(headers(body(version="6")), GOOD, 401, id="another-body"),
        pytest.param({**headers(GOOD), DELIVERY_HEADER: "d-2"}, GOOD, 401, id="another-id"),
        pytest.param({**headers(GOOD), TIMESTAMP_HEADER: str(int(STAMP) + 1)}, GOOD, 401, id="another-time"),
        pytest.param({**headers(GOOD), SIGNATURE_HEADER: ""}, GOOD, 401, id="no-signature"),
        pytest.param({**headers(GOOD), SIGNATURE_HEADER: "v1,é"}, GOOD, 401, id="signature-not-ascii"),
        pytest.param({}, GOOD, 401, id="no-headers"),
        pytest.param(headers(GOOD, delivery="d" * 200), GOOD, 401, id="long-id"),
        pytest.param(headers(GOOD, stamp=str(int(STAMP) - TOLERANCE_SECONDS - 1)), GOOD, 401, id="stale"),
        pytest.param(headers(GOOD, stamp=str(int(STAMP) + TOLERANCE_SECONDS + 1)), GOOD, 401, id="from-the-future"),
        pytest.param(headers(GOOD, stamp="soon"), GOOD, 401, id="time-not-a-number"),
        pytest.param(headers(GOOD, stamp="9" * 30), GOOD, 401, id="time-out-of-range"),
        pytest.param(headers(b"not json"), b"not json", 400, id="not-json"),
        pytest.param(headers(b"[]"), b"[]", 400, id="not-an-object"),
        pytest.param(headers(body(name=7)), body(name=7), 400, id="name-not-a-string"),
        pytest.param(headers(b"x" * (MAX_BODY_BYTES + 1)), b"x" * (MAX_BODY_BYTES + 1), 413, id="too-large"),
        pytest.param(headers(b"[" * 60_000), b"[" * 60_000, 400, id="too-deep"),
    ],
)
def test_refused(given: dict[str, str], content: bytes, status: int) -> None:
    with pytest.raises(Refused) as caught:
        Inbox(SECRET).check(given, content, NOW)
    assert caught.value.status == status
    assert "hush" not in caught.value.reason


def test_one_of_several_signatures_is_enough() -> None:
    content = body()
    given = headers(content)
    given[SIGNATURE_HEADER] = f"v1,bm90IHRoaXMgb25l {given[SIGNATURE_HEADER]}"
    assert Inbox(SECRET).check(given, content, NOW).change is not None


def test_repeat_is_known_only_once_accepted() -> None:
    inbox, content = Inbox(SECRET), body()
    first = inbox.check(headers(content), content, NOW)
    assert not inbox.is_repeat(first)
    again = inbox.check(headers(content), content, NOW + timedelta(seconds=2))
    assert not inbox.is_repeat(again), "the first try may have been answered with 503"
    inbox.accept(first)
    assert inbox.is_repeat(again)


def test_memory_of_deliveries_is_bounded() -> None:
    inbox, content = Inbox(SECRET), body()
    began = time.perf_counter()
    first = inbox.check(headers(content, delivery="first"), content, NOW)
    inbox.accept(first)
    for i in range(5000):
        inbox.accept(type(first)(f"d-{i}", None))
    assert len(inbox._seen) == 4096
    assert not inbox.is_repeat(first)
    assert time.perf_counter() - began < 1


def test_no_secret_lets_nobody_in() -> None:
    with pytest.raises(ValueError, match="would let anybody in"):
        Inbox(b"")
