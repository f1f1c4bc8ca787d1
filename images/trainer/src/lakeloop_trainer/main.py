"""``lakeloop-driver``: one attempt of one run, from the run spec to the result."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lakeloop_trainer import progress as progress_module
from lakeloop_trainer import run_spec
from lakeloop_trainer.failures import Context, RunFailure, chain, classify, scrub
from lakeloop_trainer.progress import Progress
from lakeloop_trainer.result import Outcome, termination_message
from lakeloop_trainer.session import Jvm, Session
from lakeloop_trainer.spark_conf import driver_conf, memory_for_rows, parse_properties
from lakeloop_trainer.stages import Stages
from lakeloop_trainer.storage import ObjectStore, has_delta_log, store_for

if TYPE_CHECKING:
    from lakeloop_trainer.dataset import Rows
    from lakeloop_trainer.ingest import Prepared
    from lakeloop_trainer.run_spec import Input, RunSpec
    from lakeloop_trainer.tracking import Tracker
    from lakeloop_trainer.training import Evaluation

EXIT_TERMINATED = 143
MLFLOW_DEFAULTS = {
    "GIT_PYTHON_REFRESH": "quiet",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ASYNC_LOGGING": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MPLBACKEND": "Agg",
    "MPLCONFIGDIR": "/tmp/matplotlib",  # noqa: S108 (the pod's own emptyDir; the image's root is read-only)
    # what this program loads, it has just written itself (skops reads its file back)
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "true",
}

# What `tracking`, `plots` and `explain` import where they need it.
LOGGING_MODULES = (
    "matplotlib.backends.backend_agg", "matplotlib.figure", "mlflow.sklearn", "skops.io", "sklearn.inspection"
)  # fmt: skip

log = logging.getLogger("lakeloop_trainer")


class Termination:
    """What SIGTERM does, in a thread of its own: the pod is going away, and whoever sent the signal knows why.

    An exception in the main thread would not do: it waits for C code to return (a fit can take hours), and where it
    comes up in a callback of the interpreter's own it is lost.
    """

    def __init__(self) -> None:
        self.begun = threading.Event()
        self._close: Callable[[], None] | None = None
        self._signals, writing = os.pipe()
        os.set_blocking(writing, False)
        signal.set_wakeup_fd(writing)
        signal.signal(signal.SIGTERM, lambda _number, _frame: None)
        threading.Thread(target=self._wait, name="termination", daemon=True).start()

    def closes(self, close: Callable[[], None]) -> None:
        """What is to be closed before the process ends."""
        self._close = close

    def _wait(self) -> None:
        while os.read(self._signals, 1) != bytes([signal.SIGTERM]):
            pass
        self.begun.set()
        log.warning("terminated: Spark is stopped, no result is written")
        try:
            if self._close is not None:
                self._close()
        finally:
            os._exit(EXIT_TERMINATED)


def main() -> None:
    """Entry point. Exit code 0: succeeded; 1: failed, with a result; 143: terminated, without one."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    for handler in logging.getLogger().handlers:
        # pyspark sets py4j's level to INFO, at which it tells of every connection that ends with the JVM
        handler.addFilter(lambda record: not record.name.startswith("py4j") or record.levelno >= logging.ERROR)
    for noisy in ("botocore", "matplotlib", "boto3", "urllib3", "mlflow", "alembic", "skops"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    # it misses pip, which is not in the image on purpose
    logging.getLogger("mlflow.utils.environment").setLevel(logging.ERROR)
    for name, value in MLFLOW_DEFAULTS.items():
        os.environ.setdefault(name, value)
    termination = Termination()
    environ = os.environ
    code = run(
        spec_path=Path(environ.get("LAKELOOP_RUN_FILE", "/etc/lakeloop/run.json")),
        termination_log=Path(environ.get("LAKELOOP_TERMINATION_LOG", "/dev/termination-log")),
        environ=environ,
        termination=termination,
    )
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # threads of py4j and Spark must not hold the pod back


def run(spec_path: Path, termination_log: Path, environ: Mapping[str, str], termination: Termination) -> int:
    """Runs one attempt and writes its result; returns the exit code."""
    driver: Driver | None = None
    uid, attempt = "", int(environ.get("LAKELOOP_ATTEMPT", "1"))
    try:
        try:
            spec = run_spec.load(spec_path)
            uid = spec.uid
            driver = Driver(spec, attempt, spec_path.parent, environ)
            termination.closes(driver.close)
            outcome = driver.run()
        except BaseException as error:
            if termination.begun.is_set():  # Spark was stopped under it: that is no failure of the run's
                threading.Event().wait()
            failure = _failure(error, driver)
            versions = driver.result_inputs() if driver else ()
            outcome = Outcome(uid, attempt, inputs=versions, failure=failure)
            log.error("%s/%s: %s", failure.failure_class, failure.reason, failure.message)
        document = outcome.document()
        if driver is not None:
            driver.finish(document)
        _write_result(termination_log, termination_message(document))
        return 1 if outcome.failure else 0
    finally:
        if driver is not None:
            driver.close()


def _failure(error: BaseException, driver: Driver | None) -> RunFailure:
    sys.stderr.write(scrub("".join(traceback.format_exception(error))))
    if driver is not None and driver.executors_missing:
        return RunFailure(
            "ExecutorsUnavailable",
            "No executor pod was ready in time; see the events of the executor pods, and spec.spark.executor",
            "spec.spark.executor",
        )
    if driver is not None and _lost_connection(error) and (death := driver.jvm_death()):
        return death
    return classify(error, Context("The run", "DriverError"))


def _lost_connection(error: BaseException) -> bool:
    """Whether a broken connection is behind it: that to the JVM looks like any other."""
    return any(
        isinstance(at, ConnectionError | EOFError) or type(at).__name__ in ("Py4JError", "Py4JNetworkError")
        for at in chain(error)
    )


def _write_result(path: Path, text: str) -> None:
    try:
        path.write_text(text)
    except OSError as error:
        log.error("the result cannot be written to %s: %s", path, error)


class Driver:
    """One attempt: what runs beside what, and what is left behind."""

    def __init__(self, spec: RunSpec, attempt: int, folder: Path, environ: Mapping[str, str]) -> None:
        self.spec = spec
        self.attempt = attempt
        self.stages = Stages()
        self.versions: dict[str, int] = {item.name: item.version for item in spec.inputs if item.version is not None}
        self._tracker: Tracker | None = None
        self._pool = ThreadPoolExecutor(max_workers=4, thread_name_prefix="run")
        self._work = tempfile.TemporaryDirectory(prefix="lakeloop-run-")
        self._stores: dict[str, ObjectStore] = {}
        self._lock = threading.Lock()
        self._jvm_lock = threading.Lock()
        properties_file, template = folder / "spark.properties", folder / "executor.yaml"
        properties = parse_properties(properties_file.read_text()) if properties_file.is_file() else {}
        self.conf = driver_conf(
            properties, environ, f"{spec.job}-{spec.number}", str(template) if template.is_file() else None
        )
        self._jvm: Jvm | None = None
        self._session: Session | None = None
        self.progress = Progress(spec.uid, attempt, progress_module.pod_patcher(environ))

    @property
    def executors_missing(self) -> bool:
        return self._session is not None and self._session.executors_missing

    def jvm_death(self) -> RunFailure | None:
        """Why the JVM is no longer there; None where it is, or was never started."""
        return self._jvm.death() if self._jvm is not None else None

    def result_inputs(self) -> list[dict[str, Any]]:
        """Inputs with the versions that are known by now."""
        return [{"name": name, "version": version} for name, version in self.versions.items()]

    def run(self) -> Outcome:
        """Trains and logs; raises RunFailure or whatever the libraries raise."""
        with self._jvm_lock:  # a JVM that nobody knows of would not be stopped
            self._jvm = Jvm(self.conf)
        with self.stages.measure("import pyspark"):
            import pyspark.sql  # noqa: F401 (imported here, before two threads import its parts)
            from pyspark.logger import PySparkLogger

            # says in a line of 30 KB, and not scrubbed, what the traceback says
            PySparkLogger.getLogger("SQLQueryContextLogger").setLevel(logging.CRITICAL)
        self._session = Session(self._jvm)
        prepared = self._pool.submit(self._measured, "look at the inputs", self._prepare_inputs)
        # libraries load while the JVM starts; what is wrong with the estimator is found before any data is read
        with self.stages.measure("import libraries"):
            from lakeloop_trainer import training
            from lakeloop_trainer.estimator import build

            pipeline = build(self.spec.steps)
            tracker = self._pool.submit(self._measured, "import and ask MLflow", self._connect)
            import sklearn.metrics  # noqa: F401
        with self.stages.measure("wait for inputs looked at"):
            preparations = prepared.result()
        with self.stages.measure("wait for Spark session"):
            spark = self._session.get()
        rows, columns = self._read(spark, preparations)
        self._session.stop()
        self._tracker = tracker.result()
        described = self._pool.submit(self._measured, "log parameters", self._log_description, pipeline, rows, columns)

        self.progress.stage("Training", 50)
        with self.stages.measure("fit"):
            training.fit(pipeline, rows)
        self.progress.stage("Evaluating", 70)
        with self.stages.measure("evaluate"):
            evaluation = training.evaluate(pipeline, rows, self.spec.objective)
        self.progress.stage("Logging", 80)
        return self._log(self._tracker, pipeline, rows, evaluation, described)

    def finish(self, document: Mapping[str, Any]) -> None:
        """Leaves the result in MLflow too (as far as MLflow answers) and tells where the time went."""
        if self._tracker is not None:
            try:
                with self.stages.measure("log result"):
                    self._tracker.document("lakeloop/result.json", document)
            except Exception as error:  # the termination message has it
                log.warning("the result is not in MLflow: %s", scrub(str(error)))
        self.progress.close()
        log.info("%s", self.stages.table())

    def close(self) -> None:
        """Stops Spark and removes what this attempt wrote to local disk."""
        with self._jvm_lock:
            if self._jvm is not None:
                self._jvm.stop()
        self._pool.shutdown(wait=False, cancel_futures=True)
        with contextlib.suppress(OSError):
            self._work.cleanup()

    def _measured(self, name: str, function: Callable[..., Any], *arguments: Any) -> Any:
        with self.stages.measure(name):
            return function(*arguments)

    def _store(self, uri: str) -> ObjectStore:
        scheme = uri.partition(":")[0]
        with self._lock:
            if scheme not in self._stores:
                self._stores[scheme] = store_for(uri, self.spec.path_style)
            return self._stores[scheme]

    def _prepare_inputs(self) -> dict[str, Prepared]:
        """Asks the store for each input: credentials, bucket, table, files to load."""
        from lakeloop_trainer.ingest import prepare

        found = {}
        for item in self.spec.inputs:
            store = self._store(item.uri)
            try:
                if item.ingest is not None:
                    found[item.name] = prepare(item, self.spec.uid, store)
                elif not has_delta_log(store, item.uri):
                    raise RunFailure("TableNotFound", f"There is no Delta table at {item.uri}", f"{item.path}.uri")
            except Exception as error:
                context = Context(f"Looking at {item.uri}", "StorageUnavailable", f"{item.path}.uri", False)
                raise classify(error, context) from error
        return found

    def _connect(self) -> Tracker:
        from lakeloop_trainer.tracking import Tracker

        with _tracking_errors("Asking MLflow for the run"):
            tracker = Tracker(self.spec.tracking_uri, self.spec.run_id)
        # the main thread waits for Spark until the rows are there; what logs them can load meanwhile
        self._pool.submit(self._measured, "import what logs", _import_logging)
        return tracker

    def _read(self, spark: Any, preparations: Mapping[str, Prepared]) -> tuple[Rows, dict[str, list[tuple[str, str]]]]:
        from lakeloop_trainer import dataset

        if preparations:
            self.progress.stage("Ingesting", 15)
        for item in self.spec.inputs:
            if item.ingest is not None:
                with self.stages.measure(f"ingest {item.name}"):
                    self.versions[item.name] = self._ingest(spark, item, preparations[item.name])
        if preparations:
            made = {item.name: self.versions[item.name] for item in self.spec.inputs if item.ingest is not None}
            self.progress.inputs(made)
        self.progress.stage("Reading", 30)
        with self.stages.measure("open tables"):
            columns = dataset.register_views(spark, self.spec.inputs, self.versions)
        with self.stages.measure("read rows"):
            room = memory_for_rows(self.conf, dataset.container_memory_limit())
            rows = dataset.read(spark, self.spec.dataset, self.spec.inputs, room)
        log.info(
            "%d training rows, %d test rows, %d without a target left out",
            len(rows.train_target), len(rows.test_target), rows.without_target,
        )  # fmt: skip
        return rows, columns

    def _ingest(self, spark: Any, item: Input, prepared: Prepared) -> int:
        from lakeloop_trainer.ingest import load

        if prepared.version is not None:
            return prepared.version
        if prepared.manifest is None:
            raise ValueError(f"{item.name}: neither a version nor a manifest")
        job = f"{self.spec.namespace}/{self.spec.job}"
        return load(spark, item, prepared.manifest, self.spec.uid, job, self._store(item.uri))

    def _log_description(self, pipeline: Any, rows: Rows, columns: Mapping[str, list[tuple[str, str]]]) -> None:
        if self._tracker is None:
            raise ValueError("no connection to MLflow")
        with _tracking_errors("Logging the parameters"):
            self._tracker.params(self._params(pipeline, rows))
            self._tracker.inputs(self.spec.inputs, self.versions, columns)

    def _params(self, pipeline: Any, rows: Rows) -> dict[str, object]:
        from lakeloop_trainer.dataset import query_of
        from lakeloop_trainer.estimator import effective_params

        dataset, split = self.spec.dataset, self.spec.dataset.split
        return {
            **{f"steps.{index}.class": step.class_path for index, step in enumerate(self.spec.steps)},
            **effective_params(pipeline),
            "dataset.target": dataset.target,
            "dataset.features": ",".join(map(str, rows.train_features.columns)),
            "dataset.query": query_of(dataset, self.spec.inputs),
            "dataset.split.testFraction": split.test_fraction,
            "dataset.split.seed": split.seed,
            "dataset.split.keys": ",".join(split.keys),
            "dataset.rows.train": len(rows.train_target),
            "dataset.rows.test": len(rows.test_target),
            "dataset.rows.withoutTarget": rows.without_target,
            **{f"inputs.{item.name}": f"{item.uri}@{self.versions[item.name]}" for item in self.spec.inputs},
        }

    def _log(
        self, tracker: Tracker, pipeline: Any, rows: Rows, evaluation: Evaluation, described: Future[None]
    ) -> Outcome:
        from lakeloop_trainer import training
        from lakeloop_trainer.estimator import effective_params, pipeline_code

        with _tracking_errors("Logging the model"):
            model_logged = self._pool.submit(
                self._measured, "log model", tracker.model, pipeline, rows.train_features,
                effective_params(pipeline), [step.class_path for step in self.spec.steps],
            )  # fmt: skip
            folder = Path(self._work.name)
            (folder / "pipeline.py").write_text(pipeline_code(self.spec.steps, pipeline))
            files = {"code/pipeline.py": folder / "pipeline.py"}
            with self.stages.measure("draw plots"):
                files |= {f"plots/{path.name}": path for path in training.draw(folder, pipeline, evaluation)}
            with self.stages.measure("explain"):
                files |= self._explanations(folder / "explanation", pipeline, rows, evaluation)
            with self.stages.measure("log artifacts"):
                tracker.artifacts(files)
                tracker.document("lakeloop/run.json", self.spec.raw)
            with self.stages.measure("wait for model logged"):
                model = model_logged.result()
            with self.stages.measure("log metrics"):
                described.result()
                tracker.metrics(evaluation.metrics, model.model_id)
                tracker.tags({"lakeloop.io/objective-measured-on": evaluation.measured_on})
        return Outcome(
            uid=self.spec.uid,
            attempt=self.attempt,
            inputs=self.result_inputs(),
            metrics=dict(evaluation.metrics),
            objective={"metric": evaluation.objective, "value": evaluation.value},
            model=model.document(),
        )

    def _explanations(self, folder: Path, pipeline: Any, rows: Rows, evaluation: Evaluation) -> dict[str, Path]:
        if self.spec.explanation.method == "None" or evaluation.value is None:
            return {}
        from lakeloop_trainer import explain

        test = evaluation.measured_on == "test"
        try:
            written = explain.permutation(
                folder,
                pipeline,
                rows.test_features if test else rows.train_features,
                rows.test_target if test else rows.train_target,
                evaluation.objective,
                self.spec.explanation.sample_rows,
                self.spec.dataset.split.seed,
                "test rows" if test else "training rows",
            )
        except Exception as error:  # a model without its explanation is still a model
            log.warning("no permutation importance: %s", type(error).__name__)
            return {}
        return {f"explanation/{path.name}": path for path in written}


def _import_logging() -> None:
    for name in LOGGING_MODULES:
        importlib.import_module(name)


@contextlib.contextmanager
def _tracking_errors(doing: str) -> Iterator[None]:
    try:
        yield
    except RunFailure:
        raise
    except Exception as error:
        raise classify(error, Context(doing, "TrackingUnavailable", "spec.tracking", False, "tracking")) from error


if __name__ == "__main__":
    main()
