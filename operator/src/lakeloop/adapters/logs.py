"""Structured logs on standard error: one JSON object per line, or text for people."""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any, TextIO

FIELDS = ("kind", "namespace", "object", "run", "policy", "phase")
"""What a log record may carry through `extra=`, beside its message."""


class JsonFormatter(logging.Formatter):
    """`time` (RFC 3339, UTC), `level`, `logger`, `message`, then what FIELDS names, then `error` with the traceback."""

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        entry: dict[str, Any] = {
            "time": at.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        for field in FIELDS:
            if (value := record.__dict__.get(field)) is not None:
                entry["name" if field == "object" else field] = value
        if record.exc_info:
            entry["error"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False, default=str)


class TextFormatter(logging.Formatter):
    """`12:00:00 INFO message [kind=… name=…]`."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S")

    def formatMessage(self, record: logging.LogRecord) -> str:
        told = [
            f"{'name' if field == 'object' else field}={record.__dict__[field]}"
            for field in FIELDS
            if record.__dict__.get(field) is not None
        ]
        return super().formatMessage(record) + (f" [{' '.join(told)}]" if told else "")


def configure(level: int, form: str, stream: TextIO | None = None) -> None:
    """Sets up the root logger. `form` is `json` or `text`."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    # kopf tells of every event and every handler; what we do about them we log ourselves.
    for noisy in ("kopf", "kopf.objects", "aiohttp.access", "botocore", "urllib3", "asyncio"):
        logging.getLogger(noisy).setLevel(max(level, logging.WARNING))
