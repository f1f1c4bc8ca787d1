from __future__ import annotations

import errno
import os

import pytest
from lakeloop_trainer.failures import (
    FIELD_OF,
    MAX_MESSAGE,
    REASONS,
    Context,
    RunFailure,
    chain,
    classify,
    scrub,
    vacuumed,
)

STORAGE = Context("Reading s3a://lake/t", "QueryFailed", "spec.inputs[0].uri")
TRACKING = Context("Logging the model", "TrackingUnavailable", "spec.tracking", service="tracking")


class Java:
    """A Java exception as py4j shows it."""

    def __init__(self, text: str, cause: Java | None = None) -> None:
        self._text, self._cause = text, cause

    def toString(self) -> str:
        return self._text

    def getCause(self) -> Java | None:
        return self._cause


class Py4JJavaError(Exception):
    def __init__(self, java: Java) -> None:
        super().__init__(
            "An error occurred while calling o42.load.\n: " + java.toString() + "\n\tat org.apache.x.Y(Y.java:1)"
        )
        self.java_exception = java


class AnalysisException(Exception):
    def __init__(self, condition: str, text: str) -> None:
        super().__init__(f"[{condition}] {text}")
        self._condition = condition

    def getCondition(self) -> str:
        return self._condition


def client_error(code: str) -> Exception:
    from botocore.exceptions import ClientError

    return ClientError({"Error": {"Code": code, "Message": "no"}}, "ListObjectsV2")


def endpoint_error() -> Exception:
    from botocore.exceptions import EndpointConnectionError

    return EndpointConnectionError(endpoint_url="http://minio:9000")


@pytest.mark.parametrize(
    ("error", "context", "expected"),
    [
        pytest.param(
            client_error("InvalidAccessKeyId"), STORAGE, ("Submission", "CredentialsRefused"), id="unknown key"
        ),
        pytest.param(
            Py4JJavaError(Java("org.apache.spark.SparkException: Job 0 cancelled because SparkContext was shut down")),
            STORAGE,
            ("Infrastructure", "ExecutorsUnavailable"),
            id="too many executors died",
        ),
        pytest.param(
            Py4JJavaError(
                Java("Job aborted due to stage failure: Lost task 0.3: ExecutorLostFailure (executor 4 exited)")
            ),
            STORAGE,
            ("Infrastructure", "ExecutorsUnavailable"),
            id="an executor was killed in each try",
        ),
        pytest.param(
            client_error("SignatureDoesNotMatch"), STORAGE, ("Submission", "CredentialsRefused"), id="wrong secret"
        ),
        pytest.param(client_error("AccessDenied"), STORAGE, ("Submission", "CredentialsRefused"), id="denied"),
        pytest.param(client_error("NoSuchBucket"), STORAGE, ("Submission", "BucketNotFound"), id="no bucket, boto3"),
        pytest.param(endpoint_error(), STORAGE, ("Infrastructure", "StorageUnavailable"), id="store down, boto3"),
        pytest.param(
            Py4JJavaError(
                Java(
                    "java.nio.file.AccessDeniedException: s3a://lake/t: getFileStatus on s3a://lake/t: "
                    "S3Exception: The AWS Access Key Id does not exist (Service: S3, Status Code: 403)"
                )
            ),
            STORAGE,
            ("Submission", "CredentialsRefused"),
            id="refused, S3A",
        ),
        pytest.param(
            Py4JJavaError(Java("org.apache.hadoop.fs.s3a.UnknownStoreException: s3a://lake/t: Bucket does not exist")),
            STORAGE,
            ("Submission", "BucketNotFound"),
            id="no bucket, S3A",
        ),
        pytest.param(
            Py4JJavaError(
                Java(
                    "org.apache.spark.SparkException: Job aborted",
                    Java("java.io.IOException: x", Java("java.net.ConnectException: Connection refused")),
                )
            ),
            STORAGE,
            ("Infrastructure", "StorageUnavailable"),
            id="store down, deep in the causes",
        ),
        pytest.param(
            AnalysisException("UNRESOLVED_COLUMN.WITH_SUGGESTION", "`a`"),
            STORAGE,
            ("Data", "ColumnNotFound"),
            id="column",
        ),
        pytest.param(
            AnalysisException("DELTA_VERSION_NOT_FOUND", "5"), STORAGE, ("Data", "VersionNotFound"), id="version"
        ),
        pytest.param(
            AnalysisException("DELTA_PATH_DOES_NOT_EXIST", "t"), STORAGE, ("Data", "TableNotFound"), id="table"
        ),
        pytest.param(
            AnalysisException("DELTA_FAILED_TO_MERGE_FIELDS", "a"), STORAGE, ("Data", "SchemaMismatch"), id="schema"
        ),
        pytest.param(AnalysisException("PARSE_SYNTAX_ERROR", "near"), STORAGE, ("Data", "QueryFailed"), id="syntax"),
        pytest.param(
            Py4JJavaError(Java("java.lang.OutOfMemoryError: Java heap space")),
            STORAGE,
            ("Data", "DatasetTooLarge"),
            id="heap",
        ),
        pytest.param(
            ConnectionError("Max retries exceeded with url: /api/2.0/mlflow/runs/get"),
            TRACKING,
            ("Infrastructure", "TrackingUnavailable"),
            id="MLflow down",
        ),
        pytest.param(
            endpoint_error(), TRACKING, ("Infrastructure", "StorageUnavailable"), id="the store down while logging"
        ),
        pytest.param(
            RuntimeError("API request failed with error code 401 != 200"),
            TRACKING,
            ("Submission", "CredentialsRefused"),
            id="MLflow refuses",
        ),
        pytest.param(client_error("XMinioStorageFull"), STORAGE, ("Infrastructure", "StorageFull"), id="full, boto3"),
        pytest.param(
            Py4JJavaError(
                Java(
                    "org.apache.hadoop.fs.s3a.AWSBadRequestException: Completing multipart upload on lake/t: S3Exception: "
                    "Bucket quota exceeded (Service: S3, Status Code: 400):XMinioAdminBucketQuotaExceeded"
                )
            ),
            STORAGE,
            ("Infrastructure", "StorageFull"),
            id="full, S3A",
        ),
        pytest.param(
            client_error("IncompleteBody"), STORAGE, ("Infrastructure", "StorageUnavailable"), id="cut off, boto3"
        ),
        pytest.param(
            Py4JJavaError(
                Java(
                    "org.apache.hadoop.fs.s3a.AWSBadRequestException: Writing Object on t: S3Exception: You did not "
                    "provide the number of bytes specified by the Content-Length HTTP header. (Service: S3, "
                    "Status Code: 400):IncompleteBody"
                )
            ),
            STORAGE,
            ("Infrastructure", "StorageUnavailable"),
            id="cut off, S3A",
        ),
        pytest.param(
            Py4JJavaError(
                Java("Job aborted due to stage failure", Java("java.io.IOException: No space left on device"))
            ),
            STORAGE,
            ("Infrastructure", "DiskFull"),
            id="a full disk, in a task",
        ),
        pytest.param(
            OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/tmp/a"),
            TRACKING,
            ("Infrastructure", "DiskFull"),
            id="a full disk, while logging",
        ),
        pytest.param(
            ZeroDivisionError("x"), Context("The run", "DriverError"), ("Infrastructure", "DriverError"), id="a bug"
        ),
    ],
)
def test_classes_and_reasons(error: Exception, context: Context, expected: tuple[str, str]) -> None:
    failure = classify(error, context)
    assert (failure.failure_class, failure.reason) == expected
    if failure.reason in FIELD_OF:
        assert failure.field == FIELD_OF[failure.reason]
    elif failure.reason == "CredentialsRefused":
        assert failure.field == ("spec.storage.secretRef" if context is STORAGE else "spec.tracking.secretRef")
    else:
        assert failure.field == context.field
    assert "\n" not in failure.message
    assert "\tat " not in failure.message


