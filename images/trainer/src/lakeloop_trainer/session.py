"""The JVM and the Spark session.

The JVM is started directly, not through ``spark-submit``: that would start another JVM first, only to print the
command line of this one. Everything else is as ``spark-submit --deploy-mode client`` does it, and PySpark attaches
through ``PYSPARK_GATEWAY_PORT``, its way in for a JVM that is already there.
"""

from __future__ import annotations

import logging
import os
import shlex
import shutil
import signal
import struct
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lakeloop_trainer.failures import RunFailure

ARCHIVE_VARIABLE = "LAKELOOP_CDS_ARCHIVE"
DEFAULT_ARCHIVE = "/opt/lakeloop/spark.jsa"
TOO_MANY_EXECUTORS_FAILED = 11
"""The exit code that Spark ends its driver with (``SparkExitCode.EXCEED_MAX_EXECUTOR_FAILURES``)."""

# org.apache.spark.launcher.JavaModuleOptions, Spark 4.1; a test compares it with what the launcher prints.
MODULE_OPTIONS = (
    "-XX:+IgnoreUnrecognizedVMOptions",
    *(
        f"--add-opens={package}=ALL-UNNAMED"
        for package in (
            "java.base/java.lang", "java.base/java.lang.invoke", "java.base/java.lang.reflect", "java.base/java.io",
            "java.base/java.net", "java.base/java.nio", "java.base/java.util", "java.base/java.util.concurrent",
            "java.base/java.util.concurrent.atomic", "java.base/jdk.internal.ref", "java.base/sun.nio.ch",
            "java.base/sun.nio.cs", "java.base/sun.security.action", "java.base/sun.util.calendar",
            "java.security.jgss/sun.security.krb5",
        )
    ),
    "-Djdk.reflect.useDirectMethodHandle=false",
    "-Dio.netty.tryReflectionSetAccessible=true",
    "-Dio.netty.allocator.type=pooled",
    "-Dio.netty.handler.ssl.defaultEndpointVerificationAlgorithm=NONE",
    "--enable-native-access=ALL-UNNAMED",
)  # fmt: skip
# The vector API is left out, here as in the executors: an archive of classes cannot be used together with
# --add-modules, and MLlib's BLAS does without it (a run on a very big table can have it by extraJavaOptions).
LEFT_OUT_OPTIONS = ("--add-modules=jdk.incubator.vector",)

log = logging.getLogger(__name__)


def spark_home() -> Path:
    """``SPARK_HOME``, else the folder of the pyspark package (found without importing it)."""
    if home := os.environ.get("SPARK_HOME"):
        return Path(home)
    from importlib.util import find_spec

    spec = find_spec("pyspark")
    if spec is None or spec.origin is None:
        raise RunFailure("InvalidConf", "this image has no pyspark")
    return Path(spec.origin).parent


def java_command(
    conf: Mapping[str, str], home: Path, properties_file: Path, archive: Path | None, environ: Mapping[str, str]
) -> list[str]:
    """The command line of the driver's JVM.

    C1 and the serial collector: a driver plans, it does not crunch, and both halve the CPU that a small run burns.
    Where it does crunch (no executors, a big table), ``spark.driver.extraJavaOptions: -XX:TieredStopAtLevel=4`` brings
    the full compiler back: the last option wins. ``archive`` is a class-data archive made with the image; the JVM
    ignores one that does not fit its class path.
    """
    jars = sorted((home / "jars").glob("*.jar"), key=lambda jar: jar.name)
    extra = [part for part in conf.get("spark.driver.extraClassPath", "").split(":") if part]
    # jars by name, not "jars/*": an archive is only valid for the very same order, and readdir has none
    conf_folder = environ.get("SPARK_CONF_DIR")
    class_path = ":".join([*([conf_folder] if conf_folder else []), *extra, *map(str, jars)])
    java = Path(environ["JAVA_HOME"]) / "bin/java" if environ.get("JAVA_HOME") else Path("java")
    return [
        str(java), "-cp", class_path, f"-Xmx{conf['spark.driver.memory']}", "-XX:TieredStopAtLevel=1",
        "-XX:+UseSerialGC", "-Xshare:auto", *([f"-XX:SharedArchiveFile={archive}"] if archive else []),
        *MODULE_OPTIONS,
        *shlex.split(conf.get("spark.driver.defaultJavaOptions", "")),
        *shlex.split(conf.get("spark.driver.extraJavaOptions", "")),
        "org.apache.spark.deploy.SparkSubmit", "--properties-file", str(properties_file), "pyspark-shell",
    ]  # fmt: skip


def properties_text(conf: Mapping[str, str]) -> str:
    """The settings as a Java properties file."""

    def escaped(value: str) -> str:
        return value.replace("\\", "\\\\").replace("\n", "\\n").replace("\t", "\\t")

    return "".join(f"{key}={escaped(value)}\n" for key, value in sorted(conf.items()))


