"""Item columns stand beside the items of the log, whatever kind of file they came from."""

import json
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from variseq.errors import CheckpointError, InputError
from variseq.events.items import ItemTable
from variseq.events.read import read

LOG = pa.table({"user": [1, 1, 2], "item": [30, 10, 20], "ts": [1600000000] * 3})


def test_titles_and_categories_follow_the_positions(tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text(
        "movieId,title,genres,year\n10,Ten,A|B,1999\n30,Thirty,,2001\n99,Other,C,2002\n"
    )
    events = read(LOG, tmp_path / "items.csv")
    items = events.items
    assert items is not None
    assert items.titles(range(3)) == ["Ten", None, "Thirty"]
    assert items.categories([0, 1, 2]) == [("A", "B"), (), ()]
    assert items.table.column("year").to_pylist() == ["1999", None, "2001"]
    assert (items.num_left_out, items.num_without_row) == (1, 1)
    assert any("1 items of the log have no row" in note for note in events.report.notes)


def test_every_source_of_items_is_read(tmp_path: Path) -> None:
    rows = [
        {"item_id": 20, "name": "Twenty", "categories": ["x", "y"]},
        {"item_id": 10, "name": None, "categories": []},
    ]
    (tmp_path / "items.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "items.parquet")
    for source in (
        tmp_path / "items.jsonl",
        tmp_path / "items.parquet",
        pa.Table.from_pylist(rows),
        pd.DataFrame(rows),
    ):
        items = read(LOG, source).items
        assert items is not None
        assert items.titles([0, 1, 2]) == [None, "Twenty", None]
        assert items.categories([1]) == [("x", "y")]


def test_items_find_a_log_that_was_read_from_parquet(tmp_path: Path) -> None:
    pq.write_table(LOG, tmp_path / "log.parquet")
    items = read(tmp_path / "log.parquet", pa.table({"item_id": [10], "title": ["Ten"]})).items
    assert items is not None
    assert items.titles([0]) == ["Ten"]


def test_text_ids_of_the_log_find_their_rows(tmp_path: Path) -> None:
    log = pa.table({"user": [1, 1], "item": ["007", "8"], "ts": [1600000000] * 2})
    (tmp_path / "items.csv").write_text("item_id,title\n007,Bond\n8,Eight\n")
    items = read(log, tmp_path / "items.csv").items
    assert items is not None
    assert items.titles([0, 1]) == ["Bond", "Eight"]
    (tmp_path / "items.csv").write_text("item_id,title\n8,Eight\n")
    assert read(log, tmp_path / "items.csv").items.titles([0, 1]) == [None, "Eight"]  # type: ignore[union-attr]


def test_doubled_ids_are_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text("item_id,title\n10,a\n20,b\n10,c\n")
    with pytest.raises(InputError, match=r"1 ids in more than one row: '?10'? \(2 rows\).*keep one row"):
        read(LOG, tmp_path / "items.csv")


def test_items_of_another_world_are_refused() -> None:
    with pytest.raises(InputError, match="log has ids like 10, the table like 'i1'"):
        read(LOG, pa.table({"item_id": ["i1"], "title": ["x"]}))


def test_items_without_an_id_column_are_refused() -> None:
    with pytest.raises(InputError, match=r"No column for item_id.*item_columns="):
        read(LOG, pa.table({"color": ["red"], "title": ["x"]}))


def test_item_columns_are_saved_and_loaded(tmp_path: Path) -> None:
    items = read(LOG, pa.table({"item_id": [10], "title": ["Ten"], "price": [1.5]})).items
    assert items is not None
    items.save(tmp_path / "item_columns.parquet")
    assert ItemTable.load(tmp_path / "item_columns.parquet").table.equals(items.table)
    (tmp_path / "item_columns.parquet").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="cannot be read"):
        ItemTable.load(tmp_path / "item_columns.parquet")


def test_equal_rows_of_one_item_are_kept_once() -> None:
    table = pa.table({"item_id": [10, 10, 20], "title": ["Ten", "Ten", "Twenty"]})
    events = read(LOG, table)
    assert events.items is not None
    assert events.items.titles([0, 1]) == ["Ten", "Twenty"]
    assert any("1 rows of the items file equal others" in note for note in events.report.notes)


def test_ids_of_items_are_compared_by_what_they_mean(tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text("item_id,title\n10.0, Ten\n 20.0,Twenty\n")
    for source in (tmp_path / "items.csv", pa.table({"item_id": [10.0, 20.0], "title": [" Ten", "Twenty"]})):
        items = read(LOG, source).items
        assert items is not None
        assert items.titles([0, 1]) == [" Ten", "Twenty"]


def test_titles_keep_their_commas() -> None:
    items = read(LOG, pa.table({"item_id": [10, 20], "title": ["Food, Inc.", "A > B"]})).items
    assert items is not None
    assert items.titles([0, 1]) == ["Food, Inc.", "A > B"]


def test_items_that_match_by_half_are_warned_of() -> None:
    few = read(LOG, pa.table({"item_id": ["010", "020", "30"], "title": ["a", "b", "c"]}))
    assert any("2 of 3 ids of the log" in warning for warning in few.report.warnings)
    partial = read(LOG, pa.table({"item_id": [30], "title": ["c"]}))
    assert partial.report.warnings == []


def test_rows_of_items_without_an_id_are_counted(tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text("item_id,title\n10,A\n,B\nNULL,C\n")
    events = read(LOG, tmp_path / "items.csv")
    assert any("2 rows of the items file have no id" in note for note in events.report.notes)


@pytest.mark.parametrize("word", ["NaN", "nan", "NULL", "\\N", "<NA>", " "])
def test_word_that_programs_write_for_nothing_is_no_title(word: str, tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text(f"item_id,title\n10,{word}\n20,None\n30,Null\n")
    for source in (tmp_path / "items.csv", pd.DataFrame({"item_id": [10, 20, 30], "title": [word, "None", "Null"]})):
        items = read(LOG, source).items
        assert items is not None
        assert items.titles([0, 1, 2]) == [None, "None", "Null"]


def test_categories_of_objects_are_alike_by_every_source(tmp_path: Path) -> None:
    rows = [{"item_id": 10, "genres": [{"id": 1, "name": "A"}, {"id": 2, "name": "B"}]}, {"item_id": 20, "genres": []}]
    (tmp_path / "items.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    written = pd.DataFrame([row | {"genres": str(row["genres"])} for row in rows])
    written.to_csv(tmp_path / "items.csv", index=False)
    for source in (tmp_path / "items.jsonl", tmp_path / "items.csv", written, pa.Table.from_pylist(rows)):
        items = read(LOG, source).items
        assert items is not None
        assert items.categories([0, 1]) == [("A", "B"), ()]


def test_categories_that_are_floats_are_alike_by_every_source(tmp_path: Path) -> None:
    frame = pd.DataFrame({"item_id": [10, 20], "category": [1.0, None]})
    frame.to_csv(tmp_path / "items.csv", index=False)
    for source in (frame, tmp_path / "items.csv"):
        items = read(LOG, source).items
        assert items is not None
        assert items.categories([0, 1]) == [("1",), ()]
