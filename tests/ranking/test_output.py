from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from variseq.errors import InputError
from variseq.ranking.recommendations import write_tables


def tables(num_tables: int = 3) -> Iterator[pa.Table]:
    for number in range(num_tables):
        yield pa.table({"user_id": [f'u,"{number}', "v"], "reasons": [["a", "b"], []], "score": [0.5, 1.5]})


def test_parquet_holds_all_tables_as_they_came(tmp_path: Path) -> None:
    assert write_tables(tables(), tmp_path / "recs.parquet") == 6
    assert pq.read_table(tmp_path / "recs.parquet") == pa.concat_tables(tables())
    assert [path.name for path in tmp_path.iterdir()] == ["recs.parquet"]


def test_csv_joins_the_reasons_and_keeps_awkward_ids(tmp_path: Path) -> None:
    assert write_tables(tables(), tmp_path / "recs.csv") == 6
    frame = pd.read_csv(tmp_path / "recs.csv", keep_default_na=False)
    assert frame["reasons"].tolist() == ["a; b", ""] * 3
    assert frame["user_id"].tolist() == ['u,"0', "v", 'u,"1', "v", 'u,"2', "v"]


@pytest.mark.parametrize("name", ["recs", "recs.csv.gz"])
def test_other_endings_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=r"Allowed: a name ending in \.parquet or \.csv"):
        write_tables(tables(), tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["recs.parquet", "recs.csv"])
def test_failure_on_the_way_leaves_the_file_that_was_there(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("before")

    def breaking() -> Iterator[pa.Table]:
        yield from tables(1)
        raise RuntimeError("on the way")

    with pytest.raises(RuntimeError, match="on the way"):
        write_tables(breaking(), tmp_path / name)
    assert (tmp_path / name).read_text() == "before"
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no device that is always full")
def test_missing_folder_and_full_disk_are_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be written"):
        write_tables(tables(), tmp_path / "nowhere" / "recs.csv")
    os.symlink("/dev/full", tmp_path / ".recs.parquet.partial")
    with pytest.raises(InputError, match="cannot be written"):
        write_tables(tables(), tmp_path / "recs.parquet")
    assert list(tmp_path.iterdir()) == []
