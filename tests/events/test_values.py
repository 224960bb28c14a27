"""Values and behaviors never cost an event."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from variseq.errors import InputError
from variseq.events.options import ReadOptions
from variseq.events.read import read
from variseq.events.report import Events
from variseq.log import Log

pytestmark = pytest.mark.slow

NAN = float("nan")


def read_values(values: list[Any] | pa.Array, name: str = "rating") -> Events:
    size = len(values)
    return read(pa.table({"user": [1] * size, "item": list(range(size)), "ts": list(range(size)), name: values}))


def test_absent_value_is_missing_by_every_door(tmp_path: Path) -> None:
    data: dict[str, Any] = {"user": [1, 1, 1], "item": [1, 2, 3], "ts": [1, 2, 3], "rating": [4.0, NAN, 2.5]}
    frame = pd.DataFrame(data)
    pl.DataFrame(data).write_parquet(tmp_path / "polars.parquet")
    pq.write_table(pa.Table.from_pandas(frame), tmp_path / "log.parquet")
    frame.to_csv(tmp_path / "empty.csv", index=False)
    frame.to_csv(tmp_path / "word.csv", index=False, na_rep="N/A")
    frame.to_json(tmp_path / "null.jsonl", orient="records", lines=True)
    lines = [
        f'{{"user": 1, "item": {n}, "ts": {n}, "rating": {text}}}' for n, text in ((1, "4.0"), (2, "NaN"), (3, "2.5"))
    ]
    (tmp_path / "nan.jsonl").write_text("\n".join(lines) + "\n")
    names = ("polars.parquet", "log.parquet", "empty.csv", "word.csv", "null.jsonl", "nan.jsonl")
    for source in (frame, pl.DataFrame(data), pa.table(data), *(tmp_path / name for name in names)):
        events = read(source)
        np.testing.assert_array_equal(events.table.value, np.array([4, NAN, 2.5], dtype=np.float32))
        assert (events.report.rejected, events.report.num_unreadable_values) == ({}, 0)


def test_infinity_in_json_is_counted_as_unreadable(tmp_path: Path) -> None:
    rows = [
        f'{{"user": {user}, "item": 1, "ts": 1, "rating": {value}}}\n' for user, value in ((1, "-Infinity"), (2, 1))
    ]
    (tmp_path / "log.jsonl").write_text("".join(rows))
    report = read(tmp_path / "log.jsonl").report
    assert (report.num_events, report.num_unreadable_values) == (2, 1)


CASES = {
    "decimal commas": (["4,5", "3", "-2,25"], [4.5, 3, -2.25], "decimal commas"),
    "decimal commas and thousands": (["1.299,50", "5,5"], [1299.5, 5.5], "decimal commas"),
    "durations": (["00:03:20", "1:00:00.5"], [200, 3600.5], "seconds"),
    "truth values": (["True", "false"], [1, 0], "true and false"),
    "typed truth values": ([True, False], [1, 0], "true and false"),
    "typed durations": ([timedelta(minutes=2), timedelta(seconds=1)], [120, 1], "seconds"),
    "minus of typesetting": (["\u22124", "\u22122.5", "1"], [-4, -2.5, 1], ""),
    "one odd comma": (["4,5"] * 19 + ["bad"], [4.5] * 19 + [NAN], "decimal commas"),
    "one odd duration": (["00:10:00"] * 9 + ["-"], [600] * 9 + [NAN], "seconds"),
    "one odd truth value": (["True"] * 9 + ["perhaps"], [1] * 9 + [NAN], "true and false"),
    "commas and points": (["1.234", "2.500", "12,5"], [1234, 2500, 12.5], "decimal commas"),
    "one comma among points": (["4.125"] * 18 + ["4,5"], [4.125] * 18 + [NAN], ""),
    "one point among commas": (["4,5"] * 18 + ["4.5"], [4.5] * 18 + [NAN], "decimal commas"),
    "commas between thousands": (["1,299", "5"], [NAN, 5], ""),
    "half of a column": (["4,5", "bad", "00:10:00", "worse"], [NAN] * 4, ""),
    "dates": ([datetime(2020, 1, 1), datetime(2020, 1, 2)], [NAN, NAN], "no value"),
    "lists": ([[1], [2]], [NAN, NAN], "no value"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_column_of_another_spelling_is_read_or_left_out_with_a_note(case: str) -> None:
    values, expected, words = CASES[case]
    events = read_values(values)
    np.testing.assert_array_equal(events.table.value, np.array(expected, dtype=np.float32))
    num_odd = sum(map(np.isnan, expected)) if isinstance(values[0], str) else 0
    assert events.report.num_unreadable_values == num_odd
    assert any(words in note for note in events.report.notes) or not words


@pytest.mark.parametrize(
    ("text", "hint"),
    [("4,5", "decimal comma"), ("1,234.50", "thousands"), ("1,299", "thousands"), ("$4.99", "currency"),
     ("12 EUR", "currency"), ("5%", "percentage"), ("03:20", "duration"), ("[1]", "list"),
     ("many", ""), ("1e300", ""), ("inf", "")],
)  # fmt: skip
def test_value_that_cannot_be_read_is_counted_with_its_row(text: str, hint: str) -> None:
    events = read_values(["4.5", text, "2"])
    np.testing.assert_array_equal(events.table.value, np.array([4.5, NAN, 2], dtype=np.float32))
    assert events.report.num_unreadable_values == 1
    (warning,) = events.report.warnings
    assert f"row 2: {text!r}" in warning
    assert hint in warning


def test_behaviors_are_read_alike_by_every_door(tmp_path: Path) -> None:
    data: dict[str, Any] = {"user": [1, 1, 1], "item": [1, 2, 3], "ts": [1, 2, 3], "event": [2.0, NAN, 1.0]}
    pd.DataFrame(data).to_csv(tmp_path / "log.csv", index=False)
    for source in (pd.DataFrame(data), pl.DataFrame(data), pa.table(data), tmp_path / "log.csv"):
        assert read(source).vocabulary.behaviors == ("1", "2", "event")


def test_word_for_nothing_is_no_behavior_and_blanks_are_cut() -> None:
    events = read_values(["buy", " buy", "null", "N/A", ""], "event")
    assert events.report.behaviors == {"buy": 2, "event": 3}


def test_points_that_are_taken_for_thousands_are_warned_of() -> None:
    (warning,) = read_values(["1.234", "2.500", "12,5"]).report.warnings
    assert "2 values" in warning


@pytest.mark.parametrize(("values", "expected"), [(("True", "False"), [1, 0]), (("4,5", "3,5"), [4.5, 3.5])])
def test_rejected_row_decides_nothing_about_values(
    values: tuple[str, str], expected: list[float], tmp_path: Path
) -> None:
    (tmp_path / "log.csv").write_text(
        f"user;item;ts;value;event\n1;1;10;{values[0]};True\nuser;item;ts;value;event\n1;2;20;{values[1]};False\n"
    )
    events = read(tmp_path / "log.csv")
    assert events.table.value.tolist() == expected
    assert (events.report.num_unreadable_values, sum(events.report.rejected.values())) == (0, 1)
    assert events.vocabulary.behaviors == ("false", "true")


def test_unreadable_values_are_counted_among_kept_rows_alone(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("user,item,ts,value\n1,1,10,$4\n,1,10,$5\n1,,10,$6\n1,1,never,$7\n1,2,20,1\n")
    report = read(tmp_path / "log.csv").report
    assert (report.num_events, report.num_unreadable_values) == (2, 1)


@pytest.mark.parametrize("order", [1, -1])
def test_rows_with_an_unreadable_value_are_no_duplicates(order: int) -> None:
    rows = {"user": [1] * 5, "item": [1] * 5, "ts": [10] * 5, "price": ["$4", "$5", None, None, "3"][::order]}
    report = read(pa.table(rows)).report
    assert (report.num_events, report.rejected) == (4, {"exact duplicate": 1})


@pytest.mark.parametrize(
    ("values", "expected"),
    [([True, False, None], ("event", "false", "true")), ([1.0, 2.5, None], ("1", "2.5", "event"))],
)
def test_behaviors_that_are_no_text_are_alike_by_every_door(
    values: list[Any], expected: tuple[str, ...], tmp_path: Path
) -> None:
    frame = pd.DataFrame({"user": [1, 1, 1], "item": [1, 2, 3], "ts": [1, 2, 3], "event": values})
    frame.to_csv(tmp_path / "log.csv", index=False)
    frame.to_json(tmp_path / "log.jsonl", orient="records", lines=True)
    frame.to_parquet(tmp_path / "log.parquet")
    for source in (
        frame,
        pl.from_pandas(frame),
        tmp_path / "log.csv",
        tmp_path / "log.jsonl",
        tmp_path / "log.parquet",
    ):
        assert read(source).vocabulary.behaviors == expected


USERS = ["u", "u", "u", "v", "v", "v", "w", "w", "w"]
ITEMS = [1, 2, 3, 1, 2, 4, 3, 1, 2]
RATINGS = [5.0, 1.0, 4.0, None, 3.9, 4.0, 2.0, 5.0, 5.0]
TIMES = [1_600_000_000 + 60 * place for place in range(9)]


def rated(**options: object) -> Events:
    table = pa.table({"user": USERS, "item": ITEMS, "rating": RATINGS, "ts": TIMES})
    return read(table, options=ReadOptions(**options))  # type: ignore[arg-type]


def test_low_values_are_left_out_and_counted_and_missing_ones_stay() -> None:
    events = rated(min_value=4)
    assert events.report.filtered == {"value below min_value": 3}
    assert events.report.num_events + 3 == events.report.num_rows == 9
    assert events.table.value[events.table.value == events.table.value].min() == 4.0
    assert (events.table.value != events.table.value).sum() == 1
    assert events.vocabulary.behaviors == ("event",)
    assert events.report.low_behaviors == []


def test_rare_users_and_items_are_those_of_what_is_left() -> None:
    events = rated(min_value=4, min_item_events=2)
    assert events.vocabulary.item_ids(range(events.vocabulary.num_items)) == [1]
    assert sum(events.report.filtered.values()) + events.report.num_events == 9


def test_negative_low_values_stay_as_a_behavior_of_their_own() -> None:
    events = rated(min_value=4, low_values="negative")
    assert events.report.behaviors == {"event": 6, "event below 4": 3}
    assert events.report.low_behaviors == ["event below 4"]
    assert (events.report.filtered, events.report.num_events) == ({}, 9)


def test_negative_low_values_are_never_asked_for() -> None:
    log = Log.of(rated(min_value=4, low_values="negative"))
    train, valid, test = log.split("leave-one-out")
    assert test.part.protocol["targets_of"] == ["event"]
    asked = [part.part.histories.value[part.part.queries("all").position] for part in (valid, test)]
    for values in asked:
        assert not (values < 4).any()
    shown = test.part.histories_before(test.part.queries()).value
    assert (shown < 4).any(), "they are part of the histories"
    assert train.part.histories.num_targets == 6
    with pytest.raises(InputError, match=r"'event below 4'.*behaviors of the log, with their events: event \(6\)"):
        log.split("leave-one-out", targets_of="event below 4")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"low_values": "negative"}, "needs min_value"),
        ({"min_value": 4.0, "columns": {"value": ""}}, "needs a column of values"),
        ({"min_value": 6.0}, "No event is left after filtering.*min_value"),
    ],
)
def test_option_on_values_that_cannot_work_is_refused(options: dict[str, object], told: str) -> None:
    table = pa.table({"user": USERS[:2], "item": ITEMS[:2], "rating": RATINGS[:2], "ts": TIMES[:2]})
    with pytest.raises(InputError, match=told):
        read(table, options=ReadOptions(**options))  # type: ignore[arg-type]
