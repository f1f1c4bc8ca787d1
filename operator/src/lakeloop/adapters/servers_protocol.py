"""What is asked of a running model server."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from lakeloop.domain.deployment.analysis import Counters


@dataclass(frozen=True, slots=True)
class ServerReport:
    """What a server says of the model that it has loaded. `digest` is `sha256:…`; the signature is as it tells it."""

    digest: str | None
    warnings: Sequence[str] = ()
    signature: object = None


class ModelServers(Protocol):
    """Model servers, by the address of their pod."""

    async def report(self, address: str, model: str) -> ServerReport | None:
        """None where it does not answer, or not as it should."""

    async def counters(self, address: str) -> Counters | None:
        """What it has answered since it started; None where it does not answer, or not as it should."""
