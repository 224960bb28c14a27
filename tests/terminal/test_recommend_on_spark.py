"""`variseq recommend --engine spark` writes what `recommend --all-users` writes, and refuses with one message."""

from __future__ import annotations

import sys
from pathlib import Path
from shutil import copytree
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

from tests.terminal.invoke import refuse, succeed
from tests.terminal.shop import left_in
from variseq.estimator import load

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@pytest.fixture(scope="module")
def exported(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("spark") / "run"
    copytree(run, folder)
    succeed("export", folder)
    return folder


@pytest.fixture(scope="module")
def events(shop_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The log of the shop as a folder of two Parquet files."""
    folder, log = tmp_path_factory.mktemp("events"), pd.read_csv(shop_file)
    log["timestamp"] = pd.to_datetime(log["timestamp"], unit="s", utc=True).astype("datetime64[us, UTC]")
    log[:300].to_parquet(folder / "a.parquet")
    log[300:].to_parquet(folder / "b.parquet")
    return folder


def test_table_is_that_of_all_users(
    spark: SparkSession, exported: Path, events: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["recommend", exported, "-k", 3, "--include-seen", "--exclude", "i02"]
    succeed(*words, "--all-users", "--out", "one.parquet")
    out = succeed(*words, "--engine", "spark", "--histories", events, "--out", "many").out
    one, many = pd.read_parquet("one.parquet"), pd.read_parquet("many").sort_values(["user_id", "rank"])
    assert f"{len(one):,} rows: many" in out
    assert many.columns.tolist() == one.columns.tolist()
    for column in ("user_id", "item_id", "rank", "title", "fallback"):
        assert many[column].tolist() == one[column].tolist()
    np.testing.assert_allclose(many["probability"], one["probability"], rtol=1e-3)
    refuse("exists already", *words, "--engine", "spark", "--histories", events, "--out", "many")


def test_prepared_dataset_is_answered_as_the_log_that_it_was_made_of(
    spark: SparkSession, exported: Path, shop_file: Path, tmp_path: Path
) -> None:
    dataset, one, many = tmp_path / "dataset", tmp_path / "one.parquet", tmp_path / "many"
    words = ["recommend", exported, "-k", 3, "--ranks-only"]
    succeed("prepare", shop_file, "--out", dataset)
    succeed(*words, "--all-users", "--out", one)
    succeed(*words, "--engine", "spark", "--histories", dataset, "--out", many)
    expected, found = pd.read_parquet(one), pd.read_parquet(many).sort_values(["user_id", "rank"])
    assert found[["user_id", "item_id"]].to_numpy().tolist() == expected[["user_id", "item_id"]].to_numpy().tolist()
    (dataset / "buckets" / "00000.parquet").unlink()
    refuse("is missing", *words, "--engine", "spark", "--histories", dataset, "--out", tmp_path / "another")


def test_events_of_one_time_are_in_the_order_of_files_and_rows(
    spark: SparkSession, exported: Path, events: Path, tmp_path: Path
) -> None:
    (tmp_path / "events").mkdir()
    log = pd.read_parquet(events).query("user_id == 'u03'").assign(timestamp=1_700_000_000)
    for number, part in enumerate((log[:4], log[4:])):
        part.to_parquet(tmp_path / "events" / f"{number}.parquet")
    words = ["recommend", exported, "-k", 5, "--ranks-only", "--engine", "spark"]
    spark.sql(f"CREATE DATABASE shop LOCATION 'file://{tmp_path / 'shop'}'")
    succeed(*words, "--histories", tmp_path / "events", "--out", "table:shop.answers")
    history = log[["item_id", "timestamp", "event", "value"]]
    expected = load(exported).recommend(history=history, k=5, ranks_only=True).to_pandas()
    found = spark.table("shop.answers").toArrow().to_pandas().sort_values("rank")
    assert found["item_id"].tolist() == expected["item_id"].tolist()
    refuse("ALREADY_EXISTS", *words, "--histories", tmp_path / "events", "--out", "table:shop.answers")
    spark.sql("DROP DATABASE shop CASCADE")


def test_what_a_worker_refuses_is_one_message_and_leaves_nothing(
    spark: SparkSession, exported: Path, events: Path, tmp_path: Path
) -> None:
    spark.read.parquet(str(events)).createOrReplaceTempView("shop_events")
    words = ["recommend", exported, "--engine", "spark", "--out", tmp_path / "out", "--histories"]
    refuse("before the latest event of user", *words, "table:shop_events", "--at", "1000")
    refuse("TABLE_OR_VIEW_NOT_FOUND", *words, "table:nothing")
    refuse("Spark could not do it: .*PATH_NOT_FOUND", *words, tmp_path / "nothing")
    (tmp_path / "bad.parquet").write_text("no Parquet")
    refuse("Spark could not do it: .*bad.parquet", *words, tmp_path / "bad.parquet")
    assert left_in(tmp_path) == ["bad.parquet"]


def test_options_that_do_not_fit_are_refused(run: Path, tmp_path: Path) -> None:
    spark = ["--engine", "spark", "--histories", "events", "--out", tmp_path / "out"]
    refuse("--user is not for --engine spark", "recommend", run, *spark, "--user", "u01")
    refuse("--all-users is not for --engine spark", "recommend", run, *spark, "--all-users")
    refuse("--workers is not for --engine spark", "recommend", run, *spark, "--workers", 2)
    refuse("Give --engine spark --histories TABLE --out TABLE", "recommend", run, *spark[:4])
    refuse("Give --engine spark --histories TABLE --out TABLE", "recommend", run, *spark[2:])
    refuse("--engine flink is not possible", "recommend", run, "--engine", "flink", *spark[2:])
    refuse("Run: variseq export", "recommend", run, *spark)
    refuse("exists already", "recommend", run, *spark[:4], "--out", tmp_path)


def test_without_pyspark_the_extra_is_named(exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyspark", None)
    words = ["recommend", exported, "--engine", "spark", "--histories", "events", "--out", tmp_path / "out"]
    refuse(r"pip install 'variseq\[spark\]'", *words)