def test_a_cause_decides_where_the_outer_exception_says_nothing() -> None:
    outer = RuntimeError("upload failed")
    outer.__cause__ = client_error("NoSuchBucket")
    assert classify(outer, STORAGE).reason == "BucketNotFound"


def test_no_value_of_a_row_and_no_secret_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cr3t/key")
    error = AnalysisException("CAST_INVALID_INPUT", "The value '12 Main Street' of the type \"STRING\"; s3cr3t/key")
    message = classify(error, STORAGE).message
    assert "Main Street" not in message
    assert "s3cr3t" not in message
    assert "CAST_INVALID_INPUT" in message
    quoting = Context("Running the query", "QueryFailed", values_may_leak=False)
    assert "'colum'" in classify(ValueError("no 'colum' here"), quoting).message


def test_credentials_in_urls_are_blanked() -> None:
    assert scrub("at http://user:pw@mlflow:5000/x", {}) == "at http://***@mlflow:5000/x"


def test_a_message_is_of_bounded_length() -> None:
    assert len(classify(ValueError("x" * 9000), STORAGE).message) == MAX_MESSAGE


def test_an_exception_that_is_its_own_cause_ends() -> None:
    failure = RunFailure("TableNotFound", "there is none")
    with pytest.raises(RunFailure) as caught:
        raise failure from failure
    assert list(chain(caught.value)) == [failure]


def test_a_failure_stays_what_it_is() -> None:
    failure = RunFailure("EmptyTable", "no rows")
    assert classify(failure, STORAGE) is failure


def test_every_reason_has_one_class() -> None:
    reasons = [reason for found in REASONS.values() for reason in found]
    assert len(reasons) == len(set(reasons))


TABLES = {"points": ("s3a://lake/points", 3), "more": ("/data/points", 1)}
FIELDS = {"points": "spec.inputs[0].version", "more": "spec.inputs[1].version"}
# what Spark, Hadoop or Delta say → the field of the input whose file is gone
MISSING: dict[str, tuple[str, str | None]] = {
    "Spark on S3": (
        "[FAILED_READ_FILE.FILE_NOT_EXIST] Encountered error while reading file s3a://lake/points/part-0.parquet. File",
        "spec.inputs[0].version",
    ),
    "Spark on a disk": ("FileNotFoundException: File file:/data/points/day=1/a.parquet does not exist", "spec.inputs[1].version"),
    "another table": ("FileNotFoundException: No such file: s3a://lake/points-2/part-0.parquet", None),
    "the log": ("FileNotFoundException: No such file: s3a://lake/points/_delta_log/00000000000000000003.json", None),
    "something else": ("cannot cast in s3a://lake/points/part-0.parquet", None),
}  # fmt: skip


@pytest.mark.parametrize("name", MISSING)
def test_a_data_file_that_is_gone(name: str) -> None:
    text, field = MISSING[name]
    try:
        try:
            raise ValueError(text)
        except ValueError as error:
            raise RunFailure("QueryFailed", "Reading failed", "spec.dataset.query") from error
    except RunFailure as failure:
        found = vacuumed(failure, TABLES, FIELDS)
    assert (found.field if found else None) == field
    assert found is None or (found.failure_class, found.reason) == ("Data", "VersionVacuumed")
