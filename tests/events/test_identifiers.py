"""Ids are the same from every source; what is no id is missing."""

from __future__ import annotations

import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from variseq.errors import InputError
from variseq.events.read import read
from variseq.events.report import Events
from variseq.events.vocabulary import MAX_ID_BYTES

pytestmark = pytest.mark.slow


def write_csv(users: list[Any], folder: Path) -> Path:
    rows = [f"{'' if user is None else user},{place},1600000000\n" for place, user in enumerate(users)]
    (folder / "log.csv").write_text("user,item,ts\n" + "".join(rows), encoding="utf-8")
    return folder / "log.csv"


def write_jsonl(users: list[Any], folder: Path) -> Path:
    rows = [json.dumps({"user": user, "item": place, "ts": 1600000000}) for place, user in enumerate(users)]
    (folder / "log.jsonl").write_text("\n".join(rows) + "\n")
    return folder / "log.jsonl"


def columns(users: list[Any]) -> dict[str, list[Any]]:
    return {"user": users, "item": list(range(len(users))), "ts": [1600000000] * len(users)}


def write_parquet(users: list[Any], folder: Path) -> Path:
    pq.write_table(pa.table(columns(users)), folder / "log.parquet")
    return folder / "log.parquet"


TYPED: dict[str, Callable[[list[Any], Path], Any]] = {
    "jsonl": write_jsonl,
    "parquet": write_parquet,
    "pandas": lambda users, _: pd.DataFrame(columns(users)),
    "polars": lambda users, _: pl.DataFrame(columns(users)),
    "duckdb": lambda users, _: duckdb.connect().from_arrow(pa.table(columns(users))),
}
DOORS = TYPED | {"csv": write_csv}
SAME_BY_EVERY_DOOR: dict[str, tuple[list[Any], list[int] | list[str], int]] = {
    "integers with gaps": ([2, None, 1], [1, 2], 1),
    "whole decimals": ([1.0, 2.0, None], [1, 2], 1),
    "words for nothing": (["a", "NULL", "nan", "NaN", "None", "\\N", "N/A", "#N/A", "<NA>", "NA", "",
                           "(null)", "#NULL!", "<null>", "nil"], ["a"], 14),
    "name that is near a word for nothing": (["Nil", "nul"], ["Nil", "nul"], 0),
    "word of JavaScript": (["undefined", "Undefined"], ["Undefined"], 1),
    "blanks": ([" a", "a\u3000", "\u00a0b", "\ufeffb", "c\u200b"], ["a", "b", "c"], 0),
    "least and largest": ([-(2**63), 2**63 - 1], [-(2**63), 2**63 - 1], 0),
}  # fmt: skip


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("case", SAME_BY_EVERY_DOOR)
def test_same_values_are_the_same_ids_by_every_door(case: str, door: str, tmp_path: Path) -> None:
    users, ids, num_missing = SAME_BY_EVERY_DOOR[case]
    events = read(DOORS[door](users, tmp_path))
    assert events.vocabulary.users.to_pylist() == ids
    assert sum(events.report.rejected.values()) == num_missing


@pytest.mark.parametrize("door", TYPED)
def test_text_digits_stay_text_and_what_is_no_id_is_refused_by_every_typed_door(door: str, tmp_path: Path) -> None:
    assert read(TYPED[door](["1", "2"], tmp_path)).vocabulary.users.to_pylist() == ["1", "2"]
    for users in ([1.5, 2.0], [float(2**60), 1.0], [True, False]):
        with pytest.raises(InputError, match=r"decimal|true|BOOLEAN"):
            read(TYPED[door](users, tmp_path))


def test_numbers_beyond_64_bits_make_the_column_text_by_every_door(tmp_path: Path) -> None:
    large = pa.array([2**63, 1], pa.uint64())
    table = pa.table(columns([0, 0])).set_column(0, "user", large)
    pq.write_table(table, tmp_path / "log.parquet")
    sources = [table, tmp_path / "log.parquet", table.to_pandas(), pl.from_arrow(table)]
    sources += [write_csv([2**63, 1], tmp_path), write_jsonl([2**63, 1], tmp_path)]
    for source in sources:
        events = read(source)
        assert events.vocabulary.users.to_pylist() == ["1", str(2**63)]
        assert any("64-bit" in note for note in events.report.notes)


def test_categories_bytes_and_decimals_are_their_values() -> None:
    cases = [
        (pd.Categorical(["b ", "a"]), ["a", "b"]),
        (pd.Categorical([2, 1]), [1, 2]),
        (pd.array([b"b", b"a"], dtype=pd.ArrowDtype(pa.binary())), ["a", "b"]),
        ([Decimal("2.00"), Decimal("1.00")], [1, 2]),
    ]
    for users, ids in cases:
        frame = pd.DataFrame({"user": users, "item": [1, 2], "ts": [1600000000] * 2})
        assert read(frame).vocabulary.users.to_pylist() == ids
    with pytest.raises(InputError, match="not UTF-8"):
        read(pa.table(columns([b"\xff", b"a"])))


