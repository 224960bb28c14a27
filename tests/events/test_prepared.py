"""A prepared dataset is the log that was read directly; one that is not whole is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import largest_file
from tests.events.messy_logs import (
    assert_equal_events,
    messy_numbers,
    messy_texts,
    write_csv,
    write_lines,
    write_parts,
)
from tests.terminal.invoke import succeed, variseq
from variseq.errors import InputError
from variseq.events.columns import Wanted, find_layout
from variseq.events.ingest import ingest
from variseq.events.options import ReadOptions
from variseq.events.parse import parse
from variseq.events.read import prepare, read
from variseq.events.session import Session, open_session
from variseq.events.sources import open_source
from variseq.events.spark_source import aggregated_in_worker, joined, read_in_worker

OPTIONS = st.builds(
    ReadOptions,
    min_user_events=st.integers(1, 3),
    min_item_events=st.integers(1, 5),
    collapse_repeats=st.booleans(),
    ties=st.sampled_from(["keep", "shuffle"]),
    missing_value=st.sampled_from(["keep", "zero", "mean"]),
    time_zone=st.sampled_from([None, "Europe/Berlin"]),
    min_value=st.sampled_from([None, 1.0]),
)
WRITERS: dict[str, Callable[[int, Path], Path]] = {
    "csv": lambda seed, folder: write_csv(messy_texts(seed, 300), folder / "log.csv"),
    "jsonl": lambda seed, folder: write_lines(messy_texts(seed, 300), folder / "log.jsonl"),
    "parquet": lambda seed, folder: write_parts(messy_texts(seed, 300), folder / "log"),
    "numbers": lambda seed, folder: write_parts(messy_numbers(seed, 300), folder / "log"),
}


@pytest.mark.parametrize("kind", WRITERS)
@settings(max_examples=2)
@given(seed=st.integers(0, 1000), options=OPTIONS, events_per_bucket=st.sampled_from([1, 30, 10_000]))
def test_dataset_is_the_log_that_was_read_directly(
    kind: str, seed: int, options: ReadOptions, events_per_bucket: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("log")
    log = WRITERS[kind](seed, folder)
    options = options.model_copy(update={"time_unit": "auto" if kind == "numbers" else "day/month/year"})
    expected = read(log, options=options)
    report = prepare(log, folder / "dataset", options, events_per_bucket=events_per_bucket)
    assert report == expected.report
    assert_equal_events(read(folder / "dataset"), expected)
    buckets = [pq.read_table(path) for path in sorted((folder / "dataset" / "buckets").iterdir())]
    spans = [(bucket["user"][0].as_py(), bucket["user"][-1].as_py()) for bucket in buckets]
    assert all(last < first for (_, last), (first, _) in pairwise(spans))
    assert all(len(bucket) >= events_per_bucket for bucket in buckets[:-1])


class PartedSession(Session):
    """Asks two parts of `raw` and joins the answers, as Spark does with its workers, but in this process."""

    def _parts(self) -> list[pa.RecordBatch]:
        raw = self.arrow("SELECT * FROM raw ORDER BY input_row")
        starts = np.linspace(0, len(raw), 3).astype(int)
        parts = [raw.slice(one, other - one) for one, other in pairwise(starts)]
        return [part.combine_chunks().to_batches()[0] for part in parts]

    def aggregate(self, query: str, how: str) -> list[tuple[Any, ...]]:
        (zone,) = self.row("SELECT current_setting('TimeZone')")
        answers = [answer for part in self._parts() for answer in aggregated_in_worker(query, zone, iter([part]))]
        rows = [json.loads(text) for answer in answers for text in answer.column(0).to_pylist()]
        return joined(rows, how.split())

    def make_parsed(self, query: str) -> None:
        (zone,) = self.row("SELECT current_setting('TimeZone')")
        schema = self.connection.sql(query).to_arrow_table().schema
        batches = [batch for part in self._parts() for batch in read_in_worker(query, zone, schema, iter([part]))]
        with self.registered("arriving", pa.Table.from_batches(batches, schema)):
            self.run("CREATE TABLE parsed AS SELECT * FROM arriving")


def parsed_by(make: type[Session], log: Path, options: ReadOptions) -> object:
    with open_session("200MB", None, make) as session:
        try:
            opened = open_source(session, str(log))
            layout = find_layout(session, opened, options, Wanted())
            ingested = ingest(session, opened, layout.find(Wanted()), layout, options)
            found = parse(session, ingested, options)
        except InputError as error:
            return str(error)
        rows = session.rows("SELECT * FROM parsed ORDER BY input_row")
        return repr(rows), found, session.notes, session.warnings


@pytest.mark.parametrize("kind", ["csv", "jsonl", "numbers"])
def test_parts_of_a_log_are_parsed_as_the_whole(kind: str, tmp_path: Path) -> None:
    log = WRITERS[kind](7, tmp_path)
    options = ReadOptions(time_zone="Europe/Berlin", time_unit="auto" if kind == "numbers" else "day/month/year")
    assert parsed_by(PartedSession, log, options) == parsed_by(Session, log, options)


@pytest.fixture(scope="module")
def log() -> pa.Table:
    return pa.table({"user": [1, 2, 2, 3], "item": [7, 7, 8, 9], "ts": [1_600_000_000 + n for n in range(4)]})


@pytest.fixture
def dataset(log: pa.Table, tmp_path: Path) -> Path:
    prepare(log, tmp_path / "dataset", ReadOptions(min_user_events=1), events_per_bucket=1)
    return tmp_path / "dataset"


def change_manifest(folder: Path, **changes: object) -> None:
    path = folder / "prepared.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")


def corrupt(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "buckets" / "00001.parquet").unlink(), "00001.parquet is missing"),
        (lambda folder: corrupt(folder / "buckets" / "00001.parquet"), "00001.parquet was changed"),
        (lambda folder: corrupt(folder / "vocabulary" / "users.parquet"), "users.parquet was changed"),
        (lambda folder: change_manifest(folder, format_version=99), "format 99, and this release reads format 1"),
        (lambda folder: change_manifest(folder, bucket_sizes=[1, 2]), "do not hold 4 events"),
        (lambda folder: change_manifest(folder, report={}), "is damaged"),
        (lambda folder: (folder / "prepared.json").write_text("{", encoding="utf-8"), "is damaged"),
    ],
)
def test_dataset_that_is_not_whole_is_refused(damage: Callable[[Path], object], message: str, dataset: Path) -> None:
    damage(dataset)
    with pytest.raises(InputError, match=message):
        read(dataset)


def test_options_that_a_dataset_was_prepared_without_are_refused(dataset: Path) -> None:
    with pytest.raises(InputError, match="was prepared with min_user_events=1, and now 2 was given"):
        read(dataset, options=ReadOptions(min_user_events=2))
    assert len(read(dataset, options=ReadOptions(min_user_events=1, memory_limit="200MB")).table) == 4


def test_dataset_takes_a_table_of_items(log: pa.Table, dataset: Path) -> None:
    items = pa.table({"item_id": [7, 8, 9], "name": ["a", "b", "c"]})
    options = ReadOptions(item_columns={"title": "name"})
    found, expected = read(dataset, items, options), read(log, items, options)
    assert_equal_events(found, expected)
    assert found.items is not None
    assert expected.items is not None
    assert found.items.table.equals(expected.items.table)


def test_dataset_is_read_alone_and_never_written_over(log: pa.Table, dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is read alone"):
        read([dataset, tmp_path / "log.csv"])
    with pytest.raises(InputError, match="exists already"):
        prepare(log, dataset)


def test_dataset_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    table = messy_numbers(3, 20_000)
    with largest_file(20_000), pytest.raises(InputError):
        prepare(table, tmp_path / "dataset")
    assert not list(tmp_path.iterdir())


def test_command_writes_what_check_takes_in_place_of_the_log(log: pa.Table, tmp_path: Path) -> None:
    pq.write_table(log, tmp_path / "log.parquet")
    succeed("prepare", tmp_path / "log.parquet", "--out", tmp_path / "dataset")
    assert succeed("check", tmp_path / "dataset") == succeed("check", tmp_path / "log.parquet")
    for words, message in {
        ("--engine", "pandas"): "no engine 'pandas'",
        ("--engine", "duckdb"): "dataset exists already",
    }.items():
        refused = variseq("prepare", tmp_path / "log.parquet", "--out", tmp_path / "dataset", *words)
        assert (refused.code, message in refused.err) == (2, True)
    refused = variseq("prepare", "table:events", "--out", tmp_path / "other")
    assert (refused.code, "with --engine spark" in refused.err) == (2, True)


def test_column_of_visits_is_not_prepared(tmp_path: Path) -> None:
    table = pa.table({"user": [1], "item": [7], "ts": [1_600_000_000], "visit": ["a"]})
    with pytest.raises(InputError, match="names visits"):
        prepare(table, tmp_path / "dataset", ReadOptions(columns={"visit": "visit"}))
