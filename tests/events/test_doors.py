"""One log is the same log by every door: files, frames and relations give equal ids, times, values and behaviors."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from variseq.events.read import read
from variseq.events.report import Events

pytestmark = pytest.mark.slow

DOORS: dict[str, Callable[[pa.Table, Path], Any]] = {
    "csv": lambda log, folder: _csv(log, folder / "log.csv"),
    "json lines": lambda log, folder: _json_lines(log, folder / "log.jsonl"),
    "parquet": lambda log, folder: _parquet(log, folder / "log.parquet"),
    "pandas": lambda log, _: log.to_pandas(types_mapper=pd.ArrowDtype),
    "polars": lambda log, _: pl.from_arrow(log),
    "arrow": lambda log, _: log,
    "duckdb": lambda log, _: duckdb.connect().from_arrow(log),
}


def _csv(log: pa.Table, path: Path) -> Path:
    pyarrow.csv.write_csv(log, path)
    return path


def _json_lines(log: pa.Table, path: Path) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in log.to_pylist()), encoding="utf-8")
    return path


def _parquet(log: pa.Table, path: Path) -> Path:
    pq.write_table(log, path)
    return path


LETTERS = st.characters(exclude_categories=["Cs", "Cc"], include_characters="\t\n")
WORDS = st.text(LETTERS, min_size=1, max_size=6).map(lambda text: f"x{text}y")
TEXT_IDS = WORDS | st.sampled_from(["NULL", "nan", " padded ", "007", "", "N/A"])
INTEGERS = st.integers(-(2**63), 2**63 - 1)
IDS = {"text": TEXT_IDS, "integers": INTEGERS, "small": st.integers(0, 3)}


@st.composite
def logs(draw: st.DrawFn) -> pa.Table:
    """Logs of typed columns with gaps; at least one row is whole, and text columns hold a text that is no number."""
    num_rows = draw(st.integers(1, 8))

    def column(values: st.SearchStrategy[Any], first: Any) -> list[Any]:
        return [first, *draw(st.lists(values | st.none(), min_size=num_rows, max_size=num_rows))]

    users, items = (draw(st.sampled_from(["text", "integers", "small"])) for _ in range(2))
    first = {"text": "first", "integers": 7, "small": 1}
    kinds = {"text": pa.string(), "integers": pa.int64(), "small": pa.int64()}
    columns = {
        "user_id": pa.array(column(IDS[users], first[users]), kinds[users]),
        "item_id": pa.array(column(IDS[items], first[items]), kinds[items]),
        "timestamp": pa.array(column(st.integers(1_000_000_000, 1_700_000_000), 1_600_000_000), pa.int64()),
    }
    if draw(st.booleans()):
        columns["event"] = pa.array(column(st.sampled_from(["view", "buy", "null", ""]), "view"), pa.string())
    if draw(st.booleans()):
        columns["value"] = pa.array(column(st.sampled_from([0.5, -2.0, 3.25, float("nan")]), 1.0), pa.float64())
    return pa.table(columns)


def content(events: Events) -> list[tuple[Any, ...]]:
    table, vocabulary = events.table, events.vocabulary
    return list(
        zip(
            vocabulary.user_ids(table.user),
            vocabulary.item_ids(table.item),
            table.timestamp.tolist(),
            [vocabulary.behaviors[place] for place in table.behavior],
            np.nan_to_num(table.value, nan=-1e9).tolist(),
            strict=True,
        )
    )


@settings(max_examples=4, deadline=None)
@given(log=logs())
def test_one_log_is_the_same_by_every_door(log: pa.Table, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("doors")
    found = {door: read(opened(log, folder)) for door, opened in DOORS.items()}
    wanted = found["arrow"]
    assert wanted.report.num_rows == log.num_rows
    for door, events in found.items():
        assert content(events) == content(wanted), door
        assert events.report.rejected == wanted.report.rejected, door
        assert {type(one) for one in events.vocabulary.users.to_pylist()} <= {
            type(one) for one in wanted.vocabulary.users.to_pylist()
        }, door


TIMES = {
    "microseconds": pa.timestamp("us"),
    "nanoseconds": pa.timestamp("ns"),
    "zoned": pa.timestamp("us", "UTC"),
    "seconds": pa.timestamp("s"),
}


@pytest.mark.parametrize("kind", TIMES)
def test_one_instant_is_the_same_by_every_door(kind: str, tmp_path: Path) -> None:
    instants = pd.to_datetime(["2020-02-29 23:59:58", "2020-11-01 00:00:00", "1999-12-31 12:00:00"])
    times = pa.array(instants).cast(pa.timestamp("us")).cast(TIMES[kind])
    log = pa.table({"user_id": ["a", "b", "c"], "item_id": [1, 2, 3], "timestamp": times})
    for door, opened in DOORS.items():
        if door == "json lines":
            log = log.set_column(2, "timestamp", pa.array([instant.isoformat() for instant in instants]))
        found = read(opened(log, tmp_path)).table.timestamp.tolist()
        assert found == [int(instant.timestamp()) * 1_000_000 for instant in instants], door