def read_lines(folder: Path, *rows: str) -> Events:
    (folder / "log.csv").write_text("\n".join(("user,item,ts", *rows)) + "\n")
    return read(folder / "log.csv")


def test_truth_values_of_a_text_file_are_no_ids(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="true"):
        read_lines(tmp_path, "True,1,1600000000", "False,1,1600000000")


def test_rejected_row_decides_nothing(tmp_path: Path) -> None:
    for rejected in ("user,item,ts", "x,,1600000000", "x,y,never", "x,y,-1"):
        events = read_lines(tmp_path, "1,10,1600000000", rejected, "2,11,1600000001")
        assert (events.vocabulary.users.to_pylist(), events.vocabulary.items.to_pylist()) == ([1, 2], [10, 11])
        assert sum(events.report.rejected.values()) == 1


def test_ids_that_became_equal_without_blanks_are_noted(tmp_path: Path) -> None:
    events = read_lines(tmp_path, "a,1,1600000000", " a,2,1600000000", "b ,3,1600000000")
    assert events.vocabulary.users.to_pylist() == ["a", "b"]
    assert any("2 ids in 'user'" in note and "1 spellings became equal" in note for note in events.report.notes)


@pytest.mark.parametrize("text", ["1.23E+12", "1,23E+12", "1.23457e+12", "9007199254740993.0"])
def test_ids_that_lost_digits_are_warned_of(text: str, tmp_path: Path) -> None:
    events = read_lines(tmp_path, f'"{text}",1,1600000000', "7,2,1600000000")
    assert any(text in warning for warning in events.report.warnings)
    assert text in events.vocabulary.users.to_pylist()


def test_whole_decimals_beside_others_stay_text(tmp_path: Path) -> None:
    assert read_lines(tmp_path, "1.0,1,1600000000", "1.5,2,1600000000").vocabulary.users.to_pylist() == ["1.0", "1.5"]
    assert read_lines(tmp_path, "1.0,1,1600000000", "007,2,1600000000").vocabulary.users.to_pylist() == ["007", "1.0"]


@pytest.mark.parametrize("mark", ["-", "?"])
def test_lone_mark_among_integers_is_a_missing_id(mark: str, tmp_path: Path) -> None:
    events = read_lines(tmp_path, "1,10,1600000000", f"{mark},11,1600000001", f"2,{mark},1600000002")
    assert (events.vocabulary.users.to_pylist(), events.vocabulary.items.to_pylist()) == ([1], [10])
    assert events.report.rejected == {"missing item": 1, "missing user": 1}
    assert any("1 ids in 'user'" in note for note in events.report.notes)
    assert read_lines(tmp_path, "a,10,1600000000", f"{mark},11,1600000001").vocabulary.users.to_pylist() == [mark, "a"]


def test_few_texts_among_integers_are_warned_of(tmp_path: Path) -> None:
    rows = [f"{place},1,1600000000" for place in range(1, 20)]
    (warning,) = read_lines(tmp_path, *rows, "x7,1,1600000000").report.warnings
    assert "1 of 20" in warning
    assert "row 20: 'x7'" in warning
    assert read_lines(tmp_path, *rows[:5], "x7,1,1600000000").report.warnings == []


LONGEST, LONGER = "ü" * (MAX_ID_BYTES // 2), "ü" * (MAX_ID_BYTES // 2) + "x"


def test_ids_up_to_the_limit_are_read_and_longer_ones_rejected_with_a_reason(tmp_path: Path) -> None:
    pairs = [("u1", "i1"), (LONGEST, LONGEST), (LONGER, "i1"), ("u2", LONGER)]
    events = read_lines(tmp_path, *(f"{user},{item},1600000000" for user, item in pairs))
    assert events.vocabulary.users.to_pylist() == ["u1", LONGEST]
    assert events.vocabulary.items.to_pylist() == ["i1", LONGEST]
    assert events.report.rejected == {"too long item": 1, "too long user": 1}
    faults = events.report.first_faults
    assert [faults[f"too long {kind}"][:5] for kind in ("user", "item")] == ["row 3", "row 4"]


def test_whole_numbers_are_never_too_long() -> None:
    table = pa.table({"user": [2**63 - 1, -(2**63)], "item": [2**53 + 1] * 2, "ts": [1600000000, 1600000001]})
    assert read(table).report.rejected == {}
