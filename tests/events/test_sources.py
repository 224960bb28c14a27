"""Folders, packed files, pipes and addresses: read in full, or refused in one message; never in part."""

import bz2
import gzip
import io
import json
import lzma
import sys
import zipfile
from pathlib import Path

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from variseq.errors import InputError
from variseq.events.options import ReadOptions
from variseq.events.read import read

pytestmark = pytest.mark.slow


def table(num_rows: int, start: int = 0, **more: object) -> pa.Table:
    rows = range(start, start + num_rows)
    columns = {"user_id": [f"u{row % 3}" for row in rows], "item_id": [f"i{row}" for row in rows]}
    return pa.table({**columns, "timestamp": [1600000000 + row for row in rows], **more})


def write(path: Path, content: pa.Table) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pq.write_table(content, path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in content.to_pylist()))
    else:
        content.to_pandas().to_csv(path, index=False)
    return path


def behaviors(source: object) -> dict[str, int]:
    return read(source).report.behaviors


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_folders_named_key_value_are_columns_by_every_format(suffix: str, tmp_path: Path) -> None:
    for name, start, num_rows in (("view", 0, 6), ("buy%20now", 10, 3), ("__HIVE_DEFAULT_PARTITION__", 20, 2)):
        write(tmp_path / "lake" / f"event={name}" / f"part-0.{suffix}", table(num_rows, start))
    expected = {"view": 6, "buy now": 3, "event": 2}
    paths = [str(path) for path in sorted((tmp_path / "lake").rglob(f"*.{suffix}"))]
    for source in (tmp_path / "lake", f"{tmp_path}/lake/**/*.{suffix}", f"{tmp_path}/lake/*/*.{suffix}", paths):
        assert behaviors(source) == expected


def test_column_of_the_files_goes_before_a_folder_of_that_meaning(tmp_path: Path) -> None:
    write(tmp_path / "lake" / "date=2001-01-01" / "a.csv", table(3))
    assert read(tmp_path / "lake").report.columns["timestamp"] == "timestamp"


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_optional_column_of_some_files_or_of_folders_is_read_and_said(suffix: str, tmp_path: Path) -> None:
    write(tmp_path / "log" / f"part-9.{suffix}", table(4))
    write(tmp_path / "log" / f"part-10.{suffix}", table(4, 10, event=["buy"] * 4, rating=[3.0] * 4))
    report = read(tmp_path / "log").report
    assert (report.behaviors, report.columns["value"]) == ({"buy": 4, "event": 4}, "rating")
    if suffix != "jsonl":  # there a key may be absent from any line
        assert any("no column 'event'" in note for note in report.notes)
    write(tmp_path / "lake" / "event=view" / f"a.{suffix}", table(3, event=["click"] * 3))
    write(tmp_path / "lake" / "event=buy" / f"b.{suffix}", table(2, 10))
    assert behaviors(tmp_path / "lake") == {"buy": 2, "click": 3}


def test_linked_folders_are_read_and_circles_end(tmp_path: Path) -> None:
    write(tmp_path / "elsewhere" / "a.csv", table(2))
    write(tmp_path / "lake" / "event=buy" / "b.csv", table(3, 10))
    (tmp_path / "lake" / "event=view").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "lake" / "event=buy" / "again").symlink_to(tmp_path / "lake")
    assert behaviors(tmp_path / "lake") == {"buy": 3, "view": 2}


def test_packed_and_empty_parts_of_a_folder_are_read(tmp_path: Path) -> None:
    data = write(tmp_path / "a.csv", table(3)).read_bytes()
    (tmp_path / "b.csv.bz2").write_bytes(bz2.compress(data.replace(b"160000000", b"150000000")))
    (tmp_path / "c.csv.gz").write_bytes(gzip.compress(b""))
    (tmp_path / "d.csv").write_bytes(b"\n")
    assert read(tmp_path).report.num_events == 6


def test_columns_with_names_that_differ_in_case_only_are_refused(tmp_path: Path) -> None:
    doubled = pa.table([[1], [2], [3], [1600000000]], names=["User_ID", "user_id", "item_id", "timestamp"])
    with pytest.raises(InputError, match="the same name"):
        read(write(tmp_path / "a.parquet", doubled))
    names = ["user_id", "item_id", "item_id", "timestamp"]
    for frame in (pa.table([[1], [2], [3], [1600000000]], names), pd.DataFrame([[1, 2, 3, 1600000000]], columns=names)):
        with pytest.raises(InputError, match="twice: item_id"):
            read(frame)
    with pytest.raises(InputError, match="another column"):
        read(table(3), options=ReadOptions(columns={"user_id": "item_id", "item_id": "item_id"}))


def test_numbered_files_are_read_in_the_order_of_their_numbers_and_widths_are_united(tmp_path: Path) -> None:
    for number, kind in ((1, pa.int16()), (2, pa.int32()), (10, pa.int64())):
        content = pa.table({"user": pa.array([7], kind), "item": [f"i{number}"], "ts": [1600000000]})
        write(tmp_path / f"part-{number}.parquet", content)
    events = read(tmp_path)
    assert events.vocabulary.item_ids(events.table.item) == ["i1", "i2", "i10"]
    assert events.vocabulary.users.to_pylist() == [7]


