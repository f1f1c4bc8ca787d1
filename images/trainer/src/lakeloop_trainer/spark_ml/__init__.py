"""`spec.estimator` with ``library: spark``: stages of ``pyspark.ml``, trained and scored on the executors."""
