"""How the driver's JVM is started, against what Spark's own launcher would do."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from lakeloop_trainer.session import LEFT_OUT_OPTIONS, MODULE_OPTIONS, java_command

pytestmark = pytest.mark.spark


def test_module_options_are_those_of_sparks_launcher() -> None:
    import pyspark

    home = Path(pyspark.__file__).parent
    printed = subprocess.run(
        [home / "bin/spark-submit", "--version"],
        env={**os.environ, "SPARK_HOME": str(home), "SPARK_PRINT_LAUNCH_COMMAND": "1"},
        capture_output=True, text=True, check=True,
    ).stderr  # fmt: skip
    command = next(line for line in printed.splitlines() if line.startswith("Spark Command:"))
    launcher = {
        word
        for word in re.sub(r" -cp \S+| -Xmx\S+", "", command).split()
        if word.startswith("-") and word != "--version"
    }
    derby_only = "-Dderby.connection.requireAuthentication=false"
    assert launcher - {derby_only} == {*MODULE_OPTIONS, *LEFT_OUT_OPTIONS}


def test_the_archive_fits_the_class_path(spark: Any) -> None:
    """A JVM that cannot use the archive says nothing and is slow: ask a running one what it mapped."""
    pid = spark.sparkContext._jvm.java.lang.ProcessHandle.current().pid()
    mapped = Path(f"/proc/{pid}/maps").read_text()
    assert os.environ["LAKELOOP_CDS_ARCHIVE"] in mapped


def test_the_operators_java_options_come_before_the_users(tmp_path: Path) -> None:
    conf = {"spark.driver.memory": "1g", "spark.driver.defaultJavaOptions": "-Da=1 -Db=2"}
    conf["spark.driver.extraJavaOptions"] = "-Da=3"
    command = java_command(conf, tmp_path, tmp_path / "p", None, {})
    assert [option for option in command if option.startswith(("-Da=", "-Db="))] == ["-Da=1", "-Db=2", "-Da=3"]


def test_the_java_command_without_an_archive(tmp_path: Path) -> None:
    command = java_command({"spark.driver.memory": "1g"}, tmp_path, tmp_path / "p", None, {})
    assert not any("SharedArchiveFile" in option for option in command)
    assert command[-3:] == ["--properties-file", str(tmp_path / "p"), "pyspark-shell"]
