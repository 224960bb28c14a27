"""Answers for a Spark table of events are those of `recommend`; torch is not loaded where they are computed."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from shutil import copytree
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from variseq.errors import CheckpointError, InputError
from variseq.estimator import VariationalAttention
from variseq.inference.spark_answers import MICROS, answers, events_by_user, opened, recommend_on_spark
from variseq.ranking.engine import NO_HISTORY, Engine
from variseq.ranking.options import RecommendOptions

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

CLOSE = ("score", "probability", "probability_low", "probability_high", "uncertainty_total", "propensity_in_list")
DRAWN = {"k": 5, "strategy": "softmax", "seed": 4, "temperature": 1.0}
EVENTS = pa.schema(
    [("user_id", "string"), ("item_id", "string"), (MICROS, "int64"), ("event", "string"), ("value", "float64")]
)


@pytest.fixture(scope="module")
def engine(bundle_folder: Path) -> Engine:
    return opened(bundle_folder)


@pytest.fixture(scope="module")
def log(fitted: VariationalAttention) -> pd.DataFrame:
    """All events of the run as rows, by user and time."""
    checkpoint = fitted.checkpoint
    histories, vocabulary = checkpoint.histories, checkpoint.vocabulary
    return pd.DataFrame(
        {
            "user_id": np.repeat(vocabulary.users.to_pylist(), histories.lengths),
            "item_id": vocabulary.item_ids(histories.item),
            MICROS: histories.timestamp,
            "event": [vocabulary.behaviors[one] for one in histories.behavior],
            "value": histories.value.astype(np.float64),
        }
    )


def assert_same(found: pd.DataFrame, expected: pd.DataFrame) -> None:
    """The same lists; numbers are those of another runtime."""
    assert found.columns.tolist() == expected.columns.tolist()
    for column in ("user_id", "item_id", "rank", "title", "source", "fallback"):
        assert found[column].tolist() == expected[column].tolist(), column
    for column in found.columns.intersection(CLOSE):
        np.testing.assert_allclose(found[column], expected[column], atol=1e-4, rtol=1e-3)
    if "reasons" in found:
        assert found["reasons"].map(list).tolist() == expected["reasons"].map(list).tolist()


def answered(folder: Path, engine: Engine, batches: list[pa.RecordBatch], **options: Any) -> pa.Table:
    return pa.Table.from_batches(answers(str(folder), engine.version, RecommendOptions(**options), iter(batches)))


@pytest.mark.parametrize("options", [{}, {"k": 3, "ranks_only": True}, DRAWN, {"at": 1_800_000_000, "k": 4}])
def test_answers_for_a_partition_are_those_of_recommend(
    fitted: VariationalAttention, bundle_folder: Path, engine: Engine, log: pd.DataFrame, options: dict[str, Any]
) -> None:
    batches = pa.Table.from_pandas(log, EVENTS, preserve_index=False).to_batches(max_chunksize=100)
    expected = fitted.recommend(fitted.vocabulary.users.to_pylist(), **options)
    found = answered(bundle_folder, engine, batches, **options)
    assert found.schema == expected.to_arrow().schema
    assert_same(found.to_pandas(), expected.to_pandas())


@given(cuts=st.lists(st.integers(0, 200), max_size=6))
def test_answers_do_not_depend_on_where_batches_end(
    bundle_folder: Path, engine: Engine, log: pd.DataFrame, cuts: list[int]
) -> None:
    table = pa.Table.from_pandas(log[:200], EVENTS, preserve_index=False).combine_chunks()
    bounds = [0, *sorted(cuts), 200]
    batches = [
        batch
        for start, end in pairwise(bounds)
        for batch in table.slice(start, end - start).to_batches() or [pa.record_batch([[]] * 5, schema=EVENTS)]
    ]
    whole = answered(bundle_folder, engine, table.to_batches(), k=3, ranks_only=True)
    assert answered(bundle_folder, engine, batches, k=3, ranks_only=True).equals(whole)


def test_unknown_items_are_left_out_and_people_without_others_are_labelled(
    fitted: VariationalAttention, bundle_folder: Path, engine: Engine, log: pd.DataFrame
) -> None:
    known, unknown = log[:1].assign(user_id="b"), log[:1].assign(item_id="nope")
    events = pd.concat([unknown.assign(user_id="a"), unknown.assign(user_id="b"), known, unknown.assign(user_id="c")])
    batch = pa.Table.from_pandas(events, EVENTS, preserve_index=False).to_batches()
    found = answered(bundle_folder, engine, batch, k=2).to_pandas()
    assert found["user_id"].tolist() == list("aabbcc")
    assert found["fallback"].fillna("").tolist() == [NO_HISTORY] * 2 + [""] * 2 + [NO_HISTORY] * 2
    expected = fitted.recommend(history=known[["item_id", "event", "value"]], k=2).to_dicts()
    assert found["item_id"].tolist()[2:4] == [row["item_id"] for row in expected]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"user_id": None}, "without user_id"),
        ({"item_id": None}, "without item_id"),
        ({MICROS: None}, "without timestamp"),
        ({MICROS: 10**18}, "not milliseconds"),
        ({MICROS: -1}, "before 1970"),
        ({"value": np.inf}, "value above 1e[+]30"),
    ],
)
def test_rows_that_cannot_be_are_refused(
    bundle_folder: Path, engine: Engine, changes: dict[str, Any], words: str
) -> None:
    row = {"user_id": "a", "item_id": "i01", MICROS: 0, "event": None, "value": None} | changes
    with pytest.raises(InputError, match=words):
        answered(bundle_folder, engine, pa.Table.from_pylist([row], EVENTS).to_batches())


def test_another_model_at_the_same_path_is_refused(bundle_folder: Path) -> None:
    with pytest.raises(CheckpointError, match="Copy the export again"):
        next(answers(str(bundle_folder), "other", RecommendOptions(), iter([])))


def events_table(spark: SparkSession, log: pd.DataFrame, columns: str = "input_row") -> Any:
    """The log in another order, with times as Spark has them; only its column input_row knows the order."""
    shuffled = log.assign(input_row=range(len(log))).sample(frac=1, random_state=0)
    frame = spark.createDataFrame(pa.Table.from_pandas(shuffled, preserve_index=False))
    return frame.selectExpr("user_id", "item_id", f"timestamp_micros({MICROS}) AS timestamp", "event", "value", columns)


def test_answers_on_spark_are_those_of_recommend_without_torch(
    spark: SparkSession,
    fitted: VariationalAttention,
    bundle_folder: Path,
    log: pd.DataFrame,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def without_torch(*arguments: Any) -> Iterator[pa.RecordBatch]:
        import sys

        from variseq.inference.spark_answers import answers

        yield from answers(*arguments)
        assert "onnxruntime" in sys.modules
        assert "torch" not in sys.modules

    monkeypatch.setattr("variseq.inference.spark_answers.answers", without_torch)
    found = recommend_on_spark(bundle_folder, events_table(spark, log), k=4).toArrow().to_pandas()
    expected = fitted.recommend(fitted.vocabulary.users.to_pylist(), k=4).to_pandas()
    assert_same(found.sort_values(["user_id", "rank"]), expected)


def test_events_of_one_time_are_in_the_order_of_the_input(
    spark: SparkSession, fitted: VariationalAttention, bundle_folder: Path, log: pd.DataFrame
) -> None:
    at_once = log.assign(**{MICROS: log[MICROS].min()})
    found = recommend_on_spark(bundle_folder, events_table(spark, at_once), k=3, ranks_only=True).toArrow().to_pandas()
    found = found.sort_values(["user_id", "rank"])
    for user, rows in list(found.groupby("user_id"))[:20]:
        of_user = at_once[at_once["user_id"] == user]
        history = of_user[["item_id", "event", "value"]].assign(timestamp=of_user[MICROS] / 1e6)
        expected = fitted.recommend(history=history, k=3, ranks_only=True).to_pandas()
        assert rows["item_id"].tolist() == expected["item_id"].tolist()


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        (["'u' AS user_id", "'i' AS item_id"], "no column timestamp; they have user_id, item_id"),
        (["1 AS user_id", "'i' AS item_id", "0 AS timestamp"], "user_id is int, and the ids of this model are text"),
        (["'u' AS user_id", "'i' AS item_id", "'now' AS timestamp"], "timestamp is string"),
    ],
)
def test_columns_that_do_not_fit_are_refused(
    spark: SparkSession, bundle_folder: Path, columns: list[str], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        recommend_on_spark(bundle_folder, spark.range(1).selectExpr(*columns))


@pytest.mark.parametrize(
    "time", ["1700000000", "1700000000.0D", "TIMESTAMP_NTZ '2023-11-14 22:13:20'", "timestamp_seconds(1700000000)"]
)
def test_numbers_and_times_without_a_zone_are_read_as_times(spark: SparkSession, engine: Engine, time: str) -> None:
    row = spark.range(1).selectExpr("'u' AS user_id", "'i01' AS item_id", f"{time} AS timestamp")
    assert [one[MICROS] for one in events_by_user(row, engine).collect()] == [1_700_000_000_000_000]


def test_run_that_is_not_exported_names_the_command(run_folder: Path, tmp_path: Path) -> None:
    run = copytree(run_folder, tmp_path / "run")
    with pytest.raises(CheckpointError, match="Run: variseq export"):
        opened(run)
