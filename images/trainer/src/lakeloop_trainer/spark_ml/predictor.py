"""A fitted Spark pipeline asked about rows that are not in any table: shuffled and mixed ones, for explanations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lakeloop_trainer.spark_ml.wiring import Wiring
from lakeloop_trainer.split import quoted

_ROW = "__lakeloop_row"


class Predictor:
    """Predicts rows that are made of a sample's cells. One Spark job per call, so give it many rows at once."""

    def __init__(self, spark: Any, model: Any, wiring: Wiring, sample: Any, classes: Sequence[Any]) -> None:
        """``sample``: an Arrow table of the features."""
        self._spark = spark
        self._model = model
        self._wiring = wiring
        self._sample = sample
        self.classes = tuple(classes)
        self._schema: Any = None

    def __call__(self, cells: Any) -> tuple[Any, Any | None]:
        """Predictions (of a classifier: indexes of classes) and scores, one of each per row of ``cells``.

        ``cells[i, j]`` is the sample's row from which row ``i`` has its column ``j``.
        """
        import numpy as np
        import pyarrow as pa
        from pyspark.ml.functions import vector_to_array
        from pyspark.sql import functions as f

        columns = [self._sample.column(j).take(pa.array(cells[:, j])) for j in range(cells.shape[1])]
        names = [*self._sample.column_names, _ROW]
        table = pa.table([*columns, pa.array(np.arange(len(cells)))], names=names)
        guess = f.col(quoted(self._wiring.raw_prediction)).cast("double").alias("guess")
        wanted = [f.col(_ROW).alias("row"), guess]
        if self._wiring.scores:
            wanted.append(vector_to_array(f.col(quoted(self._wiring.scores))).alias("scores"))
        # no more tasks than there is work for: what Arrow gives is cut into as many as Spark has cores
        frame = self._model.transform(self._spark.createDataFrame(table)).select(*wanted)
        answered = frame.toArrow().sort_by("row")
        if answered.num_rows != len(cells):
            raise ValueError("a step leaves rows out (handleInvalid: skip)")
        guesses = answered.column("guess").to_numpy()
        if not self._wiring.scores:
            return guesses, None
        flat = answered.column("scores").combine_chunks()
        return guesses, flat.flatten().to_numpy(zero_copy_only=False).reshape(len(cells), -1)
