"""Each kind of bad input gives one clear message, or rejected rows with their reason."""

import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from variseq.errors import InputError
from variseq.events.options import ReadOptions
from variseq.events.read import read

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


def test_missing_file_folder_and_glob_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.csv does not exist"):
        read(tmp_path / "nowhere.csv")
    with pytest.raises(InputError, match="no data file"):
        read(tmp_path)
    with pytest.raises(InputError, match="No file matches"):
        read(f"{tmp_path}/*.parquet")


def test_files_of_two_formats_are_refused(tmp_path: Path) -> None:
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


def test_clean_log_leaves_a_rejects_file_with_a_header_only(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_bytes(GOOD)
    read(tmp_path / "log.csv", options=ReadOptions(rejects=tmp_path / "rejects.csv"))
    assert (tmp_path / "rejects.csv").read_text().strip() == '"file","row","reason","user","item","ts","line"'


def test_rejects_are_written_when_no_row_is_valid(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_bytes(b"user,item,ts\n,i,1600000000\n")
    with pytest.raises(InputError, match="No valid event"):
        read(tmp_path / "log.csv", options=ReadOptions(rejects=tmp_path / "rejects.csv"))
    assert "missing user" in (tmp_path / "rejects.csv").read_text()


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


def test_rejects_file_must_have_a_known_suffix(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"\.csv or \.parquet"):
        read(
            pa.table({"user": [1], "item": [1], "ts": [1600000000]}),
            options=ReadOptions(rejects=tmp_path / "rejects.txt"),
        )


def test_source_without_rows_is_refused() -> None:
    with pytest.raises(InputError, match="no rows"):
        read(pd.DataFrame({"user": [], "item": [], "ts": []}))
