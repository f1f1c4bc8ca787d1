"""Structured logs: one JSON object a line on standard error."""

from __future__ import annotations

import json
import logging
import sys
import time


class JsonFormatter(logging.Formatter):
    """`{"time", "level", "logger", "message", "model", "version"}`, and where an exception rose, not its text."""

    def __init__(self, model: str, version: str) -> None:
        super().__init__()
        self._fields = {"model": model, "version": version}

    def format(self, record: logging.LogRecord) -> str:
        """One line of JSON."""
        content = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **self._fields,
        }
        if record.exc_info is not None and record.exc_info[0] is not None:
            content["exception"] = record.exc_info[0].__name__
            trace = record.exc_info[2]
            frames = []
            while trace is not None:
                frames.append(f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}")
                trace = trace.tb_next
            content["trace"] = " > ".join(frames[-6:])
        return json.dumps(content)


def configure(model: str, version: str) -> None:
    """Sends everything from level INFO on to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(model, version))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.captureWarnings(True)
    for chatty in ("uvicorn", "botocore", "boto3", "urllib3", "s3transfer"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    # A library's warning at a prediction may name a caller's values, and comes with each request
    logging.getLogger("py.warnings").setLevel(logging.ERROR)
