"""`spec.script`: a Python program of the user's, run in this process, inside the run's Spark session and MLflow run."""

from __future__ import annotations

import contextlib
import os
import re
import runpy
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from lakeloop_trainer import active_run, context, dependencies, logged, own_code, run_spec, workspace
from lakeloop_trainer.attempt import Attempt, tracking_errors
from lakeloop_trainer.blame import not_the_codes
from lakeloop_trainer.failures import RunFailure, advice, exception_line, scrub
from lakeloop_trainer.result import Outcome
from lakeloop_trainer.run_spec import Script

FIELD = "spec.script"
_QUOTED = re.compile(r"'[^'\n]*'|\"[^\"\n]*\"")


def train(attempt: Attempt) -> Outcome:
    """Runs the script and tells what it logged; raises RunFailure."""
    script = attempt.spec.script
    if script is None:
        raise ValueError("the run has no script")
    folder = workspace.folder("code")
    dependencies.importable_below((folder / script.path).parent)  # before the JVM starts, which starts workers
    attempt.start_spark()
    attempt.ask_mlflow(own_code=True)
    with attempt.stages.measure("fetch code"):
        path = _fetch(attempt, script, folder)
    tracker = attempt.tracker()
    own_code.pin(tracker, folder, FIELD)
    spark = attempt.open_tables()
    context.provide(context.RunContext(attempt.spec, attempt.versions, lambda: spark))
    described = attempt.describe(
        {"script.path": script.path, "script.args": " ".join(script.args), **attempt.input_params()}
    )
    attempt.progress.stage("Training", 50)
    since = time.time()
    with tracking_errors("Logging the code"):
        tracker.artifacts(own_code.artifacts(folder))
        tracker.document("lakeloop/run.json", attempt.spec.raw)
    described.result()  # before the script logs: two of them would be two values
    attempt.check_data(spark)
    with attempt.stages.measure("run script"), active_run.inside(attempt.spec.run_id):
        run(path, script.args, folder)
    attempt.progress.stage("Logging", 80)
    with attempt.stages.measure("look at what is logged"):
        return logged.outcome(attempt, since, lambda: _session(attempt, spark))


def _session(attempt: Attempt, spark: Any) -> Any:
    """The session, or where the script has stopped it another one."""
    if spark.sparkContext._jsc is not None:
        return spark
    from pyspark.sql import SparkSession

    from lakeloop_trainer.dataset import register_views

    again = SparkSession.builder.getOrCreate()
    register_views(again, attempt.spec.inputs, attempt.versions)
    return again


def _fetch(attempt: Attempt, script: Script, folder: Path) -> Path:
    if script.uri is None:
        own_code.from_config_map(Path(os.environ.get("LAKELOOP_SCRIPT_DIR", run_spec.SCRIPT_FOLDER)), folder)
    else:
        field = f"{FIELD}.uri"
        own_code.from_object(attempt.store(script.uri), script.uri, folder, field, "ScriptNotFound")
    return own_code.file_in(folder, script.path, f"{FIELD}.path", "ScriptNotFound")


def run(path: Path, args: tuple[str, ...], folder: Path) -> None:
    """Runs the file as Python's own command line would; raises RunFailure that names its line: ScriptFailed, unless
    the platform is to blame."""
    before = sys.argv, Path.cwd()
    sys.argv = [str(path), *args]
    sys.path.insert(0, str(path.parent))
    os.chdir(path.parent)
    try:
        runpy.run_path(str(path), run_name="__main__")
    except SystemExit as end:
        if end.code not in (None, 0):
            what = f"ended by sys.exit({end.code})" if isinstance(end.code, int) else f"ended by {exception_line(end)}"
            raise _failed(end, folder, what) from end
    except RunFailure:
        raise  # what lakeloop_run found wrong names its field already
    except BaseException as error:
        raise _failed(error, folder, exception_line(error)) from error
    finally:
        sys.argv = before[0]
        os.chdir(before[1])
        with contextlib.suppress(ValueError):
            sys.path.remove(str(path.parent))
        sys.stdout.flush()


def _failed(error: BaseException, folder: Path, what: str) -> RunFailure:
    # the text can quote values of rows; these quote names
    told = what if isinstance(error, ImportError | NameError | AttributeError | SyntaxError) else _QUOTED.sub("…", what)
    message = f"{FIELD}: {_place(error, folder)}: {told}"
    reason, field = not_the_codes(error) or ("ScriptFailed", FIELD)
    return RunFailure(reason, f"{scrub(message)[:700]}{advice(reason)}", field)


def _place(error: BaseException, folder: Path) -> str:
    """The last line of the user's own that the exception came through."""
    root = str(folder)
    if isinstance(error, SyntaxError) and error.filename and error.filename.startswith(root):
        return f"{Path(error.filename).relative_to(root)}, line {error.lineno}"
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if frame.filename.startswith(root):
            return f"{Path(frame.filename).relative_to(root)}, line {frame.lineno}"
    return "the script"
