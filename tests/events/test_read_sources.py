"""Every kind of source gives the same events, and ids come back as they went in."""

import gzip
import json
import subprocess
import sys
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from variseq.errors import InputError
from variseq.events.options import ReadOptions
from variseq.events.read import read

ROWS = {
    "userId": ["b", "a", "b", "a"],
    "sku": ["x", "y", "z", "x"],
    "ts": [1_600_000_300, 1_600_000_200, 1_600_000_100, 1_600_000_200],
    "rating": [1.0, 2.0, None, 4.5],
    "action": ["view", "buy", "view", "view"],
}


def write_csv(path: Path, delimiter: str = ",") -> Path:
    lines = [delimiter.join(ROWS)]
    for row in zip(*ROWS.values(), strict=True):
        lines.append(delimiter.join("" if field is None else str(field) for field in row))
    text = "\n".join(lines) + "\n"
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def write_jsonl(path: Path) -> Path:
    lines = [json.dumps(dict(zip(ROWS, row, strict=True))) for row in zip(*ROWS.values(), strict=True)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def write_parquet(path: Path) -> Path:
    pq.write_table(pa.table(ROWS), path)
    return path


SOURCES = {
    "csv": lambda folder: write_csv(folder / "log.csv"),
    "semicolons": lambda folder: write_csv(folder / "log.csv", ";"),
    "tsv": lambda folder: str(write_csv(folder / "log.tsv", "\t")),
    "gzip": lambda folder: write_csv(folder / "log.csv.gz"),
    "jsonl": lambda folder: write_jsonl(folder / "log.jsonl"),
    "parquet": lambda folder: write_parquet(folder / "log.parquet"),
    "folder": lambda folder: write_parquet(folder / "log.parquet").parent,
    "glob": lambda folder: str(write_parquet(folder / "log.parquet").parent / "*.parquet"),
    "odd name": lambda folder: write_csv(folder / "lo[g]*' .csv"),
    "arrow": lambda folder: pa.table(ROWS),
    "arrow reader": lambda folder: pa.table(ROWS).to_reader(max_chunksize=2),
    "pandas": lambda folder: pd.DataFrame(ROWS),
    "polars": lambda folder: pl.DataFrame(ROWS),
    "polars lazy": lambda folder: pl.LazyFrame(ROWS),
}


@pytest.mark.parametrize("kind", SOURCES)
def test_every_source_gives_the_same_events(kind: str, tmp_path: Path) -> None:
    events = read(SOURCES[kind](tmp_path))
    table, vocabulary = events.table, events.vocabulary
    assert vocabulary.user_ids(table.user) == ["a", "a", "b", "b"]
    assert vocabulary.item_ids(table.item) == ["y", "x", "z", "x"]  # a tie in time keeps the order of the rows
    assert [vocabulary.behaviors[kind] for kind in table.behavior] == ["buy", "view", "view", "view"]
    assert (table.timestamp // 1_000_000).tolist() == [1_600_000_200, 1_600_000_200, 1_600_000_100, 1_600_000_300]
    np.testing.assert_array_equal(table.value, np.array([2, 4.5, np.nan, 1], dtype=np.float32))
    assert (table.user.dtype, table.timestamp.dtype, table.behavior.dtype) == (np.int32, np.int64, np.uint8)
    assert events.report.columns == {
        "user_id": "userId", "item_id": "sku", "timestamp": "ts", "event": "action", "value": "rating",
    }  # fmt: skip


def test_duckdb_relation_of_another_connection_is_read() -> None:
    connection = duckdb.connect()
    connection.execute(
        "CREATE TABLE log AS SELECT range AS user_id, 7 AS item_id, 1600000000 + range AS ts FROM range(5)"
    )
    events = read(connection.table("log"))
    assert events.vocabulary.user_ids(events.table.user) == [0, 1, 2, 3, 4]


def test_several_files_are_one_log_in_the_order_given(tmp_path: Path) -> None:
    for name, item in (("2.csv", "second"), ("1.csv", "first")):
        (tmp_path / name).write_text(f"user,item,ts\nu,{item},1600000000\n")
    events = read([tmp_path / "2.csv", tmp_path / "1.csv"])
    assert events.vocabulary.item_ids(events.table.item) == ["second", "first"]
    events = read(tmp_path / "*.csv")
    assert events.vocabulary.item_ids(events.table.item) == ["first", "second"]


def test_several_parquet_files_number_rows_on(tmp_path: Path) -> None:
    for name, item in (("1.parquet", "first"), ("2.parquet", "second")):
        pq.write_table(pa.table({"item": [item], "user": ["u"], "ts": [1600000000]}), tmp_path / name)
    events = read(tmp_path)
    assert events.vocabulary.item_ids(events.table.item) == ["first", "second"]


def test_leading_zeros_stay(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("user,item,ts\n007,1,1600000000\n12,2,1600000001\n")
    vocabulary = read(tmp_path / "log.csv").vocabulary
    assert vocabulary.users.to_pylist() == ["007", "12"]
    assert vocabulary.items.to_pylist() == [1, 2]


@pytest.mark.parametrize("text", ["+1", "-0", "1e3", "9223372036854775808", "1.5"])
def test_digits_that_do_not_round_trip_stay_text(text: str, tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text(f"user,item,ts\n{text},1,1600000000\n5,2,1600000001\n")
    assert set(read(tmp_path / "log.csv").vocabulary.users.to_pylist()) == {text, "5"}


def test_text_digits_of_a_typed_source_stay_text() -> None:
    assert read(pa.table({"user": ["7"], "item": [8], "ts": [1600000000]})).vocabulary.users.to_pylist() == ["7"]


def test_pandas_integers_with_gaps_stay_integers() -> None:
    frame = pd.DataFrame({"user": [1, 2, None], "item": [1, 2, 3], "ts": [1600000000] * 3})
    events = read(frame)
    assert events.vocabulary.users.to_pylist() == [1, 2]
    assert events.report.rejected == {"missing user": 1}


def test_pandas_rows_that_were_chosen_by_a_mask_are_read() -> None:
    frame = pd.DataFrame({"user_id": list("aabb"), "item_id": list("xyxz"), "timestamp": [1, 2, 3, 4]})
    for chosen in (frame[frame["item_id"] != "y"], frame.set_index(pd.Index(list("pqrs"), name="row")).iloc[[0, 2, 3]]):
        assert len(read(chosen).table) == 3


def test_pandas_categories_and_timestamps_are_read() -> None:
    frame = pd.DataFrame(
        {"user": pd.Categorical(["b", "a"]), "item": [1, 2], "time": pd.to_datetime(["2020-01-01", "2020-01-02"])}
    )
    events = read(frame)
    assert events.vocabulary.users.to_pylist() == ["a", "b"]
    assert events.report.span == ("2020-01-01 00:00:00", "2020-01-02 00:00:00")


def test_event_that_is_missing_takes_the_default_name() -> None:
    events = read(pa.table({"user": [1, 2], "item": [1, 1], "ts": [1600000000] * 2, "event": ["buy", None]}))
    assert events.vocabulary.behaviors == ("buy", "event")


def test_no_event_column_means_one_behavior() -> None:
    assert read(pa.table({"user": [1], "item": [1], "ts": [1600000000]})).vocabulary.behaviors == ("event",)


def test_quoted_fields_with_delimiters_and_line_ends_are_one_id(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text('user,item,ts\n"a,b","say ""hi""\nthere",1600000000\n')
    vocabulary = read(tmp_path / "log.csv").vocabulary
    assert (vocabulary.users.to_pylist(), vocabulary.items.to_pylist()) == (["a,b"], ['say "hi"\nthere'])


def test_hostile_names_are_only_names(tmp_path: Path) -> None:
    evil = 'x"); DROP TABLE raw; --'
    pq.write_table(pa.table({evil: ["u"], "it'em": ["i"], "ts": [1600000000]}), tmp_path / "log.parquet")
    events = read(tmp_path / "log.parquet", options=ReadOptions(columns={"user_id": evil, "item_id": "it'em"}))
    assert len(events.table) == 1


def test_reading_a_file_imports_neither_polars_nor_torch(tmp_path: Path) -> None:
    code = (
        "import sys; from variseq.events.read import read; read(sys.argv[1]); "
        "sys.exit(len({'polars', 'torch'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code, str(write_csv(tmp_path / "log.csv"))], check=True)


BLANKS = "".join(map(chr, range(33))) + "\x7f\x85\xa0\u1680\u180e\u2028\u2029\u202f\u205f\u2060\u3000\ufeff"
BLANKS += "".join(map(chr, range(0x2000, 0x200E)))


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=5),
            st.integers(-(2**63), 2**63 - 1),
            st.integers(0, 50),
        ),
        min_size=1,
        max_size=30,
    )
)
def test_ids_and_order_come_back_exactly(rows: list[tuple[str, int, int]]) -> None:
    # Blanks around an id are cut, and a blank id is a missing one, like a word for nothing.
    words = {"", "null", "none", "nan", "nat", "n/a", "#n/a", "<na>", "\\n", "na"}
    kept = [row for row in rows if row[0].strip(BLANKS) == row[0] and row[0].lower() not in words]
    rows = list(dict.fromkeys(kept))
    if not rows:
        return
    users, items, seconds = (list(column) for column in zip(*rows, strict=True))
    events = read(pa.table({"user": users, "item": items, "ts": seconds}))
    found = list(
        zip(
            events.vocabulary.user_ids(events.table.user),
            events.vocabulary.item_ids(events.table.item),
            (events.table.timestamp // 1_000_000).tolist(),
            strict=True,
        )
    )
    assert found == sorted(rows, key=lambda row: (row[0].encode(), row[2]))


def test_wrong_objects_are_refused() -> None:
    for source in (None, 5, {"user": [1]}, [1, 2]):
        with pytest.raises(InputError, match="cannot be read from"):
            read(source)