def test_files_that_are_no_data_and_empty_parts_are_said(tmp_path: Path) -> None:
    write(tmp_path / "part-0001.csv", table(3))
    (tmp_path / "part-0000.csv").write_bytes(b"")
    (tmp_path / "_SUCCESS").write_bytes(b"")
    (tmp_path / "notes.md").write_text("about")
    write(tmp_path / "old" / "x.csv", table(3, 50))
    report = read(tmp_path).report
    assert report.num_events == 3
    assert all(name in " ".join(report.notes) for name in ("part-0000.csv", "notes.md", "old"))


def test_deleted_rows_of_a_delta_table_never_come_back(tmp_path: Path) -> None:
    deltalake = pytest.importorskip("deltalake")
    folder = tmp_path / "delta"
    deltalake.write_deltalake(str(folder), table(9))
    deltalake.DeltaTable(str(folder)).delete("user_id = 'u1'")
    events = read(folder)
    assert events.vocabulary.users.to_pylist() == ["u0", "u2"]
    assert events.report.num_events == 6
    for source in (f"{folder}/*.parquet", [str(path) for path in folder.glob("*.parquet")], tmp_path):
        with pytest.raises(InputError, match="Delta"):
            read(source)


def test_damaged_delta_log_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "part-0.parquet", table(3))
    (tmp_path / "_delta_log").mkdir()
    (tmp_path / "_delta_log" / f"{0:020}.json").write_text(json.dumps({"add": {"path": "part-0.parquet"}}))
    with pytest.raises(InputError, match="Delta"):
        read(tmp_path)


@pytest.mark.parametrize("log", [".hoodie/hoodie.properties", "metadata/v1.metadata.json"])
def test_tables_with_another_log_are_refused(log: str, tmp_path: Path) -> None:
    write(tmp_path / "data" / "part-0.parquet", table(3))
    (tmp_path / log).parent.mkdir()
    (tmp_path / log).write_text("{}")
    for source in (tmp_path, tmp_path / "data", tmp_path / "data" / "part-0.parquet"):
        with pytest.raises(InputError, match=r"Hudi|Iceberg"):
            read(source)


NO_HEADER = {
    "u.data": ("1\t5\t3\t1600000000\n2\t6\t1\t1600000001\n", ["user_id", "item_id", "value", "timestamp"]),
    "ratings.dat": ("1::5::3::1600000000\n2::6::1::1600000001\n", ["user_id", "item_id", "value", "timestamp"]),
    "log.csv": ("1,5,77,pv,1600000000\n2,6,77,buy,1600000001\n", ["user_id", "item_id", "", "event", "timestamp"]),
}


@pytest.mark.parametrize("name", NO_HEADER)
def test_file_without_a_header_is_read_by_index(name: str, tmp_path: Path) -> None:
    text, columns = NO_HEADER[name]
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match="by index"):
        read(tmp_path / name)
    indices = {column: index for index, column in enumerate(columns, 1) if column}
    for wrong in (0, 9):
        with pytest.raises(InputError, match="columns"):
            read(tmp_path / name, options=ReadOptions(columns=indices | {"user_id": wrong}))
    for short in (["user_id"], {"user_id": 1}):
        with pytest.raises(InputError, match="user_id by index, and item_id and timestamp not"):
            read(tmp_path / name, options=ReadOptions(columns=short))
    for chosen in (columns, indices):
        events = read(tmp_path / name, options=ReadOptions(columns=chosen))
        assert events.vocabulary.users.to_pylist() == [1, 2]
        assert events.report.num_events == events.report.num_rows == 2


