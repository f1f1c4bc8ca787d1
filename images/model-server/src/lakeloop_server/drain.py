"""Going away without losing a request.

After SIGTERM the server is not ready any more, but goes on accepting and answering, each answer with
`Connection: close`. A client that respects it comes back on a new connection, which reaches another pod. An idle
keep-alive connection may carry a request at any moment, so that it is left open until it does, or the deadline comes.
Some proxies send new connections for a few seconds more: for so long it stays, also while nobody is connected.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

_POLL_SECONDS = 0.05
# Connections that the kernel has accepted but the loop has not seen yet
_QUIET_SECONDS = 0.5


class Drain:
    """Whether the server is on its way out, and for how long it may be."""

    def __init__(self, seconds: float, least_seconds: float = 0.0, quiet_seconds: float = _QUIET_SECONDS) -> None:
        self._seconds = seconds
        self._least_seconds = least_seconds
        self._quiet_seconds = quiet_seconds
        self.draining = False

    async def begin(self, open_connections: Callable[[], int], now: Callable[[], float]) -> None:
        """Starts draining; returns at the deadline, or before, once no connection has been open for a moment."""
        self.draining = True
        began = quiet_since = now()
        deadline = began + self._seconds
        while now() < deadline:
            if open_connections() > 0:
                quiet_since = now()
            elif (
                now() - quiet_since >= min(self._quiet_seconds, self._seconds) and now() - began >= self._least_seconds
            ):
                return
            await asyncio.sleep(_POLL_SECONDS)
