"""What can go wrong in a run, and under which class and reason it is reported.

The classes and reasons are part of the resource's API: the operator retries by class and writes the reason into
status. Messages name the field and what to do; they never carry a secret, a row of data or a stack trace.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

DATA = "Data"
APPLICATION = "Application"
INFRASTRUCTURE = "Infrastructure"
SUBMISSION = "Submission"

REASONS: Mapping[str, frozenset[str]] = {
    DATA: frozenset(
        {
            "TableNotFound", "VersionNotFound", "ColumnNotFound", "EmptyTable", "TargetAllNull", "SingleClass",
            "NonNumericFeature", "NullFeature", "SourceChanged", "QueryFailed", "IngestFailed", "SchemaMismatch",
            "DatasetTooLarge", "ExpectationViolated", "ExpectationInvalid", "NullTime", "NullKey", "DuplicateKey",
            "VersionVacuumed",
        }
    ),
    APPLICATION: frozenset(
        {
            "ImportError", "InvalidParameter", "AmbiguousNumber", "FitFailed", "EvaluationFailed", "SearchFailed",
            "ScriptNotFound", "ScriptFailed", "ProjectNotFound", "InvalidProject", "ProjectFailed", "CodeRefused",
            "CodeChanged", "DependenciesUnavailable", "NoModelLogged", "MetricMissing",
        }
    ),
    INFRASTRUCTURE: frozenset(
        {
            "StorageUnavailable", "StorageFull", "TrackingUnavailable", "ExecutorsUnavailable", "GitUnavailable",
            "DiskFull", "DriverError",
        }
    ),
    SUBMISSION: frozenset({"CredentialsRefused", "BucketNotFound", "InvalidConf"}),
}  # fmt: skip
FIELD_OF = {
    "ExecutorsUnavailable": "spec.spark.executor",
    "DiskFull": "spec.spark",
    "StorageFull": "spec.storage",
}
"""Reasons that have their field wherever they come up."""
CLASS_OF = {reason: failure_class for failure_class, reasons in REASONS.items() for reason in reasons}

MAX_MESSAGE = 1000
STORAGE_SECRET = "spec.storage.secretRef"  # noqa: S105 (a field, not a secret)
TRACKING_SECRET = "spec.tracking.secretRef"  # noqa: S105
SECRET_VARIABLES = (
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_ACCESS_KEY_ID",
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_TOKEN",
    "GIT_PASSWORD",
)


class RunFailure(Exception):
    """A run that cannot go on.

    ``reason`` is one of `REASONS` and fixes the class; ``field`` is the path in the TrainingJob that the user should
    look at (``spec.dataset.target``), or None where no field is to blame.
    """

    def __init__(self, reason: str, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.failure_class = CLASS_OF[reason]
        self.reason = reason
        self.field = field
        self.message = message


@dataclass(frozen=True)
class Context:
    """What the program was doing when an exception came up."""

    doing: str
    reason: str
    """The reason to give where the exception says nothing better."""
    field: str | None = None
    values_may_leak: bool = True
    """Whether the exception's text can hold values of rows: quoted literals are then blanked."""
    service: str = "storage"
    """What is on the other end of a broken connection: ``storage`` or ``tracking``."""


