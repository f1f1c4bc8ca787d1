"""The HTTP interface: MLflow's, the Open Inference Protocol's, probes and metrics."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any

from mlflow.version import VERSION as MLFLOW_VERSION
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lakeloop_server import v2
from lakeloop_server.batching import Batcher
from lakeloop_server.drain import Drain
from lakeloop_server.errors import RequestError, bad_request
from lakeloop_server.fast import FastPath
from lakeloop_server.invocations import ModelFailure, predict, score, unwritable
from lakeloop_server.metrics import CONTENT_TYPE, Metrics, exposition
from lakeloop_server.model import JSON, ServedModel
from lakeloop_server.predictor import Predictor
from lakeloop_server.settings import Settings

logger = logging.getLogger(__name__)
SERVER_NAME = "lakeloop-server"
_PLAIN_ROUTES = {"/invocations", "/ping", "/health", "/live", "/version", "/metrics", "/v2"}
_CLIENT_CLOSED_REQUEST = 499  # nginx's, for the metric only: nobody is there to read an answer
_BODY_SECONDS = 30.0
# Read of a refused body, and thrown away: a client that still writes when the connection closes never sees the 413
_DISCARD_BYTES = 16 * 1024 * 1024
# What all requests together may hold in memory, in bodies of the largest size
_MOST_LARGEST_BODIES = 8
# Bodies that are read in the event loop
_SMALL_BYTES = 32 * 1024
_CODES = {404: "ENDPOINT_NOT_FOUND", 405: "METHOD_NOT_ALLOWED"}


def route_of(path: str) -> str:
    """The metric label of a path: one of a fixed list, whatever callers ask for."""
    if path in _PLAIN_ROUTES:
        return path
    if path.startswith("/v2/health/"):
        return "/v2/health"
    if path.startswith("/v2/models/"):
        last = path.rpartition("/")[2]
        return f"/v2/models/{last}" if last in ("infer", "ready") else "/v2/models"
    return "other"


class Edge:
    """Around every route: counts, closed connections while draining, errors as JSON."""

    def __init__(self, app: ASGIApp, metrics: Metrics, drain: Drain, fast: FastPath | None = None) -> None:
        self._app = app
        self._metrics = metrics
        self._drain = drain
        self._fast = fast
        self.short = self._short if fast is not None and fast.quick_rows > 0 else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        # `mlflow models serve` redirects from here; behind a gateway that rewrites paths that would lead elsewhere
        if scope["path"].endswith("/") and scope["path"] != "/":
            scope["path"] = scope["path"].rstrip("/") or "/"
        started = time.perf_counter()
        status = 0

        async def send_marked(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if self._drain.draining:
                    MutableHeaders(scope=message)["connection"] = "close"
            await send(message)

        try:
            await self._app(scope, receive, send_marked)
        except ClientDisconnect:
            status = _CLIENT_CLOSED_REQUEST
        except Exception as error:
            # Starlette has answered with `_on_failure`, and hands the exception on for this line
            logger.error("unexpected %s while answering", type(error).__name__, exc_info=error)
        finally:
            self._metrics.answered(route_of(scope["path"]), status, time.perf_counter() - started)

    def _short(self, content_type: str, body: bytes, started: float) -> bytes | None:
        """The answer to a small POST /invocations, computed in the event loop: only what surely takes less than that.

        None for whatever is unusual: the application then answers.
        """
        assert self._fast is not None  # noqa: S101 - `short` is only set with it
        if self._drain.draining:
            return None
        try:
            answer = self._fast.score(body, content_type, self._fast.quick_rows)
        except Exception:
            return None
        if answer is not None:
            self._metrics.answered("/invocations", HTTPStatus.OK, time.perf_counter() - started)
        return answer


def _error_response(error: RequestError, path: str) -> Response:
    return Response(error.body(v2=path.startswith("/v2")), error.status, error.headers, media_type=JSON)


async def _on_request_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestError)  # noqa: S101 - registered for this class
    return _error_response(error, request.url.path)


async def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for this class
    code = _CODES.get(error.status_code, "BAD_REQUEST")
    shown = RequestError(error.status_code, code, HTTPStatus(error.status_code).phrase, dict(error.headers or {}))
    return _error_response(shown, request.url.path)


async def _on_failure(request: Request, _: Exception) -> Response:
    failure = RequestError(HTTPStatus.INTERNAL_SERVER_ERROR, "INTERNAL_ERROR", "The server failed")
    return _error_response(failure, request.url.path)


class Api:
    """The routes, over one loaded model."""

    def __init__(
        self,
        model: ServedModel,
        warnings: list[str],
        settings: Settings,
        predictor: Predictor,
        metrics: Metrics,
        fast: FastPath | None = None,
    ) -> None:
        self._model = model
        self._warnings = [*model.warnings, *warnings]
        self._settings = settings
        self._predictor = predictor
        self._metrics = metrics
        self._fast = fast
        self._batcher: Batcher | None = None
        if fast is not None:
            fast.stages = metrics.stages("numbers")
            if fast.kernel.independent and settings.batch_max_size > 1:
                delay = settings.batch_max_delay_seconds
                self._batcher = Batcher(fast, predictor, settings.batch_max_size, delay, metrics)
        self._stages = metrics.stages("mlflow")
        self._bodies = 0

    def build(self, drain: Drain) -> ASGIApp:
        """The ASGI application."""

        async def ready(_: Request) -> Response:
            if drain.draining:
                raise RequestError(HTTPStatus.SERVICE_UNAVAILABLE, "TEMPORARILY_UNAVAILABLE", "The server is stopping")
            return Response("\n", media_type=JSON)

        async def v2_ready(request: Request) -> Response:
            self._named(request)
            await ready(request)
            return _json({"name": self._model.name, "ready": True})

        async def v2_health_ready(request: Request) -> Response:
            await ready(request)
            # The text of the protocol says "live" here, its implementations "ready"
            return _json({"ready": True, "live": True})

        routes = [
            Route("/invocations", self.invocations, methods=["POST"]),
            Route("/ping", ready),
            Route("/health", ready),
            Route("/live", self.live),
            Route("/version", self.version),
            Route("/metrics", self.metrics),
            Route("/v2", self.v2_server),
            Route("/v2/health/live", self.v2_live),
            Route("/v2/health/ready", v2_health_ready),
        ]
        for base in ("/v2/models/{name}", "/v2/models/{name}/versions/{version}"):
            routes += [
                Route(base, self.v2_model),
                Route(f"{base}/ready", v2_ready),
                Route(f"{base}/infer", self.v2_infer, methods=["POST"]),
            ]
        app = Starlette(
            routes=routes,
            exception_handlers={
                RequestError: _on_request_error,
                HTTPException: _on_http_exception,
                Exception: _on_failure,
            },
        )
        app.router.redirect_slashes = False
        return Edge(app, self._metrics, drain, self._fast)

    async def invocations(self, request: Request) -> Response:
        """POST /invocations, as `mlflow models serve`."""
        content_type = request.headers.get("content-type")
        async with self._body(request) as body:
            answer = await self._score_small(body, content_type) if len(body) <= _SMALL_BYTES else None
            if answer is None:
                answer = await self._predict(lambda: self._score(body, content_type))
        return Response(answer, media_type=JSON)

    async def _score_small(self, body: bytes, content_type: str | None) -> bytes | None:
        """The answer to a body that takes no time to read, or None: it is not known in a short way."""
        rows = self._fast.rows(body, content_type) if self._fast is not None else None
        if rows is None or self._fast is None:
            return None
        if len(rows) <= self._fast.quick_rows:
            return self._fast.answer(rows)
        if self._batcher is not None and len(rows) < self._settings.batch_max_size:
            return await self._batcher.answer(rows)
        return None

    def _score(self, body: bytes, content_type: str | None) -> bytes:
        found = self._fast.score(body, content_type) if self._fast is not None else None
        return score(body, content_type, self._model, self._stages) if found is None else found

    async def _predict(self, work: Callable[[], bytes]) -> bytes:
        try:
            return await self._predictor.run(work)
        except ModelFailure:
            self._metrics.failures.inc()
            raise

    @asynccontextmanager
    async def _body(self, request: Request) -> AsyncIterator[bytes]:
        """The whole body, counted as long as it is used. Raises RequestError: 408, 413, 415, 503."""
        if request.headers.get("content-encoding", "identity").lower() != "identity":
            raise RequestError(
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "UNSUPPORTED_MEDIA_TYPE", "Send the body without Content-Encoding"
            )
        limit = self._settings.max_body_bytes
        # A refused body may not be read to its end, so that the connection cannot be used again
        too_large = RequestError(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            "REQUEST_TOO_LARGE",
            f"The body is larger than the {limit} bytes that this server takes",
            {"connection": "close"},
        )
        declared = request.headers.get("content-length", "")
        refused = declared.isdigit() and int(declared) > limit
        if refused and "expect" in request.headers:
            raise too_large
        body = bytearray()
        size = held = 0
        try:
            try:
                async with asyncio.timeout(_BODY_SECONDS):
                    async for chunk in request.stream():
                        size += len(chunk)
                        refused = refused or size > limit
                        if size > limit + _DISCARD_BYTES:
                            break
                        if refused:
                            body.clear()
                            continue
                        held += len(chunk)
                        self._bodies += len(chunk)
                        if self._bodies > limit * _MOST_LARGEST_BODIES:
                            raise self._predictor.overload({"connection": "close"})
                        body += chunk
            except TimeoutError:
                raise RequestError(
                    HTTPStatus.REQUEST_TIMEOUT,
                    "REQUEST_TIMEOUT",
                    "The body did not arrive in time",
                    {"connection": "close"},
                ) from None
            if refused:
                raise too_large
            yield bytes(body)
        finally:
            self._bodies -= held

    async def live(self, _: Request) -> Response:
        """GET /live: the event loop turns."""
        return Response("\n", media_type=JSON)

    async def version(self, _: Request) -> Response:
        """GET /version: MLflow's, as `mlflow models serve` answers it."""
        return Response(MLFLOW_VERSION, media_type=JSON)

    async def metrics(self, _: Request) -> Response:
        """GET /metrics."""
        return Response(exposition(), headers={"content-type": CONTENT_TYPE})

    async def v2_server(self, _: Request) -> Response:
        """GET /v2."""
        from lakeloop_server import VERSION

        return _json({"name": SERVER_NAME, "version": VERSION, "extensions": []})

    async def v2_live(self, _: Request) -> Response:
        """GET /v2/health/live."""
        return _json({"live": True})

    def _named(self, request: Request) -> None:
        name, version = request.path_params["name"], request.path_params.get("version", self._model.version)
        if (name, version) != (self._model.name, self._model.version):
            raise RequestError(
                HTTPStatus.NOT_FOUND,
                "RESOURCE_DOES_NOT_EXIST",
                f"This server serves {self._model.name} version {self._model.version}",
            )

    async def v2_model(self, request: Request) -> Response:
        """GET /v2/models/{name}[/versions/{version}]: metadata, with digest, signature and warnings."""
        self._named(request)
        return _json(
            {
                "name": self._model.name,
                "versions": [self._model.version],
                "platform": "mlflow_pyfunc",
                "inputs": v2.tensor_metadata(self._model.input_schema, "input"),
                "outputs": v2.tensor_metadata(self._model.output_schema, "predictions"),
                "parameters": {
                    "digest": self._model.digest,
                    "warnings": self._warnings,
                    "signature": self._model.signature,
                },
            }
        )

    async def v2_infer(self, request: Request) -> Response:
        """POST /v2/models/{name}[/versions/{version}]/infer."""
        self._named(request)
        if "inference-header-content-length" in request.headers:
            raise bad_request("The binary tensor extension is not supported; send tensors as JSON")
        content_type = request.headers.get("content-type", JSON)
        if content_type.split(";")[0].strip().lower() != JSON:
            raise RequestError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "UNSUPPORTED_MEDIA_TYPE", "Send application/json")
        async with self._body(request) as body:
            answer = self._infer_small(body) if len(body) <= _SMALL_BYTES else None
            if answer is None:
                answer = await self._predict(lambda: self._infer(body))
        return Response(answer, media_type=JSON)

    def _infer_small(self, body: bytes) -> bytes | None:
        """The answer to a body that takes no time to read and to predict, or None: it is not known in a short way."""
        fast = self._fast
        if fast is None or fast.quick_rows == 0:
            return None
        try:
            query = v2.parse_infer(json.loads(body), self._model.params_schema)
            rows = fast.of_tensors(query.tensors)
            if rows is None or len(rows) > fast.quick_rows or query.params is not None:
                return None
            raw = fast.predict(rows)
            return None if raw is None else self._outputs(query, raw)
        except Exception:
            # The long way says what is wrong
            return None

    def _infer(self, body: bytes) -> bytes:
        try:
            payload = json.loads(body)
        except json.JSONDecodeError as error:
            raise bad_request(f"The body is not valid JSON: line {error.lineno} column {error.colno}") from None
        except (ValueError, RecursionError):
            raise bad_request("The body is not JSON that can be read") from None
        query = v2.parse_infer(payload, self._model.params_schema)
        rows = self._fast.of_tensors(query.tensors) if self._fast is not None and query.params is None else None
        raw = self._fast.predict(rows) if self._fast is not None and rows is not None else None
        if raw is None:
            raw = predict(self._model, v2.to_model_input(query.tensors, self._model.input_schema), query.params)
        try:
            return self._outputs(query, raw)
        except RequestError:
            raise
        except Exception as error:
            raise unwritable(raw) from error

    def _outputs(self, query: v2.InferRequest, raw: Any) -> bytes:
        answer: dict[str, Any] = {"model_name": self._model.name, "model_version": self._model.version}
        if query.id is not None:
            answer["id"] = query.id
        answer["outputs"] = v2.encode_outputs(raw, self._model.output_schema, query.outputs)
        return json.dumps(answer, allow_nan=False).encode()


def _json(content: dict[str, Any]) -> Response:
    return Response(json.dumps(content), media_type=JSON)
