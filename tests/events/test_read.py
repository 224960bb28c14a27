"""Every source gives the same log, and bad input is refused or counted."""

import gzip
import json
import os
import random
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
from variseq.events.identifiers import EXACT_NULL_WORDS, NULL_WORDS
from variseq.events.options import ReadOptions
from variseq.events.read import read

pytestmark = pytest.mark.slow

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

    for name, item in (("1.parquet", "first"), ("2.parquet", "second")):
        pq.write_table(pa.table({"item": [item], "user": ["u"], "ts": [1600000000]}), tmp_path / name)
    events = read(tmp_path / "*.parquet")
    assert events.vocabulary.item_ids(events.table.item) == ["first", "second"]


@pytest.mark.parametrize("text", ["007", "+1", "-0", "1e3", "9223372036854775808", "1.5"])
def test_digits_that_do_not_round_trip_stay_text(text: str, tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text(f"user,item,ts\n{text},1,1600000000\n5,2,1600000001\n")
    vocabulary = read(tmp_path / "log.csv").vocabulary
    assert (set(vocabulary.users.to_pylist()), vocabulary.items.to_pylist()) == ({text, "5"}, [1, 2])


def test_pandas_rows_that_were_chosen_by_a_mask_are_read() -> None:
    frame = pd.DataFrame({"user_id": list("aabb"), "item_id": list("xyxz"), "timestamp": [1, 2, 3, 4]})
    for chosen in (frame[frame["item_id"] != "y"], frame.set_index(pd.Index(list("pqrs"), name="row")).iloc[[0, 2, 3]]):
        assert len(read(chosen).table) == 3


def test_event_that_is_missing_takes_the_default_name() -> None:
    table = pa.table({"user": [1, 2], "item": [1, 1], "ts": [1600000000] * 2})
    assert read(table).vocabulary.behaviors == ("event",)
    assert read(table.append_column("event", [["buy", None]])).vocabulary.behaviors == ("buy", "event")


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


@settings(max_examples=12, deadline=None)
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
    words = {*NULL_WORDS, *map(str.lower, EXACT_NULL_WORDS)}
    kept = [row for row in rows if row[0].strip(BLANKS) == row[0] and row[0].lower() not in words]
    rows = list(dict.fromkeys(kept))
    if not rows:
        return
    users, items, seconds = (list(column) for column in zip(*rows, strict=True))
    events = read(pa.table({"user": users, "item": items, "ts": seconds}))
    table, vocabulary = events.table, events.vocabulary
    ids = vocabulary.user_ids(table.user), vocabulary.item_ids(table.item)
    found = list(zip(*ids, (table.timestamp // 1_000_000).tolist(), strict=True))
    assert found == sorted(rows, key=lambda row: (row[0].encode(), row[2]))


def test_wrong_objects_are_refused() -> None:
    for source in (None, 5, {"user": [1]}, [1, 2]):
        with pytest.raises(InputError, match="cannot be read from"):
            read(source)


GOOD = b"user,item,ts\nu1,i1,1600000000\nu2,i2,1600000001\n"
BAD_FILES = {
    "empty file": ("log.csv", b"", "is empty"),
    "header only": ("log.csv", b"user,item,ts\n", "only a header"),
    "missing column": ("log.csv", b"user,item,color\na,b,c\n", "No column for timestamp.*item, color.*columns="),
    "no header": ("log.csv", b"196,242,3,881250949\n186,302,3,891717742\n", "looks like data"),
    "odd delimiter": ("log.csv", b"user^item^ts\na^b^1600000000\n", r"only one column.*delimiter='\^'"),
    "wrong suffix for tabs": ("log.tsv", b"user;item;ts\na;b;1600000000\n", "only one column.*';'"),
    "ambiguous column": ("log.csv", b"uid,customer,item,ts\na,b,c,1600000000\n", "uid, customer.*columns="),
    "twice the same name": ("log.csv", b"user,user,item,ts\na,b,c,1600000000\n", "appear twice: user"),
    "empty first line": ("log.csv", b"\nuser,item,ts\n", "first line is empty"),
    "10 MB line": ("log.csv", b"z" * 10_000_000, "no header line"),
    "10 MB line of JSON": ("log.jsonl", b"z" * 10_000_000, "no JSON object"),
    "JSON array": ("log.jsonl", b'[{"user": 1}]', "one JSON array"),
    "NUL bytes": ("log.csv", b"user,item,ts\n\0\0\0,b,1600000000\n", "binary file"),
    "random bytes": ("log.csv", random.Random(3).randbytes(100_000), "binary file"),
    "random high bytes": ("log.csv", bytes(range(128, 250)) * 20, "not UTF-8"),
    "Parquet named csv": ("log.csv", b"PAR1....", "name it .parquet"),
    "gzip named csv": ("log.csv", b"\x1f\x8b\x08....", "name it .gz"),
    "csv named gz": ("log.csv.gz", GOOD, "cannot be read"),
    "PNG named parquet": ("log.parquet", b"\x89PNG\r\n\x1a\n" + b"x" * 100, "not a Parquet file"),
    "UTF-16": ("log.csv", "user,item,ts\n".encode("utf-16"), "UTF-16"),
    "invalid UTF-8 in the header": ("log.csv", b"user,\xff\xfe,ts\na,b,1\n", "not UTF-8"),
    "unknown suffix": ("log.xlsx", GOOD, "unknown format"),
    "all rows invalid": ("log.csv", b"user,item,ts\n,i,1600000000\nu,i,never\n", "missing user.*unparsable.*'never'"),
    "other delimiter below": ("log.csv", b"user,item,ts\na;b;1600000000\n", "No valid event.*number of fields"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_file_gives_one_clear_message(case: str, tmp_path: Path) -> None:
    name, content, message = BAD_FILES[case]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=f"(?s){message}") as caught:
        read(tmp_path / name)
    assert str(caught.value).count("\n") == 0


def test_missing_files_and_files_of_two_formats_are_refused(tmp_path: Path) -> None:
    cases = [("nowhere.csv", r"nowhere\.csv does not exist"), ("", "no data file"), ("*.parquet", "No file matches")]
    for name, message in cases:
        with pytest.raises(InputError, match=message):
            read(f"{tmp_path}/{name}")
    (tmp_path / "a.csv").write_bytes(GOOD)
    (tmp_path / "b.jsonl").write_bytes(b"{}")
    with pytest.raises(InputError, match="different formats"):
        read(tmp_path)


def test_delimiter_can_be_set(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_bytes(b"user^item^ts\na^b^1600000000\n")
    assert len(read(tmp_path / "log.csv", options=ReadOptions(delimiter="^")).table) == 1
    with pytest.raises(InputError, match="only one column"):
        read(tmp_path / "log.csv", options=ReadOptions(delimiter=","))


def test_mixed_id_types_are_refused(tmp_path: Path) -> None:
    frame = pd.DataFrame({"user": pd.Series(["a", 1], dtype=object), "item": [1, 2], "ts": [1600000000] * 2})
    with pytest.raises(InputError, match="mixed types: int, str"):
        read(frame)
    (tmp_path / "log.jsonl").write_text(
        '{"user": 1, "item": 2, "ts": 1600000000}\n{"user": "1", "item": 2, "ts": 1600000000}\n'
    )
    with pytest.raises(InputError, match="mixed id types"):
        read(tmp_path / "log.jsonl")
    for name, ids in (("1.parquet", [1]), ("2.parquet", ["a"])):
        pq.write_table(pa.table({"user": ids, "item": [1], "ts": [1600000000]}), tmp_path / name)
    with pytest.raises(InputError, match="mixed types"):
        read(f"{tmp_path}/*.parquet")


@pytest.mark.parametrize(("ids", "message"), [([1.5], "decimal"), ([True], "BOOLEAN"), ([[1]], r"\[\]|LIST")])
def test_types_that_are_no_ids_are_refused(ids: list[object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read(pa.table({"user": ids, "item": [1], "ts": [1600000000]}))


def test_broken_lines_are_rejected_with_row_and_reason(tmp_path: Path) -> None:
    lines = [
        b"user,item,ts,rating", b"u1,i1,1600000000,1", b"u2,i2", b"u3,i3,1600000000,1,1", b"\xff\xfe,i4,1600000000,1",
        b",i5,1600000000,1", b"u6,,1600000000,1", b"u7,i7,,1", b"u8,i8,soon,1", b"u9,i9,-5,1",
        b"u10,i10,253402300799,1",
        b"u11,i11,1600000000,inf", b"u12,i12,1600000000,NaN", b"u13,i13,1600000000,many", b"u1,i1,1600000000,1",
        b'u15,"i"15,1600000000,1', b"u16,i16,1600000000,", b'"u,17",i17,1600000000,1',
    ]  # fmt: skip
    (tmp_path / "log.csv").write_bytes(b"\n".join(lines) + b"\n")
    events = read(tmp_path / "log.csv", options=ReadOptions(rejects=tmp_path / "rejects.csv"))
    assert events.vocabulary.users.to_pylist() == ["u,17", "u1", "u11", "u12", "u13", "u16"]
    assert events.report.num_unreadable_values == 2
    rejects = pd.read_csv(tmp_path / "rejects.csv")
    found = dict(zip(rejects["row"], rejects["reason"], strict=True))
    assert found == {
        2: "wrong number of fields", 3: "wrong number of fields", 4: "invalid UTF-8", 5: "missing user",
        6: "missing item", 7: "missing time", 8: "unparsable time", 9: "absurd time", 10: "absurd time",
        14: "exact duplicate", 15: "unbalanced quote",
    }  # fmt: skip
    assert rejects["ts"][6] == "soon"
    assert rejects["line"][0] == "u2,i2"
    assert events.report.num_rows == events.report.num_events + sum(events.report.rejected.values()) == 17


def test_long_line_between_good_ones_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_bytes(GOOD + b"z" * 10_000_000 + b",i,1600000000\nu3,i3,1600000002\n")
    events = read(tmp_path / "log.csv")
    assert events.report.rejected == {"line too long": 1}
    assert events.vocabulary.users.to_pylist() == ["u1", "u2", "u3"]


def test_rejected_rows_of_json_lines_keep_their_line_number(tmp_path: Path) -> None:
    good = b'{"user": "a", "item": 1, "ts": 1600000000}\n'
    (tmp_path / "log.jsonl").write_bytes(good + b"{oops\n\n[1]\n" + b'{"user": "\xff"}\n' + b'{"item": 2}\n')
    events = read(tmp_path / "log.jsonl", options=ReadOptions(rejects=tmp_path / "rejects.parquet"))
    rejects = pq.read_table(tmp_path / "rejects.parquet").to_pydict()
    assert list(zip(rejects["row"], rejects["reason"], strict=True)) == [
        (2, "not a JSON object"), (4, "not a JSON object"), (5, "invalid UTF-8"), (6, "missing user"),
    ]  # fmt: skip
    assert len(events.table) == 1


def test_rejected_rows_of_several_files_name_their_file(tmp_path: Path) -> None:
    (tmp_path / "1.csv").write_bytes(GOOD + b"u3\n,i,1600000000\n")
    (tmp_path / "2.csv").write_bytes(b"user,item,ts\nu5\nu4,i4,1600000000\n,i,1600000000\n")
    read(tmp_path / "[12].csv", options=ReadOptions(rejects=tmp_path / "rejects.csv"))
    rejects = pd.read_csv(tmp_path / "rejects.csv")
    found = [(Path(file).name, row) for file, row in zip(rejects["file"], rejects["row"], strict=True)]
    assert found == [("1.csv", 3), ("1.csv", 4), ("2.csv", 1), ("2.csv", 3)]


def test_mixed_line_ends_are_read_and_noted(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_bytes(b"user,item,ts\r\nu1,i1,1600000000\r\nu2,i2,1600000001\nu3,i3,1600000002\r\n")
    events = read(tmp_path / "log.csv")
    assert len(events.table) == 3
    assert "mixed" in events.report.notes[0]


def test_values_that_are_not_finite_cost_no_event() -> None:
    table = pa.table(
        {"user": [1, 2, 3], "item": [1] * 3, "ts": [1600000000] * 3, "value": [1.0, float("inf"), float("nan")]}
    )
    events = read(table)
    assert (len(events.table), events.report.rejected, events.report.num_unreadable_values) == (3, {}, 1)
    np.testing.assert_array_equal(events.table.value, np.array([1, np.nan, np.nan], dtype=np.float32))


def test_nan_in_parquet_is_nothing_though_statistics_leave_it_out(tmp_path: Path) -> None:
    table = pa.table(
        {
            "user": ["a", "b", "c"],
            "item": ["x"] * 3,
            "timestamp": [1.6e9, float("nan"), 1.6e9],
            "rating": [float("nan"), 1.0, 3.0],
        }
    )
    pq.write_table(table, tmp_path / "log.parquet")
    events = read(tmp_path / "log.parquet", options=ReadOptions(missing_value="mean"))
    assert events.report.rejected == {"missing time": 1}
    assert events.table.value.tolist() == [3.0, 3.0]


def test_rejects_are_written_when_no_row_is_valid_and_when_all_are(tmp_path: Path) -> None:
    rejects = tmp_path / "rejects.csv"
    (tmp_path / "log.csv").write_bytes(b"user,item,ts\n,i,1600000000\n")
    with pytest.raises(InputError, match="No valid event"):
        read(tmp_path / "log.csv", options=ReadOptions(rejects=rejects))
    assert "missing user" in rejects.read_text()
    (tmp_path / "log.csv").write_bytes(GOOD)
    read(tmp_path / "log.csv", options=ReadOptions(rejects=rejects))
    assert rejects.read_text().strip() == '"file","row","reason","user","item","ts","line"'
    with pytest.raises(InputError, match=r"\.csv or \.parquet"):
        read(tmp_path / "log.csv", options=ReadOptions(rejects=tmp_path / "rejects.txt"))


READ_WITH_LITTLE_ROOM = """
import resource, sys
from pathlib import Path
from variseq.errors import InputError
from variseq.events.options import ReadOptions
from variseq.events.read import read
resource.setrlimit(resource.RLIMIT_FSIZE, (8_000_000, 8_000_000))
try:
    read(sys.argv[1], options=ReadOptions(rejects=Path(sys.argv[2])))
except InputError as error:
    print(error)
"""


def test_full_disk_leaves_the_old_rejects_file_and_no_trace(tmp_path: Path) -> None:
    """A limit on the size of a file stands for a full disk: the write fails half-way."""
    rejects = tmp_path / "rejects" / "rejects.csv"
    rejects.parent.mkdir()
    rejects.write_text("old")
    table = pa.table({"user": [None, *range(200_000)], "item": [1] * 200_001, "ts": [-1] * 200_000 + [1600000000]})
    pq.write_table(table, tmp_path / "log.parquet")
    command = [sys.executable, "-c", READ_WITH_LITTLE_ROOM, str(tmp_path / "log.parquet"), str(rejects)]
    message = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert "could not be written" in message or "Is there room" in message
    assert rejects.read_text() == "old"
    assert os.listdir(rejects.parent) == ["rejects.csv"]


def test_source_without_rows_is_refused() -> None:
    with pytest.raises(InputError, match="no rows"):
        read(pd.DataFrame({"user": [], "item": [], "ts": []}))