def test_first_row_whose_values_are_indices_is_data(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("1,2,4,1600000000\n1,3,5,1600000100\n2,2,3,1600000200\n")
    columns: dict[str, str | int] = {"user_id": 1, "item_id": 2, "timestamp": 4}
    report = read(tmp_path / "log.csv", options=ReadOptions(columns=columns)).report
    assert (report.num_events, report.span[0][:4]) == (3, "2020")


def test_header_is_not_taken_for_data_where_columns_are_by_place(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("user,item,ts\n1,5,1600000000\n")
    options = ReadOptions(columns=["user_id", "item_id", "timestamp"])
    report = read(tmp_path / "log.csv", options=options).report
    assert (report.num_rows, report.num_events) == (1, 1)
    (tmp_path / "log.csv").write_text("item_id,user_id,timestamp\n1,5,1600000000\n")
    with pytest.raises(InputError, match="by index"):
        read(tmp_path / "log.csv", options=options)


def test_items_without_a_header_are_read_by_index(tmp_path: Path) -> None:
    (tmp_path / "movies.dat").write_text("1::Toy Story::Animation|Comedy\n2::Heat::Crime\n")
    log = pa.table({"user": [1, 2], "item": [1, 2], "ts": [1600000000, 1600000001]})
    events = read(log, tmp_path / "movies.dat", ReadOptions(item_columns=["item_id", "title", "category"]))
    assert events.items is not None
    assert events.items.titles([0, 1]) == ["Toy Story", "Heat"]


def test_content_tells_the_format_where_the_suffix_does_not(tmp_path: Path) -> None:
    lines = write(tmp_path / "a.jsonl", table(3)).rename(tmp_path / "reviews.json")
    assert read(lines).report.num_events == 3
    assert read(lines, options=ReadOptions(format="jsonl")).report.num_events == 3
    parquet = write(tmp_path / "b.parquet", table(3)).rename(tmp_path / "part-00000")
    assert read(parquet).report.num_events == 3


@pytest.mark.parametrize("suffix", [".zip", ".csv.bz2", ".csv.xz"])
def test_packed_files_are_unpacked(suffix: str, tmp_path: Path) -> None:
    data = write(tmp_path / "log.csv", table(5)).read_bytes()
    packed = tmp_path / f"packed{suffix}"
    if suffix == ".zip":
        with zipfile.ZipFile(packed, "w") as opened:
            opened.writestr("../inside/log.csv", data)
            opened.writestr("__MACOSX/._log.csv", "junk")
    else:
        packed.write_bytes(bz2.compress(data) if suffix.endswith("bz2") else lzma.compress(data))
    assert read(packed).report.num_events == 5
    packed.write_bytes(packed.read_bytes()[:-30])
    with pytest.raises(InputError, match="unpack"):
        read(packed)


def test_zip_of_several_tables_is_refused_with_their_names(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as opened:
        for name in ("ratings.csv", "movies.csv"):
            opened.writestr(name, "x")
    with pytest.raises(InputError, match=r"ratings\.csv, movies\.csv"):
        read(tmp_path / "a.zip")


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_standard_input_is_read_in_any_format(suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write(tmp_path / f"log.{suffix}", table(7)).read_bytes()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    assert read("-").report.num_events == 7


@pytest.mark.parametrize("address", ["https://example.org/a.csv", "s3://b/a.parquet", "hdfs://n/a", "gs://b/*.csv"])
def test_addresses_are_refused_as_they_were_given(address: str) -> None:
    with pytest.raises(InputError) as caught:
        read(address)
    assert address in str(caught.value)


def test_spreadsheets_and_pickles_are_refused(tmp_path: Path) -> None:
    for name in ("log.xlsx", "log.pkl", "log.feather", "log.csv.zst"):
        (tmp_path / name).write_bytes(b"user_id,item_id,timestamp\n1,1,1600000000\n")
        with pytest.raises(InputError, match="unknown format"):
            read(tmp_path / name)


def test_named_index_of_a_frame_is_columns() -> None:
    frame = table(6).to_pandas().set_index(["user_id", "item_id"])
    assert read(frame).vocabulary.users.to_pylist() == ["u0", "u1", "u2"]


def test_same_file_twice_is_refused(tmp_path: Path) -> None:
    path = str(write(tmp_path / "log.csv", table(3)))
    with pytest.raises(InputError, match="twice"):
        read([path, path])


def test_lists_of_impressions_are_refused_with_the_query_that_makes_rows(tmp_path: Path) -> None:
    lines = [f"{row}\tU{row}\t11/11/2019 9:05:5{row} AM\tN1 N2\tN{row}-1 N9-0" for row in range(5)]
    (tmp_path / "behaviors.tsv").write_text("\n".join(lines))
    columns = ["impression", "user_id", "timestamp", "history", "item_id"]
    with pytest.raises(InputError, match="split_part"):
        read(tmp_path / "behaviors.tsv", options=ReadOptions(columns=columns))
    duckdb.read_csv(str(tmp_path / "behaviors.tsv"), header=False, names=columns).write_parquet(
        str(tmp_path / "behaviors.parquet")
    )
    query = (
        "SELECT * EXCLUDE (item_id, shown), split_part(shown, '-', 1) AS item_id FROM (SELECT *, "
        f"unnest(string_split(item_id, ' ')) AS shown FROM '{tmp_path}/behaviors.parquet') WHERE shown LIKE '%-1'"
    )
    assert read(duckdb.sql(query)).report.num_events == 5


def test_nested_parquet_is_refused_with_the_query_that_makes_rows(tmp_path: Path) -> None:
    events = [[{"aid": row, "ts": 1600000000 + row} for row in range(3)], []]
    pq.write_table(pa.table({"session": [1, 2], "events": events}), tmp_path / "events.parquet")
    columns: dict[str, str | int] = {"user_id": "session", "item_id": "events.aid", "timestamp": "events.ts"}
    with pytest.raises(InputError, match="unnest"):
        read(tmp_path / "events.parquet", options=ReadOptions(columns=columns))
    query = f"SELECT * EXCLUDE (events), unnest(events, recursive := true) FROM '{tmp_path}/events.parquet'"
    assert read(duckdb.sql(query), options=ReadOptions(columns={"item_id": "aid"})).report.num_events == 3
