"""Columns are found by name, and cells of mixed types are read or refused."""

from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from variseq.errors import InputError
from variseq.events.columns import ITEM_ALIASES, Wanted, find_columns
from variseq.events.options import ReadOptions
from variseq.events.read import read


@pytest.mark.parametrize(
    "names",
    [
        ["user_id", "item_id", "timestamp"],
        ["userId", "movieId", "timestamp"],
        ["visitorid", "itemid", "timestamp"],
        ["SessionId", "Article ID", "Time"],
        ["UID", "sku", "ts"],
        ["user_id:token", "item_id:token", "timestamp:float"],
        ["reviewerID", "asin", "unixReviewTime"],
        ["Customer-ID", "StockCode", "InvoiceDate"],
    ],
)
def test_usual_names_are_recognized(names: list[str]) -> None:
    assert list(find_columns(names).values()) == names


def test_canonical_name_wins_over_aliases_user_over_session_and_rating_over_price() -> None:
    found = find_columns(["uid", "user_id", "item", "item_id", "date", "timestamp", "sessionid"])
    assert found == {"user_id": "user_id", "item_id": "item_id", "timestamp": "timestamp"}

    found = find_columns(["session", "user", "item", "ts", "price", "rating"])
    assert (found["user_id"], found["value"]) == ("user", "rating")
    assert "value" not in find_columns(["user", "item", "ts", "price"], Wanted({"value": ""}))


def test_chosen_names_must_exist_and_be_canonical_and_two_candidates_are_refused() -> None:
    with pytest.raises(InputError, match="the columns are: user, item, ts"):
        find_columns(["user", "item", "ts"], Wanted({"user_id": "who"}))
    with pytest.raises(InputError, match="none of: user_id"):
        find_columns(["user", "item", "ts"], Wanted({"person": "user"}))

    with pytest.raises(InputError, match=r"could be timestamp: ts, date\. .*columns=\{'timestamp': 'ts'\}"):
        find_columns(["user", "item", "ts", "date"])


def test_item_columns_have_names_of_their_own() -> None:
    found = find_columns(["id", "movie_title", "Genres", "year"], Wanted({}, ITEM_ALIASES, required=("item_id",)))
    assert found == {"item_id": "id", "title": "movie_title", "category": "Genres"}


def test_chosen_columns_are_used_and_reported() -> None:
    table = pa.table({"who": ["a"], "what": ["b"], "when": [1600000000]})
    columns = {"user_id": "who", "item_id": "what", "timestamp": "when"}
    report = read(table, options=ReadOptions(columns=columns)).report
    assert report.columns == columns
    assert "user_id = who" in str(report)


NAN = float("nan")


def columns(**further: Any) -> dict[str, Any]:
    return {"user": [1, 1, 1], "item": [1, 2, 3], "ts": [1600000000, 1600000001, 1600000002]} | further


def cells(*values: object) -> pd.Series:
    return pd.Series(values, dtype=object)


VALUES: dict[str, tuple[Any, list[float], int]] = {
    "text among numbers": (cells(4.5, "N/A", None), [4.5, NAN, NAN], 0),
    "numbers of several types": (cells(Decimal("1.5"), 2, 2.5), [1.5, 2, 2.5], 0),
    "complex numbers": (np.array([1, 2, 3], dtype=complex), [NAN, NAN, NAN], 3),
    "sparse": (pd.arrays.SparseArray([1.0, 0, NAN]), [1, 0, NAN], 0),
    "half precision": (np.array([1, 2.5, NAN], dtype=np.float16), [1, 2.5, NAN], 0),
}


@pytest.mark.parametrize("case", VALUES)
def test_odd_column_of_values_is_read_cell_by_cell(case: str) -> None:
    column, expected, num_unreadable = VALUES[case]
    events = read(pd.DataFrame(columns(value=column)))
    np.testing.assert_array_equal(events.table.value, np.array(expected, dtype=np.float32))
    assert (events.report.num_unreadable_values, events.report.rejected) == (num_unreadable, {})


@pytest.mark.parametrize("column", [cells("view", 1, None), pd.Categorical(["view", 1, None]), cells("view", 1.0, NAN)])
def test_mixed_behaviors_are_read_as_text(column: Any) -> None:
    assert read(pd.DataFrame(columns(event=column))).vocabulary.behaviors == ("1", "event", "view")


@pytest.mark.parametrize("digits", [30, 50])
def test_wide_types_of_arrow_are_read(digits: int) -> None:
    values = pa.array([Decimal("1.50")] * 3, pa.decimal256(digits, 2))
    assert read(pa.table(columns(value=values))).table.value.tolist() == [1.5] * 3
    ids = pa.array([Decimal(7), None, Decimal(9)], pa.decimal256(30, 0))
    assert read(pa.table(columns(item=ids))).vocabulary.items.to_pylist() == [7, 9]
    half = pa.array(np.array([1, 2, 3], dtype=np.float16))
    events = read(pa.table(columns(user=half, price=half)), pa.table({"item_id": [1, 2, 3], "size": half}))
    assert events.vocabulary.users.to_pylist() == [1, 2, 3]
    assert events.items is not None
    assert events.items.table.column("size").to_pylist() == [1, 2, 3]


def test_type_that_the_database_lacks_is_refused_by_name() -> None:
    nested = pa.array([[1.0]] * 3, pa.list_(pa.float32())).cast(pa.list_(pa.float16()))
    with pytest.raises(InputError, match="value list<item: halffloat>"):
        read(pa.table(columns(value=nested)))


def test_python_integers_beyond_64_bits_make_ids_text() -> None:
    events = read(pd.DataFrame(columns(user=cells(2**70, 5, None))))
    assert events.vocabulary.users.to_pylist() == [str(2**70), "5"]
    assert any("64-bit" in note for note in events.report.notes)


def test_sparse_ids_and_128_bit_integers_are_their_values() -> None:
    assert read(pd.DataFrame(columns(item=pd.arrays.SparseArray([1, 0, 5])))).vocabulary.items.to_pylist() == [0, 1, 5]
    frame = pl.DataFrame(columns()).with_columns(pl.all().cast(pl.Int128))
    for source in (frame, frame.lazy()):
        assert read(source).vocabulary.items.to_pylist() == [1, 2, 3]


REFUSED: dict[str, tuple[str, Any, str]] = {
    "mixed ids": ("user", cells(1, "a", 2), r"'user' \(user_id\).*int, str.*all integers, or all text"),
    "lists among ids": ("item", cells([1], 2, 3), r"'item' \(item_id\).*int, list"),
    "complex ids": ("item", np.array([1, 2, 3], dtype=complex), r"'item' \(item_id\).*complex"),
    "mixed times": ("ts", cells(1600000000, "2020-01-01", None), r"'ts' \(timestamp\).*int, str.*times"),
    "periods as objects": ("ts", cells(*pd.period_range("2020-01", periods=3, freq="M")), r"'ts'.*Period.*times"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_required_column_of_mixed_types_is_refused_by_name(case: str) -> None:
    name, column, words = REFUSED[case]
    with pytest.raises(InputError, match=words) as caught:
        read(pd.DataFrame(columns(**{name: column})))
    assert ("ids" in str(caught.value)) == (name != "ts")


def test_mixed_columns_of_items_are_read_as_text() -> None:
    items = pd.DataFrame({"item_id": [1, 2], "title": cells(300, "x"), "further": cells([1], "y")})
    found = read(pa.table(columns()), items).items
    assert found is not None
    assert found.titles([0, 1, 2]) == ["300", "x", None]
    assert found.table.column("further").to_pylist() == ["[1]", "y", None]
