"""A session of Spark: the one that is active, that of a cluster, or one on this machine."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from variseq.errors import InputError, MissingDependencyError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

MIN_JAVA = 17
_OF_A_CLUSTER = ("SPARK_REMOTE", "PYSPARK_GATEWAY_PORT", "DATABRICKS_RUNTIME_VERSION")
"""Environment variables of Spark Connect, of spark-submit and of Databricks: there a session needs no settings."""
TABLE = "table:"
"""What stands before the name of a table that Spark knows, where a path could stand too."""


@contextmanager
def open_spark(num_cores: int | str = "*", memory: str | None = None) -> Iterator[SparkSession]:
    """A session of Spark 4; one that is started here is stopped at the end.

    Args:
        num_cores: Cores of a session on this machine; "*" for all. A cluster has its own settings.
        memory: Of the Java process of a session on this machine, such as "2g"; else as Spark is set up, or 1 GB.

    Raises:
        MissingDependencyError: pyspark is not installed.
        InputError: pyspark is of another version, Java is missing or too old, or the session does not start.
    """
    spark_class = _import_spark()
    active = spark_class.getActiveSession()
    if active is not None:
        yield active
        return
    builder = spark_class.builder.appName("variseq")
    if not any(name in os.environ for name in _OF_A_CLUSTER):
        check_java()
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)  # else its workers take another Python
        os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
        settings = {
            "spark.driver.host": "127.0.0.1",
            "spark.driver.bindAddress": "127.0.0.1",
            "spark.ui.enabled": "false",
            "spark.ui.showConsoleProgress": str(sys.stderr.isatty()).lower(),
            "spark.log.level": "OFF",  # a failure is an error here, with its reason
        }
        if memory is not None:
            settings["spark.driver.memory"] = memory
        builder = builder.master(f"local[{num_cores}]").config(map=settings)
    try:
        session = builder.getOrCreate()
    except Exception as error:  # Java and the network have many ways to fail
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise InputError(f"Spark does not start: {reason[:200]}. Check Java, SPARK_REMOTE and the cluster.") from error
    try:
        yield session
    finally:
        session.stop()


@contextmanager
def spark_failures() -> Iterator[None]:
    """Failures of Spark become InputError: with our own message where a worker had one, else with the first cause."""
    from pyspark.logger import PySparkLogger

    # They write failures of queries to the terminal, as JSON.
    for name in ("DataFrameQueryContextLogger", "SQLQueryContextLogger"):
        PySparkLogger.getLogger(name).setLevel("CRITICAL")
    try:
        yield
    except Exception as error:
        if not type(error).__module__.startswith(("pyspark.", "py4j.")):
            raise
        text = str(error)
        if of_worker := re.findall(r"^variseq\.errors\.\w+: (.+)$", text, re.MULTILINE):
            raise InputError(of_worker[-1]) from error
        causes = re.findall(r"^Caused by: [\w.$]+: (.+)$", text, re.MULTILINE)
        reason = causes[-1] if causes else next(filter(None, map(str.strip, text.splitlines())), type(error).__name__)
        raise InputError(f"Spark could not do it: {reason[:500]}") from error


def _import_spark() -> type[SparkSession]:
    try:
        import pyspark
        from pyspark.sql import SparkSession
    except ImportError as error:
        raise MissingDependencyError("pyspark", "spark") from error
    if pyspark.__version__.split(".")[0] != "4":
        raise InputError(
            f"pyspark {pyspark.__version__} is installed, and version 4 is needed: pip install 'variseq[spark]'."
        )
    return SparkSession


def check_java() -> None:
    """Raises InputError where there is no Java that Spark 4 runs on."""
    home = os.environ.get("JAVA_HOME")
    command = os.path.join(home, "bin", "java") if home else "java"
    remedy = f"Install Java {MIN_JAVA} or newer (openjdk-{MIN_JAVA}-jre-headless), or set JAVA_HOME to one."
    if shutil.which(command) is None:
        raise InputError(f"Spark needs Java, and {command!r} is not there. {remedy}")
    shown = subprocess.run([command, "-version"], capture_output=True, text=True, check=False).stderr
    found = re.search(r'version "(?:1\.)?(\d+)', shown)
    if found is None or int(found[1]) < MIN_JAVA:
        version = f"is version {found[1]}" if found else "does not run"
        raise InputError(f"Spark needs Java {MIN_JAVA} or newer, and {command!r} {version}. {remedy}")
