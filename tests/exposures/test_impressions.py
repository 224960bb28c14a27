"""A shop's own table becomes exposures; each row is used, or counted with the reason why not."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.exposures.lists import rows_of
from variseq.errors import InputError
from variseq.exposures.read import read_exposures
from variseq.exposures.rewards import RewardOptions

LISTS = pd.DataFrame(
    {
        "slate_id": ["x", "y", "x", "y", "x"],
        "user": ["u", "v", "u", "v", "u"],
        "item": ["a", "b", "c", "a", "b"],
        "position": [2, 1, 1, 2, 3],
        "click": [0, 1, 1, 0, 0],
        "propensity_at_rank": [0.5, 0.2, 0.1, 0.5, 1.0],
        "propensity_in_list": [0.9, 0.6, 0.3, 0.9, 0.9],
        "timestamp": [20, 10, 20, 10, 20],
    }
)


def test_table_without_lists_is_one_list_a_row(tmp_path: Path) -> None:
    path = tmp_path / "own.csv.gz"
    with gzip.open(path, "wt") as stream:
        stream.write(
            ",timestamp,item_id,position,click,propensity_score\n"
            "0,2019-11-24 00:00:35.5+00:00,14,3,0,0.0125\n"
            "1,2019-11-24 00:00:34+00:00,7,1,1,0.5\n"
        )
    exposures, report = read_exposures(path)
    assert rows_of(exposures) == [("row 2", 7, 1, 1.0), ("row 1", 14, 3, 0.0)]
    assert (np.diff(exposures.time).tolist(), exposures.user, exposures.context) == ([1_500_000], [None, None], None)
    for column in (exposures.propensity_at_rank, exposures.propensity_in_list):
        assert column.tolist() == [0.5, 0.0125]
    assert report.columns["propensity"] == "propensity_score"
    assert (report.lines["read"], report.exposures["kept"]) == (2, 2)


@pytest.mark.parametrize("kind", ["frame", "csv", "parquet"])
def test_rows_of_an_exposure_id_are_a_list_in_order_of_ranks(tmp_path: Path, kind: str) -> None:
    source: object = LISTS
    if kind == "csv":
        source = tmp_path / "own.csv"
        LISTS.to_csv(source, index=False)
    elif kind == "parquet":
        source = tmp_path / "own.parquet"
        pq.write_table(pa.Table.from_pandas(LISTS), source)
    exposures, _ = read_exposures(source)
    assert rows_of(exposures) == [
        ("y", "b", 1, 1.0), ("y", "a", 2, 0.0), ("x", "c", 1, 1.0), ("x", "a", 2, 0.0), ("x", "b", 3, 0.0)
    ]  # fmt: skip
    assert exposures.user == ["v", "u"]
    assert exposures.propensity_at_rank.tolist() == [0.2, 0.5, 0.1, 0.5, 1.0]
    assert exposures.propensity_in_list.tolist() == [0.6, 0.9, 0.3, 0.9, 0.9]


def test_propensity_of_lists_has_to_be_named() -> None:
    table = LISTS.rename(columns={"propensity_at_rank": "pscore"}).drop(columns="propensity_in_list")
    with pytest.raises(InputError, match="--columns propensity_at_rank=pscore"):
        read_exposures(table)
    exposures, _ = read_exposures(table, {"propensity_in_list": "pscore"})
    assert np.isnan(exposures.propensity_at_rank).all()
    assert exposures.propensity_in_list[0] == 0.2


def test_row_that_cannot_be_used_is_counted_by_its_reason(tmp_path: Path) -> None:
    path = tmp_path / "own.csv"
    rows = ["a,1,1,0.5", ",1,1,0.5", "a,0,1,0.5", "a,x,1,0.5", "a,1.5,1,0.5", "a,1,,0.5", "a,2,true,", "a,1,1,0.5,7"]
    path.write_text("\n".join(["item_id,rank,reward,propensity", *rows]) + "\n")
    exposures, report = read_exposures(path)
    assert report.lines == {
        "read": 3, "missing item": 1, "no rank": 1, "rank that is no whole number": 1, "no reward": 1, "unreadable": 1
    }  # fmt: skip
    assert exposures.reward.tolist() == [1.0, 1.0, 1.0]
    assert exposures.rank.tolist() == [2, 1, 3], "ranks from 0 begin at 1"
    np.testing.assert_array_equal(exposures.propensity_at_rank, [0.5, 0.5, np.nan])


def test_list_with_a_rank_twice_is_left_out() -> None:
    exposures, report = read_exposures(LISTS.assign(position=[1, 1, 1, 2, 3]))
    assert exposures.exposure_id == ["y"]
    assert report.exposures == {"with a rank twice": 1, "kept": 1}


def test_rows_of_a_list_without_ranks_are_in_their_order() -> None:
    exposures, report = read_exposures(LISTS.drop(columns="position"))
    assert [row[:3] for row in rows_of(exposures)] == [
        ("y", "b", 1), ("y", "a", 2), ("x", "a", 1), ("x", "c", 2), ("x", "b", 3)
    ]  # fmt: skip
    assert any("rank" in note for note in report.notes)


@pytest.mark.parametrize(("wrong", "shown"), [(0.0, "propensity_at_rank=0 in row 3"), (1.01, "=1.01 in row 3")])
def test_impossible_propensity_is_refused_with_its_row(wrong: float, shown: str) -> None:
    with pytest.raises(InputError, match=shown):
        read_exposures(LISTS.assign(propensity_at_rank=[0.5, 0.2, wrong, 0.5, wrong]))


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (LISTS.drop(columns="click"), "No column for reward"),
        (LISTS.assign(clicked=0), "Several columns could be reward"),
        (LISTS.assign(click=None), "No row of the table can be used"),
        (LISTS.iloc[:0], "no rows"),
    ],
)
def test_table_that_cannot_be_understood_is_refused(table: pd.DataFrame, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_exposures(table)


def test_options_of_another_kind_of_source_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="column reward"):
        read_exposures(LISTS, options=RewardOptions({"buy": 1.0}))
    with pytest.raises(InputError, match="Leave them out"):
        read_exposures(tmp_path, {"reward": "click"})