# (pattern over exception class names, error conditions and messages, reason). First match wins, so causes that
# explain others (a refused key explains a missing table) come first. Names are those of Hadoop's S3A, of the AWS
# SDK, of Spark's error-conditions.json and of Delta's delta-error-classes.json.
_CONNECTION = (
    r"ConnectException|Connection refused|ConnectTimeout|UnknownHostException|NoRouteToHost|EndpointConnectionError"
    r"|Could not connect to the endpoint|Failed to establish a new connection|Unable to execute HTTP request"
    r"|Max retries exceeded|ReadTimeout|AWSServiceIOException|AWSStatus5|ServiceUnavailable|SlowDown|SocketTimeout"
    r"|Temporary failure in name resolution|Name or service not known|ConnectionError|ConnectionClosedError"
    r"|Connection reset|IncompleteBody|InternalError\)|503 Service Unavailable|too many 5\d\d error responses"
)
_PATTERNS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), reason)
    for pattern, reason in (
        (
            r"InvalidAccessKeyId|SignatureDoesNotMatch|AccessDenied|InvalidToken|ExpiredToken|NoAuthWithAWSException"
            r"|NoAwsCredentials|NoCredentialsError|Unable to locate credentials|TokenRefreshRequired"
            r"|\(403\)|Status Code: 403|error code 40[13]\b|HTTP 40[13]|UNAUTHENTICATED|PERMISSION_DENIED|Unauthorized",
            "CredentialsRefused",
        ),
        (
            r"ExecutorLostFailure|SparkContext was shut down|stopped SparkContext|SparkContext has been shut ?down",
            "ExecutorsUnavailable",
        ),
        (r"NoSuchBucket|UnknownStoreException|BucketNotFound", "BucketNotFound"),
        (
            r"XMinioStorageFull|minimum free drive threshold|BucketQuotaExceeded|Bucket quota exceeded"
            r"|InsufficientStorage|Status Code: 507",
            "StorageFull",
        ),
        (r"No space left on device|Disk quota exceeded", "DiskFull"),
        (_CONNECTION, "StorageUnavailable"),
        (
            r"DELTA_VERSION_NOT_FOUND|VersionNotFoundException|VERSION_NOT_FOUND"
            r"|DELTA_UNRECOVERABLE|DELTA_LOG_FILE_NOT_FOUND|DELTA_TRUNCATED_TRANSACTION_LOG"
            r"|Cannot time travel Delta table to version",
            "VersionNotFound",
        ),
        (
            r"DELTA_TABLE_NOT_FOUND|DELTA_PATH_DOES_NOT_EXIST|DELTA_MISSING_DELTA_TABLE|DELTA_NOT_A_DELTA_TABLE"
            r"|DELTA_TABLE_ONLY_OPERATION|DELTA_MISSING_TRANSACTION_LOG|TABLE_OR_VIEW_NOT_FOUND",
            "TableNotFound",
        ),
        (r"UNRESOLVED_COLUMN|UNRESOLVED_USING_COLUMN|FIELD_NOT_FOUND|DELTA_COLUMN_NOT_FOUND", "ColumnNotFound"),
        (
            r"DELTA_METADATA_MISMATCH|DELTA_SCHEMA_MISMATCH|DELTA_FAILED_TO_MERGE_FIELDS|DELTA_MERGE_INCOMPATIBLE"
            r"|DELTA_SCHEMA_CHANGE|A schema mismatch detected|DELTA_NOT_NULL_CONSTRAINT_VIOLATED"
            r"|DELTA_VIOLATE_CONSTRAINT",
            "SchemaMismatch",
        ),
        (
            r"OutOfMemoryError|Java heap space|spark\.driver\.maxResultSize|MemoryError|GC overhead limit",
            "DatasetTooLarge",
        ),
    )
)

_LITERAL = re.compile(r"'[^'\n]*'")
_URL_CREDENTIALS = re.compile(r"(\w+://)[^/@\s]+@")
# Spark's wrappings of what really happened in a task.
_SAYS_NOTHING = re.compile(r"TASK_WRITE_FAILED|Job aborted|in awaitResult|WRITING_JOB_ABORTED")
_STACK_LINE = re.compile(r"^\s*(at |\.\.\. \d+ more|Caused by:|SQLSTATE|== SQL)")


def scrub(text: str, secrets: Mapping[str, str] | None = None) -> str:
    """Text without the values of secret variables and without credentials in URLs.

    ``secrets`` maps names to values; default: `SECRET_VARIABLES` of the environment.
    """
    if secrets is None:
        secrets = {name: os.environ[name] for name in SECRET_VARIABLES if os.environ.get(name)}
    for value in sorted(secrets.values(), key=len, reverse=True):
        if value:
            text = text.replace(value, "***")
    return _URL_CREDENTIALS.sub(r"\1***@", text)


def classify(error: BaseException, context: Context) -> RunFailure:
    """The failure that an exception of Spark, Delta, S3A, boto3, MLflow or scikit-learn stands for."""
    if isinstance(error, RunFailure):
        return error
    everything = "\n".join(texts(error))
    reason = context.reason
    for pattern, found in _PATTERNS:
        if pattern.search(everything):
            reason = found
            break
    if reason == "StorageUnavailable" and context.service == "tracking" and not _is_storage(everything):
        reason = "TrackingUnavailable"
    field = context.field
    if reason == "CredentialsRefused":
        field = (
            "spec.tracking.secretRef"
            if context.service == "tracking" and not _is_storage(everything)
            else STORAGE_SECRET
        )
    field = FIELD_OF.get(reason, field)
    detail = exception_line(error)
    if context.values_may_leak:
        detail = _LITERAL.sub("'…'", detail)
    message = _shorten(scrub(f"{context.doing} failed: {detail}{advice(reason)}"))
    return RunFailure(reason, message, field)


_MISSING_FILE = re.compile(r"FILE_NOT_EXIST|FileNotFoundException|DELTA_FILE_NOT_FOUND|PathNotFound|NoSuchKey")
_PATH = re.compile(r"(?:\w+:/|/)[^\s'\",;]+")
_SCHEME = re.compile(r"^\w+:/+|^/+")