class Jvm:
    """The driver's JVM, as a child process that ends with this one."""

    def __init__(self, conf: Mapping[str, str], extra_options: Sequence[str] = ()) -> None:
        """Starts it and returns at once. ``extra_options`` are put before all others."""
        self.conf = dict(conf)
        self._folder = Path(tempfile.mkdtemp(prefix="lakeloop-"))
        self._connection = self._folder / "connection"
        properties = self._folder / "spark.properties"
        properties.write_text(properties_text(conf))
        archive = Path(os.environ.get(ARCHIVE_VARIABLE, DEFAULT_ARCHIVE))
        home = spark_home()
        command = java_command(conf, home, properties, archive if archive.is_file() else None, os.environ)
        environment = {
            **os.environ,
            "SPARK_HOME": str(home),
            "SPARK_CONNECT_MODE": "0",
            "_PYSPARK_DRIVER_CONN_INFO_PATH": str(self._connection),
        }
        self.process = subprocess.Popen(
            [command[0], *extra_options, *command[1:]],
            stdin=subprocess.PIPE,  # the gateway ends when this pipe breaks, so no JVM outlives its driver
            env=environment,
            start_new_session=True,  # a Ctrl-C or SIGTERM for the group reaches Python first
        )

    def connect(self, timeout_seconds: float = 120) -> None:
        """Waits for the gateway and tells PySpark where it is; raises RunFailure where the JVM does not come up."""
        deadline = time.monotonic() + timeout_seconds
        while not self._connection.is_file():  # written under another name and renamed, so it is whole
            if (code := self.process.poll()) is not None:
                if code < 0:
                    raise RunFailure("DriverError", f"The driver's JVM was killed by signal {-code} at its start")
                raise RunFailure(
                    "InvalidConf",
                    f"The driver's JVM ended with exit code {code} at its start; see the pod's log. "
                    "Check spark.driver.memory and spark.conf",
                    "spec.spark",
                )
            if time.monotonic() > deadline:
                raise RunFailure("DriverError", f"The driver's JVM was not up after {timeout_seconds:.0f} s")
            time.sleep(0.02)
        raw = self._connection.read_bytes()
        port, length = struct.unpack("!ii", raw[:8])
        os.environ["PYSPARK_GATEWAY_PORT"] = str(port)
        os.environ["PYSPARK_GATEWAY_SECRET"] = raw[8 : 8 + length].decode()
        shutil.rmtree(self._folder, ignore_errors=True)

    def death(self, timeout_seconds: float = 2) -> RunFailure | None:
        """What to say of a JVM that ended although nobody asked it to; None where it lives.

        Who lost the connection to it may be faster than the process: it is waited for.
        """
        try:
            code = self.process.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            return None
        if code == TOO_MANY_EXECUTORS_FAILED:
            return RunFailure(
                "ExecutorsUnavailable",
                "Too many executors failed; see their events and spec.spark.executor, and spark.conf for their options",
                "spec.spark.executor",
            )
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        return RunFailure("DriverError", f"The driver's JVM {how} in the middle of the run; see the pod's log")

    def stop(self, grace_seconds: float = 10) -> None:
        """Ends the process: asked first, so that Spark's shutdown hooks remove the executors; then killed."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(grace_seconds)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)


class Session:
    """The Spark session, made in a thread of its own while the caller does something else."""

    def __init__(self, jvm: Jvm) -> None:
        self._jvm = jvm
        self._spark: Any = None
        self._error: BaseException | None = None
        self.executors_missing = False
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._start, name="spark-session", daemon=True)
        self._thread.start()

    def get(self) -> Any:
        """The session; waits for it. Raises what its start raised."""
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._spark

    def stop(self) -> None:
        """Stops Spark in the background: the rows are in this process, so executors can go while it trains."""
        self._done.set()
        threading.Thread(target=self._stop, name="spark-stop", daemon=True).start()

    def _start(self) -> None:
        try:
            self._jvm.connect()
            from pyspark.sql import SparkSession

            self._spark = SparkSession.builder.getOrCreate()
            if not self._jvm.conf["spark.master"].startswith("local"):
                threading.Thread(target=self._watch_executors, name="executor-watch", daemon=True).start()
        except BaseException as error:  # handed to the thread that waits
            self._error = error

    def _watch_executors(self) -> None:
        """Without executors a job waits for ever: cancel it after a while, so that the run fails with a reason."""
        patience = float(os.environ.get("LAKELOOP_EXECUTOR_TIMEOUT_SECONDS", "300"))
        if self._jvm.conf.get("spark.dynamicAllocation.enabled") == "true":
            return  # none is what it should have while nothing is to do
        context = self._spark.sparkContext
        deadline = time.monotonic() + patience
        while not self._done.wait(1.0):
            # the status has one entry for the driver itself
            if context._jsc.sc().getExecutorMemoryStatus().size() > 1:
                return
            if time.monotonic() > deadline:
                self.executors_missing = True
                context.cancelAllJobs()  # and the next one too, should this moment be between two

    def _stop(self) -> None:
        try:
            self._spark.stop()
        except Exception as error:  # the run no longer needs it
            log.warning("Spark did not stop cleanly: %s", type(error).__name__)
