"""Tables of items and users are aligned with the ids of a log."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from variseq.errors import CheckpointError, InputError
from variseq.events.items import ItemTable, read_users, split_categories
from variseq.events.read import read
from variseq.events.vocabulary import Vocabulary

pytestmark = pytest.mark.slow

CASES = {
    "bars": (["A|B", "B", None], [["A", "B"], ["B"], []], ""),
    "Python lists": (["['A', \"B's\"]", "['A']", "[]"], [["A", "B's"], ["A"], []], "brackets"),
    "JSON lists": (['["A", "B, C"]', "[1, 2]"], [["A", "B, C"], ["1", "2"]], "brackets"),
    "bare lists": (["[A, B]"], [["A", "B"]], "brackets"),
    "commas": (["A, B", "B,C", "C", "A"], [["A", "B"], ["B", "C"], ["C"], ["A"]], "commas"),
    "semicolons": (["A;B", "B; A", "A"], [["A", "B"], ["B", "A"], ["A"]], "';'"),
    "levels": (["Home > Garden", "Home"], [["Home", "Garden"], ["Home"]], "levels"),
    "mixed": (["['A', 'B']", "A|C", "B, A"], [["A", "B"], ["A", "C"], ["B", "A"]], "commas"),
    "names with commas": (["Clothing, Shoes & Jewelry", "Toys"], [["Clothing, Shoes & Jewelry"], ["Toys"]], "one each"),
    "numbers": ([7, 7.0, "7"], [["7"], ["7"], ["7"]], ""),
    "typed lists": ([["A", None, "B"]], [["A", "B"]], ""),
    "numpy lists": (["['Action' 'Indie']", "['Action']", "['A' \"B's\"\n 'it\\'s']", "[1 2]"],
                    [["Action", "Indie"], ["Action"], ["A", "B's", "it's"], ["1", "2"]], "brackets"),
    "Python lists of objects": (["[{'id': 16, 'name': 'Animation'}, {'id': 35, 'name': 'Comedy'}]", "[]"],
                                [["Animation", "Comedy"], []], "brackets"),
    "JSON lists of objects": (['[{"id": 1, "title": "A, B"}]', '{"label": "C"}'], [["A, B"], ["C"]], "brackets"),
    "typed lists of objects": ([[{"id": 1, "name": "A"}, {"id": 2, "name": None}], {"name": "B"}, []],
                               [["A", '{"id": 2, "name": null}'], ["B"], []], "no name"),
    "lists within lists": (['[["Shoes", "Boots"], ["Shoes"]]', "[['Hats']]"], [["Shoes", "Boots"], ["Hats"]],
                           "brackets"),
    "typed lists within lists": ([[["Shoes"], ["Boots"]]], [["Shoes", "Boots"]], ""),
    "doubled": (["Action|Action", "Action"], [["Action"], ["Action"]], ""),
    "floats": ([1.0, 2.5, None], [["1"], ["2.5"], []], ""),
    "floats of a text file": (["1.0", "2.5", ""], [["1"], ["2.5"], []], ""),
    "words for nothing": (["N/A", "nan", "A|None", " "], [[], [], ["A"], []], ""),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_column_is_divided_as_it_shows(case: str) -> None:
    entries, expected, words = CASES[case]
    found, notes = split_categories(entries)
    assert found == expected
    assert words in " ".join(notes)
    assert bool(notes) == bool(words)


LOG = pa.table({"user": [1, 1, 2], "item": [30, 10, 20], "ts": [1600000000] * 3})


def items_of(source: object, log: object = LOG) -> ItemTable:
    items = read(log, source).items
    assert items is not None
    return items


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


def test_table_of_ids_alone_has_a_row_for_each_item() -> None:
    events = pa.table({"user_id": [1, 1, 2], "item_id": [3, 4, 3], "timestamp": [1e9, 1e9 + 1, 1e9]})
    items = read(events, items=pa.table({"item_id": [4, 3]})).items
    assert items is not None
    assert (items.titles([0, 1]), items.categories([0, 1])) == ([None, None], [(), ()])


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
        items = items_of(source)
        assert items.titles([0, 1, 2]) == [None, "Twenty", None]
        assert items.categories([1]) == [("x", "y")]


def test_items_find_a_log_that_was_read_from_parquet(tmp_path: Path) -> None:
    pq.write_table(LOG, tmp_path / "log.parquet")
    table = pa.table({"item_id": [10], "title": ["Ten"]})
    assert items_of(table, tmp_path / "log.parquet").titles([0]) == ["Ten"]


def test_text_ids_of_the_log_find_their_rows(tmp_path: Path) -> None:
    log = pa.table({"user": [1, 1], "item": ["007", "8"], "ts": [1600000000] * 2})
    (tmp_path / "items.csv").write_text("item_id,title\n007,Bond\n8,Eight\n")
    assert items_of(tmp_path / "items.csv", log).titles([0, 1]) == ["Bond", "Eight"]
    (tmp_path / "items.csv").write_text("item_id,title\n8,Eight\n")
    assert items_of(tmp_path / "items.csv", log).titles([0, 1]) == [None, "Eight"]


def test_doubled_ids_are_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text("item_id,title\n10,a\n20,b\n10,c\n")
    with pytest.raises(InputError, match=r"1 ids in more than one row: '?10'? \(2 rows\).*keep one row"):
        read(LOG, tmp_path / "items.csv")


def test_items_of_other_ids_or_without_an_id_column_are_refused() -> None:
    with pytest.raises(InputError, match="log has ids like 10, the table like 'i1'"):
        read(LOG, pa.table({"item_id": ["i1"], "title": ["x"]}))
    with pytest.raises(InputError, match=r"No column for item_id.*item_columns="):
        read(LOG, pa.table({"color": ["red"], "title": ["x"]}))


def test_item_columns_are_saved_and_loaded(tmp_path: Path) -> None:
    items = items_of(pa.table({"item_id": [10], "title": ["Ten"], "price": [1.5]}))
    items.save(tmp_path / "item_columns.parquet")
    assert ItemTable.load(tmp_path / "item_columns.parquet").table.equals(items.table)
    (tmp_path / "item_columns.parquet").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="cannot be read"):
        ItemTable.load(tmp_path / "item_columns.parquet")


def test_equal_rows_of_one_item_are_kept_once() -> None:
    events = read(LOG, pa.table({"item_id": [10, 10, 20], "title": ["Ten", "Ten", "Twenty"]}))
    assert events.items is not None
    assert events.items.titles([0, 1]) == ["Ten", "Twenty"]
    assert any("1 rows of the items file equal others" in note for note in events.report.notes)


def test_ids_of_items_are_compared_by_what_they_mean(tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text("item_id,title\n10.0, Ten\n 20.0,Twenty\n")
    for source in (tmp_path / "items.csv", pa.table({"item_id": [10.0, 20.0], "title": [" Ten", "Twenty"]})):
        assert items_of(source).titles([0, 1]) == [" Ten", "Twenty"]


def test_titles_keep_their_commas() -> None:
    items = items_of(pa.table({"item_id": [10, 20], "title": ["Food, Inc.", "A > B"]}))
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


def test_words_that_programs_write_for_nothing_are_no_titles(tmp_path: Path) -> None:
    titles = ["NaN", "nan", "NULL", "\\N", "<NA>", " ", "None", "Null"]
    frame = pd.DataFrame({"item_id": range(8), "title": titles})
    (tmp_path / "items.csv").write_text("item_id,title\n" + "".join(f"{n},{one}\n" for n, one in enumerate(titles)))
    log = pa.table({"user": [1] * 8, "item": range(8), "ts": [1600000000] * 8})
    for source in (tmp_path / "items.csv", frame):
        assert items_of(source, log).titles(range(8)) == [None] * 6 + ["None", "Null"]


def test_categories_of_objects_are_alike_by_every_source(tmp_path: Path) -> None:
    rows = [{"item_id": 10, "genres": [{"id": 1, "name": "A"}, {"id": 2, "name": "B"}]}, {"item_id": 20, "genres": []}]
    (tmp_path / "items.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    written = pd.DataFrame([row | {"genres": str(row["genres"])} for row in rows])
    written.to_csv(tmp_path / "items.csv", index=False)
    for source in (tmp_path / "items.jsonl", tmp_path / "items.csv", written, pa.Table.from_pylist(rows)):
        assert items_of(source).categories([0, 1]) == [("A", "B"), ()]


def test_categories_that_are_floats_are_alike_by_every_source(tmp_path: Path) -> None:
    frame = pd.DataFrame({"item_id": [10, 20], "category": [1.0, None]})
    frame.to_csv(tmp_path / "items.csv", index=False)
    for source in (frame, tmp_path / "items.csv"):
        assert items_of(source).categories([0, 1]) == [("1",), ()]


TEXT_IDS = Vocabulary(pa.array(["007", "anna", "bob"]), pa.array(["a"]), ("event",))
WHOLE_IDS = Vocabulary(pa.array([7, 12, 300]), pa.array(["a"]), ("event",))


def test_every_source_gives_the_same_columns(tmp_path: Path) -> None:
    table = pd.DataFrame(
        {
            "user_id": ["bob", "007", "nobody"],
            "country": ["DE", "FR", "FR"],
            "age": [31, 17, 5],
            "vip": [True, False, True],
        }
    )
    table.to_csv(tmp_path / "users.csv", index=False)
    table.to_parquet(tmp_path / "users.parquet")
    table.to_json(tmp_path / "users.jsonl", orient="records", lines=True)
    for source in (table, pl.from_pandas(table), tmp_path / "users.csv", tmp_path / "users.parquet",
                   tmp_path / "users.jsonl"):  # fmt: skip
        columns = read_users(source, TEXT_IDS)
        assert columns["country"] == ["FR", None, "DE"]
        assert columns["age"] == [17.0, None, 31.0]
        vip = [None if value is None else value.lower() for value in map(str, columns["vip"])]
        assert vip == ["false", "none", "true"]


def test_who_made_vectors_is_kept_from_a_parquet_file(tmp_path: Path) -> None:
    made_by = {b"variseq.encoder": b"sentence", b"PARQUET:field_id": b"7"}
    field = pa.field("text_vector", pa.list_(pa.float32()), metadata=made_by)
    schema = pa.schema([("item", pa.int64()), ("name", pa.string()), field])
    pq.write_table(pa.table([[8, 7], ["a", "b"], [[1.0], None]], schema=schema), tmp_path / "items.parquet")
    items = read(pa.table({"user": ["u", "u"], "item": [7, 8], "ts": [1_600_000_000] * 2}), tmp_path / "items.parquet")
    assert items.items is not None
    items.items.save(tmp_path / "saved.parquet")
    for table in (items.items.table, ItemTable.load(tmp_path / "saved.parquet").table):
        assert table.column_names == ["title", "category", "text_vector"]
        assert table.schema.field("text_vector").metadata[b"variseq.encoder"] == b"sentence"
        assert table.column("text_vector").to_pylist() in ([None, [1.0]], [[1.0], None])


def test_whole_ids_match_numbers_and_their_digits(tmp_path: Path) -> None:
    (tmp_path / "users.csv").write_text("user_id,plan\n12,free\n300,\nx,paid\n007,paid\n")
    assert read_users(tmp_path / "users.csv", WHOLE_IDS) == {"plan": [None, "free", None]}
    assert read_users(pa.table({"user_id": [7, 8], "plan": ["a", "b"]}), WHOLE_IDS) == {"plan": ["a", None, None]}


def test_names_and_values_that_mean_harm_are_only_text() -> None:
    name = 'plan"; DROP TABLE raw; --'
    table = pa.table({"user_id": ["bob"], name: ["'); DROP TABLE raw; --"]})
    assert read_users(table, TEXT_IDS) == {name: [None, None, "'); DROP TABLE raw; --"]}


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ({"uid": ["bob"], "age": [3]}, "needs a column 'user_id'"),
        ({"user_id": ["bob"]}, "at least one more to group by"),
        ({"user_id": ["bob", "bob"], "age": [3, 4]}, r"1 ids in more than one row: 'bob' \(2 rows\)"),
        ({"user_id": ["eve"], "age": [3]}, "the log has ids like '007', the table like 'eve'"),
    ],
)
def test_table_that_cannot_be_used_is_refused(table: dict[str, list[object]], told: str) -> None:
    with pytest.raises(InputError, match=told):
        read_users(pa.table(table), TEXT_IDS)
