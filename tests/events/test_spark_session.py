"""What Spark needs and is not there gives one message."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest

from variseq.errors import InputError, MissingDependencyError
from variseq.events.spark_session import check_java, open_spark


def test_missing_pyspark_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyspark", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'variseq\[spark\]'"), open_spark():
        pass


def test_other_version_of_pyspark_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    old, sql = ModuleType("pyspark"), ModuleType("pyspark.sql")
    vars(old)["__version__"], vars(sql)["SparkSession"] = "3.5.9", object
    monkeypatch.setitem(sys.modules, "pyspark", old)
    monkeypatch.setitem(sys.modules, "pyspark.sql", sql)
    with pytest.raises(InputError, match=r"pyspark 3\.5\.9 is installed, and version 4 is needed"), open_spark():
        pass


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (None, "is not there"),
        ("echo 'openjdk version \"1.8.0_392\"' >&2", "is version 8"),
        ("echo 'openjdk version \"11.0.1\" 2018-10-16' >&2", "is version 11"),
        ("exit 1", "does not run"),
        ("echo 'openjdk version \"17.0.15\" 2025-04-15' >&2", None),
        ("echo 'openjdk version \"21-ea\" 2023-09-19' >&2", None),
    ],
)
def test_java_that_spark_does_not_run_on_is_refused(
    script: str | None, message: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if script is not None:
        (tmp_path / "bin").mkdir()
        (tmp_path / "bin" / "java").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "bin" / "java").chmod(0o755)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    if message is None:
        check_java()
        return
    with pytest.raises(InputError, match=f"{message}. Install Java 17 or newer"):
        check_java()
