"""The trainer image's own small programs: its entry point, what is taken out of pyspark, and the classes' archive."""

import http.client
import importlib.util
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

TRAINER = Path(__file__).parents[2] / "images/trainer"
SPARK = {
    "SPARK_EXECUTOR_MEMORY": "768m",
    "SPARK_DRIVER_URL": "spark://CoarseGrainedScheduler@10.0.0.1:7078",
    "SPARK_EXECUTOR_ID": "1",
    "SPARK_EXECUTOR_CORES": "1",
    "SPARK_APPLICATION_ID": "app",
    "SPARK_EXECUTOR_POD_IP": "10.0.0.2",
    "SPARK_RESOURCE_PROFILE_ID": "0",
    "SPARK_EXECUTOR_POD_NAME": "exec-1",
}


def load(name: str, path: Path) -> ModuleType:
    """A module by its file."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


prune_spark = load("prune_spark", TRAINER / "prune_spark.py")
s3_stub = load("s3_stub", TRAINER / "cds/s3_stub.py")
record = load("record", TRAINER / "cds/record.py")


@pytest.mark.parametrize(
    ("jar", "foreign"),
    [
        ("netty-transport-native-epoll-4.2.7.Final-linux-x86_64.jar", False),
        ("netty-transport-native-epoll-4.2.7.Final-linux-aarch_64.jar", True),
        ("netty-codec-native-quic-4.2.7.Final-windows-x86_64.jar", True),
        ("netty-transport-native-kqueue-4.2.7.Final-osx-x86_64.jar", True),
        ("netty-buffer-4.2.7.Final.jar", False),
        ("netty-tcnative-classes-2.0.74.Final.jar", False),
    ],
)
def test_foreign_netty_goes(jar: str, foreign: bool) -> None:
    assert prune_spark.is_foreign(jar, "x86_64") == foreign


def test_jars_keep_their_classes_and_this_machines_library(tmp_path: Path) -> None:
    jar = tmp_path / "zstd-jni-1.jar"
    with zipfile.ZipFile(jar, "w") as archive:
        for name in ("A.class", "linux/amd64/libzstd.so", "linux/aarch64/libzstd.so", "win/amd64/libzstd.dll"):
            archive.writestr(name, name)
    prune_spark.strip(jar, ("linux/amd64/",))
    assert zipfile.ZipFile(jar).namelist() == ["A.class", "linux/amd64/libzstd.so"]


def test_a_jar_without_this_machines_library_is_refused(tmp_path: Path) -> None:
    jar = tmp_path / "zstd-jni-1.jar"
    with zipfile.ZipFile(jar, "w") as archive:
        archive.writestr("linux/other/libzstd.so", "")
    with pytest.raises(SystemExit, match="has no library"):
        prune_spark.strip(jar, ("linux/amd64/",))


def test_class_lists_are_merged() -> None:
    driver = "# comment\njava/lang/Object id: 0\nx/Driver id: 1 super: 0\n@lambda-proxy x/Driver run\n"
    executor = "java/lang/Object id: 0\nx/Own id: 7 super: 0 source: file:/a.jar\nx/Executor id: 1\n"
    assert record.merged([driver, executor]) == [
        *("java/lang/Object", "x/Driver", "x/Executor"),
        "@lambda-proxy x/Driver run",
    ]


def test_class_path_is_by_name(tmp_path: Path) -> None:
    (tmp_path / "jars").mkdir()
    for name in ("b.jar", "A.jar", "a-2.jar", "a.jar", "x.txt"):
        (tmp_path / "jars" / name).touch()
    names = [Path(part).name for part in record.class_path(tmp_path).split(":")]
    assert names == ["A.jar", "a-2.jar", "a.jar", "b.jar"]


def ask(endpoint: str, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, bytes]:
    """One request; names of headers with underscores."""
    connection = http.client.HTTPConnection(endpoint.removeprefix("http://"), timeout=5)
    connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
    answer = connection.getresponse()
    return answer.status, answer.read()


def test_store_keeps_to_s3_as_far_as_delta_goes() -> None:
    server, endpoint = s3_stub.serve({"t/a": b"abcdef"})
    try:
        assert ask(endpoint, "GET", "/lake/t/a", Range="bytes=1-3") == (206, b"bcd")
        assert ask(endpoint, "PUT", "/lake/t/b", b"1", If_None_Match="*")[0] == 200
        assert ask(endpoint, "PUT", "/lake/t/b", b"2", If_None_Match="*")[0] == 412
        chunked = b"2;chunk-signature=x\r\nhi\r\n0;chunk-signature=y\r\nx-amz-checksum-crc32:z\r\n\r\n"
        assert ask(endpoint, "PUT", "/lake/u/c", chunked, Content_Encoding="aws-chunked")[0] == 200
        assert ask(endpoint, "PUT", "/lake/u/d", x_amz_copy_source="/lake/u/c")[0] == 200
        assert ask(endpoint, "GET", "/lake/u/d") == (200, b"hi")
        listing = ask(endpoint, "GET", "/lake?list-type=2&prefix=&delimiter=/")[1].decode()
        assert listing.count("<CommonPrefixes>") == 2
        assert "<Prefix>t/</Prefix>" in listing
        assert ask(endpoint, "DELETE", "/lake/t/b")[0] == 204
        assert ask(endpoint, "HEAD", "/lake/t/b")[0] == 404
    finally:
        server.shutdown()


def start(folder: Path, *arguments: str, **environment: str) -> list[str]:
    """The arguments that the entry point starts ``java`` with."""
    (folder / "bin").mkdir(exist_ok=True)
    java = folder / "bin/java"
    java.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    java.chmod(0o755)
    variables = {"PATH": f"{folder}/bin:{os.environ['PATH']}", "SPARK_HOME": str(folder / "spark"), **environment}
    command = [str(TRAINER / "entrypoint.sh"), *arguments]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


@pytest.fixture
def spark(tmp_path: Path) -> Path:
    """A folder with Spark's jars beside it."""
    (tmp_path / "spark/jars").mkdir(parents=True)
    for name in ("b.jar", "A.jar", "a-2.jar"):
        (tmp_path / "spark/jars" / name).touch()
    return tmp_path


