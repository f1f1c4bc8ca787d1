from __future__ import annotations

import pytest
from lakeloop_trainer.failures import MAX_MESSAGE, REASONS, Context, RunFailure, chain, classify, scrub

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
        pytest.param(
            ZeroDivisionError("x"), Context("The run", "DriverError"), ("Infrastructure", "DriverError"), id="a bug"
        ),
    ],
)
def test_classes_and_reasons(error: Exception, context: Context, expected: tuple[str, str]) -> None:
    failure = classify(error, context)
    assert (failure.failure_class, failure.reason) == expected
    if failure.reason == "ExecutorsUnavailable":
        assert failure.field == "spec.spark.executor"
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
