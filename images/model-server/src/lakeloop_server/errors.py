"""The two ways in which things go wrong: a model that must not serve, and a request that cannot be answered."""

from __future__ import annotations

import json
from enum import StrEnum
from http import HTTPStatus


class Reason(StrEnum):
    """Why a model does not serve; part of the contract with the operator (termination message)."""

    DIGEST_MISMATCH = "DigestMismatch"
    MODEL_NOT_FOUND = "ModelNotFound"
    ENVIRONMENT_MISMATCH = "EnvironmentMismatch"
    SIGNATURE_MISSING = "SignatureMissing"
    LOAD_FAILED = "LoadFailed"
    WARMUP_FAILED = "WarmupFailed"
    CREDENTIALS_REFUSED = "CredentialsRefused"
    STORAGE_UNAVAILABLE = "StorageUnavailable"


class LoadError(Exception):
    """The model must not, or cannot, serve. Ends the process with exit code 3."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason = reason
        self.message = message

    def termination_message(self, limit: int = 4096) -> str:
        """`{"reason": …, "message": …}`, at most `limit` bytes: what the kubelet keeps of a termination message."""
        message = self.message
        while True:
            text = json.dumps({"reason": str(self.reason), "message": message})
            over = len(text.encode()) - limit
            if over <= 0:
                return text
            message = message[: max(0, len(message) - over - 1)] + "…" if len(message) > over + 1 else ""


class RequestError(Exception):
    """A request that is answered with an error, as JSON `{"error_code": …, "message": …}`.

    `message` is shown to the caller: it never holds a value of the request, a path, or an exception's text.
    """

    def __init__(self, status: int, error_code: str, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.error_code = error_code
        self.message = message
        self.headers = headers or {}

    def body(self, v2: bool = False) -> bytes:
        """The JSON body; with `v2`, also the field `error` of the Open Inference Protocol."""
        content = {"error_code": self.error_code, "message": self.message}
        if v2:
            content = {"error": self.message, **content}
        return json.dumps(content).encode()


def bad_request(message: str) -> RequestError:
    """400, with the error code that MLflow uses for input that it cannot read."""
    return RequestError(HTTPStatus.BAD_REQUEST, "BAD_REQUEST", message)
