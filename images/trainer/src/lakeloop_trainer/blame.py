"""Whether the user's own code is to blame for the exception that came out of it.

A full disk, a store or an MLflow that does not answer would have ended any program, and may be better at the next try.
Only what names the run's own servers counts: what else a program talks to is its own affair.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from urllib.parse import urlsplit

from lakeloop_trainer.failures import FIELD_OF, Context, classify, texts

_ALWAYS = frozenset({"DiskFull", "StorageFull"})
_FIELDS = {"StorageUnavailable": "spec.storage", "TrackingUnavailable": "spec.tracking"}


def not_the_codes(error: BaseException, environ: Mapping[str, str] | None = None) -> tuple[str, str] | None:
    """Reason and field of an exception that the platform is to blame for; None where it is the program."""
    environ = os.environ if environ is None else environ
    everything = "\n".join(texts(error))
    names_tracking = _names(everything, environ.get("MLFLOW_TRACKING_URI"))
    reason = classify(error, Context("", "ScriptFailed", service="tracking" if names_tracking else "storage")).reason
    if reason in _ALWAYS:
        return reason, FIELD_OF[reason]
    if names_tracking and reason in _FIELDS:
        return "TrackingUnavailable", _FIELDS["TrackingUnavailable"]
    names_store = _names(everything, environ.get("AWS_ENDPOINT_URL_S3")) or re.search(r"s3a://|fs\.s3a", everything)
    if names_store and reason == "StorageUnavailable":
        return reason, _FIELDS[reason]
    return None


def _names(text: str, url: str | None) -> bool:
    """Whether the text holds the URL's host and port, in any of the ways that clients write them."""
    host = urlsplit(url or "").hostname
    return bool(host) and re.search(rf"(?<![\w.-]){re.escape(host or '')}(?![\w-])", text) is not None
