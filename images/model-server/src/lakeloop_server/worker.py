"""One serving process: forked from the one that loaded the model, so that all share the model's memory."""

from __future__ import annotations

import gc
import json
import logging
import os
import socket
import time
from collections.abc import Mapping

from lakeloop_server import memory, serving
from lakeloop_server.app import Api
from lakeloop_server.drain import Drain
from lakeloop_server.errors import LoadError
from lakeloop_server.fast import fast_path
from lakeloop_server.metrics import Metrics
from lakeloop_server.model import ServedModel, warm_up
from lakeloop_server.predictor import Predictor
from lakeloop_server.settings import Settings

logger = logging.getLogger(__name__)
GO = b"go"


def serve(
    model: ServedModel, settings: Settings, sock: socket.socket, parent: socket.socket, phases: Mapping[str, float]
) -> None:
    """Warms the model up, tells the parent, waits for its word, then answers until it is drained.

    Over `parent` goes one JSON line, `{"reason": null}` or `{"reason": …, "message": …}`, and back comes `go`.
    """
    gc.enable()
    memory.limit_process(memory.available())
    metrics = Metrics(model.name, model.version)
    started = time.monotonic()
    try:
        warnings = warm_up(model)
    except LoadError as error:
        parent.sendall(json.dumps({"reason": error.reason, "message": error.message}).encode() + b"\n")
        return
    fast = fast_path(model)
    metrics.loaded(model.digest, {**phases, "warm-up": time.monotonic() - started})
    for warning in warnings:
        logger.warning("%s", warning)
    parent.sendall(b'{"reason": null}\n')
    if parent.recv(len(GO)) != GO:
        os._exit(1)
    predictor = Predictor(settings.threads, settings.max_queue, settings.request_timeout_seconds, metrics, _give_up)
    drain = Drain(settings.drain_seconds, settings.drain_least_seconds)
    application = Api(model, warnings, settings, predictor, metrics, fast).build(drain)
    serving.run(application, settings.model, sock, drain, parent)


def _give_up() -> None:
    """Ends this process: its threads are all held by predictions that do not end. The parent forks another one."""
    logger.error("every thread is held by a prediction that does not end: starting over")
    for handler in logging.getLogger().handlers:
        handler.flush()
    os._exit(1)
