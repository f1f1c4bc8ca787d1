"""One attempt of a run: Spark, the pinned tables, MLflow and what else every way to train needs."""

from __future__ import annotations

import contextlib
import importlib
import logging
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from lakeloop_trainer import progress as progress_module
from lakeloop_trainer.failures import Context, RunFailure, classify, scrub, vacuumed
from lakeloop_trainer.progress import Progress
from lakeloop_trainer.session import Jvm, Session
from lakeloop_trainer.spark_conf import driver_conf, parse_properties
from lakeloop_trainer.stages import Stages
from lakeloop_trainer.storage import ObjectStore, has_delta_log, store_for

if TYPE_CHECKING:
    from lakeloop_trainer.expectations import Checked
    from lakeloop_trainer.ingest import Prepared
    from lakeloop_trainer.run_spec import Input, RunSpec
    from lakeloop_trainer.tracking import Tracker

T = TypeVar("T")

# What `tracking`, `plots` and `explain` import where they need it.
LOGGING_MODULES = (
    "matplotlib.backends.backend_agg", "matplotlib.figure", "mlflow.sklearn", "skops.io", "sklearn.inspection"
)  # fmt: skip

log = logging.getLogger("lakeloop_trainer")


class Attempt:
    """One attempt. A way to train (`methods`) calls, in this order: `start_spark`, `ask_mlflow`, `open_tables`."""

    def __init__(self, spec: RunSpec, number: int, folder: Path, environ: Mapping[str, str]) -> None:
        """``folder`` holds the run's ConfigMap."""
        self.spec = spec
        self.number = number
        self.environ = environ
        self.stages = Stages()
        self.versions: dict[str, int] = {item.name: item.version for item in spec.inputs if item.version is not None}
        self.columns: Mapping[str, list[tuple[str, str]]] = {}
        """Of each input, once `open_tables` is over: (column, Spark's type)."""
        self.expectations: tuple[Checked, ...] = ()
        """What `check_expectations` counted."""
        self.requirements: list[str] = []
        """What spec.dependencies.pip asked for, pinned: a model of an estimator records it."""
        self.search: Mapping[str, Any] | None = None
        """What a search came to, once it is over; as in the run's result."""
        self._tracker: Tracker | None = None
        self._connecting: Future[Tracker] | None = None
        self._importing: Future[None] | None = None
        self._preparing: Future[dict[str, Prepared]] | None = None
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
        self._ends: list[Callable[[], None]] = []
        self._jvm: Jvm | None = None
        self._session: Session | None = None
        self.progress = Progress(spec.uid, number, progress_module.pod_patcher(environ))

    # Spark and the tables

    def start_spark(self) -> None:
        """Starts the JVM and, beside it, asks the store for each input; returns before either is done."""
        with self._jvm_lock:  # a JVM that nobody knows of would not be stopped
            self._jvm = Jvm(self.conf)
        with self.stages.measure("import pyspark"):
            import pyspark.sql  # noqa: F401 (imported here, before two threads import its parts)
            from pyspark.logger import PySparkLogger

            # says in a line of 30 KB, and not scrubbed, what the traceback says
            PySparkLogger.getLogger("SQLQueryContextLogger").setLevel(logging.CRITICAL)
        self._session = Session(self._jvm)
        self._preparing = self.beside("look at the inputs", self._prepare_inputs)

    def open_tables(self) -> Any:
        """Waits for Spark, loads what is to be ingested, and makes each input a view; gives the session."""
        if self._session is None or self._preparing is None:
            raise ValueError("start_spark comes first")
        with self.stages.measure("wait for inputs looked at"):
            preparations = self._preparing.result()
        with self.stages.measure("wait for Spark session"):
            spark = self._session.get()
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
        from lakeloop_trainer import dataset

        with self.stages.measure("open tables"):
            self.columns = dataset.register_views(spark, self.spec.inputs, self.versions)
        return spark

    def check_expectations(self, rows: Any) -> None:
        """Counts the rows that violate ``spec.dataset.expectations``, for MLflow and the result.

        Every way to train calls it with the query's DataFrame before it learns anything, after `ask_mlflow`.

        Raises:
            RunFailure: ExpectationViolated, ExpectationInvalid.
        """
        wanted = self.spec.dataset.expectations
        if not wanted or self._session is None:
            return
        from lakeloop_trainer import expectations

        with self.stages.measure("check expectations"):
            self.expectations = expectations.check(self._session.get(), rows, wanted)
            with tracking_errors("Logging the expectations"):
                self.tracker().metrics(expectations.metrics(self.expectations))
        if failure := expectations.violated(self.expectations):
            raise failure

    def check_data(self, spark: Any) -> None:
        """`check_expectations` for code of the user's, which reads for itself: on the rows of ``spec.dataset``."""
        if self.spec.dataset.expectations:
            from lakeloop_trainer import dataset

            self.check_expectations(dataset.open_rows(spark, self.spec.dataset, self.spec.inputs))

    def stop_spark(self) -> None:
        """Lets Spark and its executors go, in the background: the rows are in this process."""
        if self._session is not None:
            self._session.stop()

    def end_spark(self) -> None:
        """Ends the JVM, and waits for it: its memory is somebody else's next."""
        with self._jvm_lock:
            if self._jvm is not None:
                self._jvm.stop()
            self._jvm = self._session = None

    @property
    def executors_missing(self) -> bool:
        return self._session is not None and self._session.executors_missing

    def jvm_death(self) -> RunFailure | None:
        """Why the JVM is no longer there; None where it is, or was never started."""
        return self._jvm.death() if self._jvm is not None else None

    def vacuumed(self, error: BaseException) -> RunFailure | None:
        """The failure of an input of which a file is gone; None where the exception tells of something else."""
        known = [item for item in self.spec.inputs if item.name in self.versions]
        tables = {item.name: (item.uri, self.versions[item.name]) for item in known}
        fields = {item.name: f"{item.path}.version" if item.ingest is None else item.path for item in known}
        return vacuumed(error, tables, fields)

    def _prepare_inputs(self) -> dict[str, Prepared]:
        """Asks the store for each input: credentials, bucket, table, files to load."""
        from lakeloop_trainer.ingest import prepare

        found = {}
        for item in self.spec.inputs:
            store = self.store(item.uri)
            try:
                if item.ingest is not None:
                    found[item.name] = prepare(item, self.spec.uid, store)
                elif not has_delta_log(store, item.uri):
                    raise RunFailure("TableNotFound", f"There is no Delta table at {item.uri}", f"{item.path}.uri")
            except Exception as error:
                context = Context(f"Looking at {item.uri}", "StorageUnavailable", f"{item.path}.uri", False)
                raise classify(error, context) from error
        return found

    def _ingest(self, spark: Any, item: Input, prepared: Prepared) -> int:
        from lakeloop_trainer.ingest import load

        if prepared.version is not None:
            return prepared.version
        if prepared.manifest is None:
            raise ValueError(f"{item.name}: neither a version nor a manifest")
        job = f"{self.spec.namespace}/{self.spec.job}"
        return load(spark, item, prepared.manifest, self.spec.uid, job, self.store(item.uri))

    def store(self, uri: str) -> ObjectStore:
        """The store of a URI's scheme, with the run's credentials."""
        scheme = uri.partition(":")[0]
        with self._lock:
            if scheme not in self._stores:
                self._stores[scheme] = store_for(uri, self.spec.path_style)
            return self._stores[scheme]

    # MLflow

    def ask_mlflow(self, *, own_code: bool = False) -> None:
        """Connects to the run in MLflow, in the background.

        ``own_code``: the user's own code logs. Nothing is imported beside that: `mlflow.autolog` holds MLflow's lock of
        imports while it waits for what another thread imports, and that thread waits for the lock.
        """
        self._connecting = self.beside("import and ask MLflow", self._connect, own_code)

    def tracker(self) -> Tracker:
        """The connection to the run in MLflow; waits for it."""
        if self._connecting is None:
            raise ValueError("ask_mlflow comes first")
        self._tracker = self._connecting.result()
        return self._tracker

    def _connect(self, own_code: bool) -> Tracker:
        from lakeloop_trainer.tracking import Tracker

        with tracking_errors("Asking MLflow for the run"):
            tracker = Tracker(self.spec.tracking_uri, self.spec.run_id)
        tracker.extra_requirements = tuple(self.requirements)
        # the main thread waits for Spark until the rows are there; what logs them can load meanwhile
        if not own_code:
            self._importing = self.beside("import what logs", _import_logging)
        return tracker

    def after_imports(self, name: str, function: Callable[..., T], *arguments: Any) -> Future[T]:
        """Like `beside`, for a function that needs MLflow: its modules import each other, and not in two threads."""

        def waited() -> T:
            self.tracker()
            if self._importing is not None:
                self._importing.result()
            with self.stages.measure(name):
                return function(*arguments)

        return self._pool.submit(waited)

    def describe(self, params: Mapping[str, object]) -> Future[None]:
        """Logs the parameters, and the inputs with their versions, in the background."""
        tracker = self.tracker()

        def described() -> None:
            with tracking_errors("Logging the parameters"):
                tracker.params(params)
                tracker.inputs(self.spec.inputs, self.versions, self.columns)

        return self.beside("log parameters", described)

    def input_params(self) -> dict[str, object]:
        """The parameters that tell which tables were read."""
        return {f"inputs.{item.name}": f"{item.uri}@{self.versions[item.name]}" for item in self.spec.inputs}

    # the rest

    @property
    def work(self) -> Path:
        """A folder for what is to be uploaded; gone with the attempt."""
        return Path(self._work.name)

    def shares_files(self) -> bool:
        """Whether the executors see this pod's files; a store that is no S3 is a folder of a test's or of a volume."""
        return self.conf["spark.master"].startswith("local[") or not self.tracker().artifact_uri.startswith("s3")

    def beside(self, name: str, function: Callable[..., T], *arguments: Any) -> Future[T]:
        """Runs a function in another thread, as a stage of that name."""

        def measured() -> T:
            with self.stages.measure(name):
                return function(*arguments)

        return self._pool.submit(measured)

    def result_inputs(self) -> list[dict[str, Any]]:
        """Inputs with the versions that are known by now."""
        return [{"name": name, "version": version} for name, version in self.versions.items()]

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

    def on_close(self, end: Callable[[], None]) -> None:
        """What else is to be ended with this attempt."""
        self._ends.append(end)

    def close(self) -> None:
        """Stops Spark and removes what this attempt wrote to local disk."""
        for end in self._ends:
            end()
        with self._jvm_lock:
            if self._jvm is not None:
                self._jvm.stop()
        self._pool.shutdown(wait=False, cancel_futures=True)
        with contextlib.suppress(OSError):
            self._work.cleanup()


def _import_logging() -> None:
    for name in LOGGING_MODULES:
        importlib.import_module(name)


@contextlib.contextmanager
def tracking_errors(doing: str) -> Iterator[None]:
    """What MLflow or the artifact store raises in the block becomes a RunFailure."""
    try:
        yield
    except RunFailure:
        raise
    except Exception as error:
        raise classify(error, Context(doing, "TrackingUnavailable", "spec.tracking", False, "tracking")) from error
