"""MLflow's registry webhooks: is a delivery genuine, fresh and new, and which model is it about?

Headers and signature as in MLflow 3's `mlflow.webhooks.delivery`, which follows https://www.standardwebhooks.com:
HMAC-SHA256 over `<delivery id>.<unix time>.<body>`, in base64 after `v1,`. MLflow tries a delivery again with the same
id and time after 429 and 5xx, so that an id counts as seen only once its delivery was accepted.
"""

import base64
import hashlib
import hmac
import json
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

SIGNATURE_HEADER = "X-MLflow-Signature"
TIMESTAMP_HEADER = "X-MLflow-Timestamp"
DELIVERY_HEADER = "X-MLflow-Delivery-Id"
TOLERANCE_SECONDS = 300
"""How far a delivery's time may be from ours, either way. As in the Standard Webhooks' reference code."""
MAX_BODY_BYTES = 64 * 1024
MAX_ID_LENGTH = 128
IDS_REMEMBERED = 4096


class Refused(Exception):
    """A delivery that is not acted on. `status` is the HTTP status to answer; the message tells nothing secret."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


@dataclass(frozen=True, slots=True)
class RegistryChange:
    """What a delivery says. A hint only: the registry itself is read before anything is done."""

    model: str
    alias: str | None
    version: int | None
    time: datetime
    """When MLflow sent it, to the second: the alias moved a moment before."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """A genuine delivery. `change` is None where it is about nothing that we follow (another entity)."""

    id: str
    change: RegistryChange | None


def sign(secret: bytes, delivery_id: str, timestamp: str, body: bytes) -> str:
    """The value of the signature header."""
    signed = b".".join((delivery_id.encode(), timestamp.encode(), body))
    return "v1," + base64.b64encode(hmac.new(secret, signed, hashlib.sha256).digest()).decode()


class Inbox:
    """Checks deliveries, and knows those of late."""

    def __init__(self, secret: bytes) -> None:
        if not secret:
            raise ValueError("an empty webhook secret would let anybody in")
        self._secret = secret
        self._seen: OrderedDict[str, None] = OrderedDict()

    def check(self, headers: Mapping[str, str], body: bytes, now: datetime) -> Delivery:
        """Raises Refused: 401 for a signature or time that is wrong, 400 for a body that is, 413 for one too large."""
        if len(body) > MAX_BODY_BYTES:
            raise Refused(413, "the body is too large")
        delivery_id = headers.get(DELIVERY_HEADER, "")
        timestamp = headers.get(TIMESTAMP_HEADER, "")
        if not delivery_id or len(delivery_id) > MAX_ID_LENGTH or not timestamp:
            raise Refused(401, f"{DELIVERY_HEADER} and {TIMESTAMP_HEADER} must be there")
        # Several signatures, with a space between them, while a secret is being changed.
        expected = sign(self._secret, delivery_id, timestamp, body).encode()
        given = headers.get(SIGNATURE_HEADER, "").split(" ")
        if not any(hmac.compare_digest(expected, each.encode()) for each in given):
            raise Refused(401, f"{SIGNATURE_HEADER} does not fit the body and the shared secret")
        sent = _time(timestamp)
        if sent is None or abs((now - sent).total_seconds()) > TOLERANCE_SECONDS:
            raise Refused(401, f"{TIMESTAMP_HEADER} is not within {TOLERANCE_SECONDS} s of now")
        return Delivery(delivery_id, _change(body, sent))

    def is_repeat(self, delivery: Delivery) -> bool:
        """Whether it was accepted before."""
        return delivery.id in self._seen

    def accept(self, delivery: Delivery) -> None:
        """It has been acted on."""
        self._seen[delivery.id] = None
        if len(self._seen) > IDS_REMEMBERED:
            self._seen.popitem(last=False)


def _time(timestamp: str) -> datetime | None:
    try:
        return datetime.fromtimestamp(int(timestamp), UTC)
    except (ValueError, OverflowError, OSError):
        return None


def _change(body: bytes, sent: datetime) -> RegistryChange | None:
    try:
        payload = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Refused(400, "the body is not JSON") from error
    data = payload.get("data") if isinstance(payload, dict) else None
    if not isinstance(data, dict):
        raise Refused(400, "the body has no `data`")
    if payload.get("entity") not in ("model_version_alias", "model_version"):
        return None
    model, alias, version = data.get("name"), data.get("alias"), data.get("version")
    if not isinstance(model, str) or not model:
        raise Refused(400, "`data.name` must be a model's name")
    return RegistryChange(
        model=model,
        alias=alias if isinstance(alias, str) else None,
        version=int(version) if isinstance(version, (str, int)) and str(version).isdecimal() else None,
        time=sent,
    )
