"""``lakeloop-driver``: one attempt of one run, from the run spec to the result."""

from __future__ import annotations

import logging
import os
import sys
import threading
import traceback
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from lakeloop_trainer import methods, run_spec
from lakeloop_trainer.attempt import Attempt
from lakeloop_trainer.failures import Context, RunFailure, chain, classify, scrub
from lakeloop_trainer.result import Outcome, termination_message
from lakeloop_trainer.termination import Termination

MLFLOW_DEFAULTS = {
    "GIT_PYTHON_REFRESH": "quiet",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ASYNC_LOGGING": "false",
    # five minutes in all, at growing distances: what took hours to train waits for a server that restarts
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "7",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "3",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    # and half a minute for the store that artifacts go to
    "AWS_RETRY_MODE": "standard",
    "AWS_MAX_ATTEMPTS": "8",
    "MPLBACKEND": "Agg",
    "MPLCONFIGDIR": "/tmp/matplotlib",  # noqa: S108 (the pod's own emptyDir; the image's root is read-only)
    # what this program loads, it has written itself (skops reads its file back), or it is the champion: whoever may
    # register a model can have code run here, as in a server
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "true",
}

log = logging.getLogger("lakeloop_trainer")


def main() -> None:
    """Entry point. Exit code 0: succeeded; 1: failed, with a result; 143: terminated, without one."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    for handler in logging.getLogger().handlers:
        # pyspark sets py4j's level to INFO, at which it tells of every connection that ends with the JVM; of an object
        # that is let go after the JVM it tells with a traceback. What matters is raised as well
        handler.addFilter(lambda record: not record.name.startswith("py4j") or record.levelno >= logging.ERROR)
        handler.addFilter(lambda record: record.msg != "Exception while sending command.")
    for noisy in ("botocore", "matplotlib", "boto3", "urllib3", "mlflow", "alembic", "skops"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
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
    attempt: Attempt | None = None
    uid, number = "", int(environ.get("LAKELOOP_ATTEMPT", "1"))
    try:
        try:
            spec = run_spec.load(spec_path)
            uid = spec.uid
            attempt = Attempt(spec, number, spec_path.parent, environ)
            termination.closes(attempt.close)
            outcome = methods.train(attempt)
        except BaseException as error:
            if termination.begun.is_set():  # Spark was stopped under it: that is no failure of the run's
                threading.Event().wait()
            failure = _failure(error, attempt)
            versions = attempt.result_inputs() if attempt else ()
            outcome = Outcome(uid, number, inputs=versions, failure=failure)
            log.error("%s/%s: %s", failure.failure_class, failure.reason, failure.message)
        if attempt is not None:
            outcome = replace(outcome, expectations=[each.document() for each in attempt.expectations])
        document = outcome.document()
        if attempt is not None:
            attempt.finish(document)
        _write_result(termination_log, termination_message(document))
        return 1 if outcome.failure else 0
    finally:
        if attempt is not None:
            attempt.close()


def _failure(error: BaseException, attempt: Attempt | None) -> RunFailure:
    sys.stderr.write(scrub("".join(traceback.format_exception(error))))
    if attempt is not None and attempt.executors_missing:
        return RunFailure(
            "ExecutorsUnavailable",
            "No executor pod was ready in time; see the events of the executor pods, and spec.spark.executor",
            "spec.spark.executor",
        )
    if attempt is not None and _lost_connection(error) and (death := attempt.jvm_death()):
        return death
    if attempt is not None and (gone := attempt.vacuumed(error)):
        return gone
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


if __name__ == "__main__":
    main()