def vacuumed(
    error: BaseException, tables: Mapping[str, tuple[str, int]], fields: Mapping[str, str]
) -> RunFailure | None:
    """The failure of a table's data file that is gone; None where the exception tells of something else.

    ``tables``: input → (URI, version), ``fields``: input → its path in the TrainingJob.
    """
    everything = "\n".join(texts(error))
    if not _MISSING_FILE.search(everything):
        return None
    missing = [_SCHEME.sub("", path) for path in _PATH.findall(everything)]
    for name, (uri, version) in tables.items():
        folder = _SCHEME.sub("", uri).rstrip("/") + "/"
        if any(path.startswith(folder) and "/_delta_log" not in path and "/_lakeloop" not in path for path in missing):
            return RunFailure(
                "VersionVacuumed",
                f"{fields[name]}: a file that version {version} of {uri} needs is gone, by VACUUM or by hand; read a "
                "later version, and keep files longer by the table's property delta.deletedFileRetentionDuration",
                fields[name],
            )
    return None


def exception_line(error: BaseException) -> str:
    """One line that names the exception and says what it says, without a stack trace."""
    java = getattr(error, "java_exception", None)
    if java is None and _SAYS_NOTHING.search(_first_line(str(error))):
        java = getattr(error, "_origin", None)
    if java is not None:
        lines = [_first_line(text) for text in _java_causes(java)]
        telling = [line for line in lines if line and not _SAYS_NOTHING.search(line)] or lines
        # what failed and, where that is a consequence, what it came from
        return telling[0] if telling[0] == telling[-1] or telling[0] is lines[0] else f"{telling[0]}: {telling[-1]}"
    condition = _condition(error)
    text = _first_line(str(error)) or type(error).__name__
    return text if condition else f"{type(error).__name__}: {text}"


def advice(reason: str) -> str:
    """What to do, in brackets; empty where the message says it all."""
    return {
        "CredentialsRefused": " (check the keys in the Secret that this field names, and what they may do)",
        "ExecutorsUnavailable": " (see the executor pods' events; spec.spark.executor has their memory and template)",
        "BucketNotFound": " (create the bucket, or correct the address)",
        "DiskFull": " (a volume of the pod is full: write less, or to a larger volume, which the template in"
        " spec.spark.driver or spec.spark.executor can add)",
        "StorageFull": " (the object store has no room left: make some; the run is tried again)",
        "DatasetTooLarge": " (select fewer columns or rows in spec.dataset.query, or raise spec.spark.driver.memory"
        " and memoryOverhead)",
    }.get(reason, "")


def chain(error: BaseException) -> Iterator[BaseException]:
    """The exception and its causes, outermost first. It can be its own: `raise error from error`."""
    seen: set[int] = set()
    at: BaseException | None = error
    while at is not None and id(at) not in seen and len(seen) < 20:
        seen.add(id(at))
        yield at
        at = at.__cause__ or at.__context__


def texts(error: BaseException) -> Iterator[str]:
    """Class names and messages along the chain of causes, Python's and Java's, outermost first."""
    for at in chain(error):
        yield type(at).__name__
        if condition := _condition(at):
            yield condition
        yield str(at)[:20_000]
        java = getattr(at, "java_exception", None) or getattr(at, "_origin", None)
        if java is not None:
            yield from _java_causes(java)


def _java_causes(java: Any) -> Iterator[str]:
    """The texts of a Java exception and of its causes, outermost first."""
    depth = 0
    while java is not None and depth < 20:
        yield _java_text(java)
        java, depth = java.getCause(), depth + 1


def _java_text(java: Any) -> str:
    return str(java.toString())


def _condition(error: BaseException) -> str | None:
    """Spark's error condition (``UNRESOLVED_COLUMN.WITH_SUGGESTION``), where the exception has one."""
    getter = getattr(error, "getCondition", None) or getattr(error, "getErrorClass", None)
    if getter is None:
        return None
    condition = getter()
    return str(condition) if condition else None


def _first_line(text: str) -> str:
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    kept: list[str] = []
    for line in lines:
        if _STACK_LINE.match(line):
            break
        kept.append(line)
        if len(kept) == 2:
            break
    return " ".join(kept)


def _is_storage(text: str) -> bool:
    return bool(re.search(r"botocore|s3a|S3UploadFailed|Endpoint(Connection)?|endpoint URL", text, re.IGNORECASE))


def _shorten(text: str) -> str:
    return text if len(text) <= MAX_MESSAGE else text[: MAX_MESSAGE - 1] + "…"
