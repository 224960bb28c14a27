"""Spark and DuckDB give the same dataset, byte by byte."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.events.messy_logs import (
    assert_equal_events,
    messy_numbers,
    messy_texts,
    write_csv,
    write_lines,
    write_parts,
)
from tests.terminal.invoke import variseq
from variseq.errors import InputError
from variseq.events.options import ReadOptions
from variseq.events.read import prepare, read
from variseq.events.spark_engine import numbered, stream

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def assert_equal_datasets(log: Path, options: ReadOptions, spark: SparkSession, folder: Path) -> None:
    """The manifests are equal: reports, sizes of buckets and the digest of each file. So are the rejected rows."""
    manifests, rejects = [], []
    for name, session in (("duckdb", None), ("spark", spark)):
        with_rejects = options.model_copy(update={"rejects": folder / f"{name}.parquet"})
        prepare(log, folder / name, with_rejects, session, events_per_bucket=100)
        manifests.append(json.loads((folder / name / "prepared.json").read_text(encoding="utf-8")))
        rejects.append(pq.read_table(folder / f"{name}.parquet"))
    assert manifests[0] == manifests[1]
    assert len(manifests[0]["bucket_sizes"]) > 1
    assert manifests[0]["report"]["rejected"]
    assert rejects[0].equals(rejects[1])


def test_messy_csv_is_the_same(spark: SparkSession, tmp_path: Path) -> None:
    log = write_csv(messy_texts(1, 500), tmp_path / "log.csv")
    options = ReadOptions(time_unit="day/month/year", time_zone="Europe/Berlin", min_value=1.0, low_values="negative")
    assert_equal_datasets(log, options, spark, tmp_path)


def test_messy_json_lines_are_the_same(spark: SparkSession, tmp_path: Path) -> None:
    log = write_lines(messy_texts(3, 500), tmp_path / "log.jsonl")
    options = ReadOptions(time_unit="day/month/year", missing_value="zero", ties="shuffle")
    assert_equal_datasets(log, options, spark, tmp_path)


def test_messy_parquet_is_the_same_down_to_its_core(spark: SparkSession, tmp_path: Path) -> None:
    log = write_parts(messy_numbers(4, 900), tmp_path / "log")
    options = ReadOptions(
        min_user_events=10, min_item_events=8, collapse_repeats=True, missing_value="mean", min_value=1.0
    )
    assert_equal_datasets(log, options, spark, tmp_path)


def test_table_of_spark_is_read_as_its_rows(spark: SparkSession, tmp_path: Path) -> None:
    frame = spark.createDataFrame(messy_numbers(5, 400))
    expected = read(frame.toArrow())
    frame.createOrReplaceTempView("messy")
    result = variseq("prepare", "table:messy", "--engine", "spark", "--out", tmp_path / "dataset")
    assert result.code == 0, result.err
    assert_equal_events(read(tmp_path / "dataset"), expected)


def test_rows_are_numbered_in_order_without_one_task_for_all(spark: SparkSession) -> None:
    ids = [f"{number * 7919 % 1000:03}" for number in range(1000)]
    frame = spark.createDataFrame(pa.table({"id": ids})).repartitionByRange(5, "id").sortWithinPartitions("id")
    rows = stream(numbered(frame, "position", 10, "int"), "position").read_all()
    assert rows["id"].to_pylist() == sorted(ids)
    np.testing.assert_array_equal(rows["position"].to_numpy(), np.arange(10, 1010))


def test_frames_that_are_no_logs_are_refused(spark: SparkSession) -> None:
    cases = {
        "type LIST|VARCHAR\\[\\]": "SELECT array('a') AS user, 1 AS item, 1600000000 AS ts",
        "has no rows": "SELECT 1 AS user, 1 AS item, 1600000000 AS ts WHERE false",
        "No column for item_id": "SELECT 1 AS user, 1600000000 AS ts",
        "Spark could not do it": "SELECT 1 AS user, assert_true(false) AS item, 1600000000 AS ts",
    }
    for message, query in cases.items():
        with pytest.raises(InputError, match=message):
            read(spark.sql(query))
