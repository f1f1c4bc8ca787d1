"""Takes out of the packages what no server runs: `prune.py <site-packages>`; needs binutils' `strip`.

Tests, AWS services other than S3, Databricks' SDK, and of Arrow all but what pandas and Parquet use; then the symbols
of the libraries that come with them.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

AWS_SERVICES = {"s3", "sts", "signin"}
ARROW = (
    *("_azurefs", "_cuda", "_dataset_orc", "_dataset_parquet_encryption", "_feather", "_flight", "_gcsfs", "_hdfs"),
    *("_orc", "_parquet_encryption", "_pyarrow_cpp_tests", "_s3fs", "_substrait", "gandiva"),
    *("libarrow_flight", "libarrow_python_flight", "libarrow_python_parquet_encryption", "libarrow_s3"),
)
ARROW_FOLDERS = ("include", "includes", "src", "tests")
SOURCES = {".pyx", ".pxi", ".pxd"}
# Not those in which auditwheel moved sections (numpy, scipy): strip would break them
STRIPPED = ("pyarrow", "uvloop", "httptools", "yaml")


def _tests(packages: Path) -> Iterable[Path]:
    for folder in packages.rglob("*"):
        if not folder.is_dir() or folder.name not in ("tests", "test"):
            continue
        if folder.relative_to(packages).parts[0] == "numpy":
            # numpy.testing, which scikit-learn imports, uses some of their helpers
            yield from folder.rglob("test_*")
        else:
            yield folder


def _arrow(folder: Path) -> Iterable[Path]:
    yield from (folder / name for name in ARROW_FOLDERS)
    for path in folder.iterdir():
        if path.name.split(".")[0] in ARROW or path.suffix in SOURCES:
            yield path
    # The wheel holds each of its libraries under three names; the one that is looked for has one number
    yield from (path for path in folder.glob("*.so.*.*.*"))
    yield from (path for path in folder.glob("libarrow_*.so") if list(folder.glob(f"{path.name}.*")))


def _aws(folder: Path) -> Iterable[Path]:
    for service in folder.iterdir():
        if service.is_dir() and service.name not in AWS_SERVICES and not service.name.startswith("sso"):
            yield service


def prune(packages: Path) -> None:
    """Removes and strips. Raises FileNotFoundError for a package that is not there any more."""
    unwanted = [*_tests(packages), *_arrow(packages / "pyarrow"), *_aws(packages / "botocore/data")]
    for path in [*unwanted, packages / "databricks/sdk"]:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    libraries = [path for name in STRIPPED for path in (packages / name).rglob("*.so*")]
    if not libraries:
        raise FileNotFoundError(f"no libraries of {', '.join(STRIPPED)} in {packages}")
    subprocess.run(["/usr/bin/strip", "--strip-unneeded", *map(str, libraries)], check=True)  # noqa: S603 - paths found above


if __name__ == "__main__":
    prune(Path(sys.argv[1]))
