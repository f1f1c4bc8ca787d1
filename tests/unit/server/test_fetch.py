"""Where a model's files come from, and where they may go."""

import pytest
from lakeloop_server.errors import LoadError
from lakeloop_server.fetch import parse_s3_uri, relative_path


@pytest.mark.parametrize(
    ("uri", "bucket", "prefix"),
    [
        ("s3://mlflow/1/models/m-1/artifacts", "mlflow", "1/models/m-1/artifacts/"),
        ("s3a://mlflow/1/", "mlflow", "1/"),
        ("s3://mlflow", "mlflow", ""),
    ],
)
def test_uris(uri: str, bucket: str, prefix: str) -> None:
    assert parse_s3_uri(uri) == (bucket, prefix)


@pytest.mark.parametrize("uri", ["models:/churn/5", "s3:///x", "/tmp/x", ""])
def test_other_uris_are_refused(uri: str) -> None:
    with pytest.raises(LoadError, match="LAKELOOP_MODEL_URI"):
        parse_s3_uri(uri)


@pytest.mark.parametrize(
    ("key", "path"),
    [("1/MLmodel", "MLmodel"), ("1/a/b.txt", "a/b.txt"), ("1/", None), ("1/a/", None), ("1/..a", "..a")],
)
def test_keys(key: str, path: str | None) -> None:
    assert relative_path(key, "1/") == path


@pytest.mark.parametrize("key", ["1/../x", "1/a/../../x", "1//etc/passwd", "1/./x", "1/a\0b"])
def test_no_file_leaves_the_folder(key: str) -> None:
    with pytest.raises(LoadError, match="unusable name"):
        relative_path(key, "1/")
