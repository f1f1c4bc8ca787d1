"""Saves a fitted PipelineModel as an MLflow model (spark flavor) in a local folder.

Spark's writers run on the executors. Where those are other pods, a folder of the driver's is not theirs: the model
goes through a folder in the artifact store, which both reach with the run's credentials, and from there to the driver.
(`mlflow.spark.save_model` cannot: it asks the default file system, which is no S3, for what lies in S3.)
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Collection, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from lakeloop_trainer.storage import as_spark_path

log = logging.getLogger(__name__)


def save(
    spark: Any, model: Any, folder: Path, mlflow_model: Any, signature: Any, example: Any, shared: str | None
) -> None:
    """Writes the MLflow model into ``folder``, which must not be there yet.

    ``shared``: a folder in the store to go through; None where the executors see the driver's files.
    """
    import mlflow.spark

    data = folder / "sparkml"
    folder.mkdir(parents=True)
    if shared is None:
        model.write().overwrite().save(f"file://{data}")
    else:
        with _through(spark, as_spark_path(shared)) as remote:
            model.write().overwrite().save(remote)
            path = spark._jvm.org.apache.hadoop.fs.Path
            source = path(remote)
            store = source.getFileSystem(spark._jsc.hadoopConfiguration())
            store.copyToLocalFile(False, source, path(str(data)), True)
    for left_over in (*data.rglob(".*.crc"), *data.rglob("_SUCCESS")):  # Hadoop's; the model's digest says more
        left_over.unlink()
    # private, but the part of save_model after its copying; the version is pinned
    mlflow.spark._save_model_metadata(
        dst_dir=str(folder),
        spark_model=model,
        mlflow_model=mlflow_model,
        conda_env=None,
        code_paths=None,
        signature=signature,
        input_example=example,
        pip_requirements=requirements(),
    )


def with_optional(schema: Any, names: Collection[str]) -> Any:
    """The signature's columns, those that had NULLs as the pandas of any client writes them: numbers, or not there."""
    from mlflow.types import ColSpec, DataType, Schema

    numbers = (DataType.boolean, DataType.integer, DataType.long)
    return Schema(
        [
            ColSpec(DataType.double if each.type in numbers else each.type, each.name, required=False)
            if each.name in names
            else each
            for each in schema.inputs
        ]
    )


def requirements() -> list[str]:
    """The pinned requirements of a model, from what is installed: no look-up, no network."""
    names = ("numpy", "pandas", "pyarrow", "pyspark")
    return [f"mlflow=={metadata.version('mlflow-skinny')}", *(f"{name}=={metadata.version(name)}" for name in names)]


@contextlib.contextmanager
def _through(spark: Any, remote: str) -> Iterator[str]:
    """The folder, gone afterwards."""
    try:
        yield remote
    finally:
        try:
            path = spark._jvm.org.apache.hadoop.fs.Path(remote)
            path.getFileSystem(spark._jsc.hadoopConfiguration()).delete(path, True)
        except Exception as error:  # left behind below the run's artifacts: no reason to lose the model
            log.warning("%s could not be deleted: %s", remote, type(error).__name__)