def test_executor_is_started_as_spark_asks(spark: Path) -> None:
    options = {"SPARK_JAVA_OPT_10": "-Dlast=1", "SPARK_JAVA_OPT_0": "-Dfirst=a b", "SPARK_JAVA_OPT_2": "-Dsecond=x=y"}
    found = start(spark, "executor", **SPARK, **options, LAKELOOP_CDS_ARCHIVE="/nowhere.jsa")
    jars = ":".join(f"{spark}/spark/jars/{name}" for name in ("A.jar", "a-2.jar", "b.jar"))
    assert found == [
        *("-Dfirst=a b", "-Dsecond=x=y", "-Dlast=1", "-Xms768m", "-Xmx768m", "-cp", jars),
        "org.apache.spark.scheduler.cluster.k8s.KubernetesExecutorBackend",
        *("--driver-url", SPARK["SPARK_DRIVER_URL"], "--executor-id", "1", "--cores", "1", "--app-id", "app"),
        *("--hostname", "10.0.0.2", "--resourceProfileId", "0", "--podName", "exec-1"),
    ]


def test_executor_uses_the_archive_that_is_there(spark: Path) -> None:
    archive = spark / "spark.jsa"
    archive.touch()
    found = start(spark, "executor", **SPARK, LAKELOOP_CDS_ARCHIVE=str(archive))
    assert found[:2] == ["-Xshare:auto", f"-XX:SharedArchiveFile={archive}"]


def test_the_output_of_an_executor_is_kept_where_a_sidecar_waits_for_it(spark: Path) -> None:
    plain = start(spark, "executor", **SPARK)
    logged = spark / "bin/lakeloop-logged"
    logged.write_text('#!/bin/sh\necho logged\nexec "$@"\n')
    logged.chmod(0o755)
    assert start(spark, "executor", **SPARK) == plain
    assert start(spark, "executor", **SPARK, LAKELOOP_LOG_FOLDER="/logs") == ["logged", *plain]


def test_conf_folder_comes_last_so_that_the_archive_stays_valid(spark: Path) -> None:
    found = start(spark, "executor", **SPARK, SPARK_CONF_DIR="/opt/spark/conf", SPARK_CLASSPATH="/extra.jar")
    class_path = found[found.index("-cp") + 1].split(":")
    assert class_path[0] == "/extra.jar"
    assert class_path[-1] == "/opt/spark/conf"


def test_anything_else_is_run_as_it_is(spark: Path) -> None:
    assert start(spark, "java", "-version") == ["-version"]
