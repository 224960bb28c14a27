from __future__ import annotations

from datetime import UTC, datetime, timedelta
from time import time
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from variseq.errors import InputError
from variseq.events.vocabulary import Vocabulary
from variseq.sequences.given_history import as_histories, given_history, history_rows, latest_time

VOCABULARY = Vocabulary(pa.array([1]), pa.array(["a", "b", "c"]), ("cart", "view"))
EVENTS: list[dict[str, Any]] = [
    {"item_id": "b", "timestamp": 1_700_000_050, "event": "cart", "value": 2.0},
    {"item_id": "a", "timestamp": 1_700_000_000.5, "event": None, "value": None},
]
ROWS = [("a", 1_700_000_000_500_000, None, None), ("b", 1_700_000_050_000_000, "cart", 2.0)]


def rows(history: object) -> list[Any]:
    return list(history_rows(given_history(history)))


@pytest.mark.parametrize(
    "history",
    [
        EVENTS,
        tuple(EVENTS),
        pd.DataFrame(EVENTS, index=[7, 3]),
        pa.Table.from_pylist(EVENTS),
        pd.DataFrame(EVENTS).assign(timestamp=pd.to_datetime([1_700_000_050e9, 1_700_000_000.5e9])),
        pd.DataFrame(EVENTS).assign(timestamp=pd.to_datetime([1_700_000_050e9, 1_700_000_000.5e9], utc=True)),
        [{**EVENTS[0], "timestamp": "2023-11-14T22:14:10Z"}, {**EVENTS[1], "timestamp": "2023-11-14T23:13:20.5+01:00"}],
        [{**EVENTS[0], "timestamp": np.int64(1_700_000_050)}, {**EVENTS[1], "value": float("nan"), "event": pd.NA}],
    ],
)
def test_events_are_read_alike_from_lists_and_tables_and_put_in_the_order_of_time(history: object) -> None:
    assert rows(history) == ROWS


def test_items_and_events_without_times_are_in_their_order_a_second_apart() -> None:
    expected = [("b", 0, None, None), ("a", 1_000_000, None, None)]
    assert rows(["b", "a"]) == rows([{"item_id": "b"}, {"item_id": "a"}]) == expected
    assert rows(pd.DataFrame({"item_id": ["b", "a"]})) == rows(pd.Series(["b", "a"])) == expected
    assert rows([{"item_id": "b", "event": "cart"}, {"item_id": "a", "value": 3}])[1] == ("a", 1_000_000, None, 3.0)


def test_ids_above_the_digits_of_a_float_stay_exact_beside_missing_values() -> None:
    frame = pd.DataFrame({"item_id": [9_007_199_254_740_993, 2], "value": [1.0, None]})
    assert [row[0] for row in rows(frame)] == [9_007_199_254_740_993, 2]
    assert rows(np.array([9_007_199_254_740_993])) == [(9_007_199_254_740_993, 0, None, None)]


@pytest.mark.parametrize(
    ("history", "words"),
    [
        ("b", "is one value"),
        ({"item_id": "b"}, "is one value"),
        (7, "is one value"),
        (["b", EVENTS[0]], "mixes item ids and events"),
        ([EVENTS[0], {"item_id": "a"}], "1 of 2 events of the history have no timestamp"),
        ([{"timestamp": 5}], "no item_id"),
        ([{"item_id": None}], "no item_id"),
        ([{"item_id": "a", "user_id": "u"}], "'user_id'"),
        ([{"item_id": "a", "timestamp": "2023-11-14T22:14:10"}], "no zone"),
        ([{"item_id": "a", "timestamp": "yesterday"}], "is no time"),
        ([{"item_id": "a", "timestamp": True}], "is no time"),
        ([{"item_id": "a", "timestamp": float("inf")}], "is no time"),
        ([{"item_id": "a", "timestamp": 1_700_000_000_000}], "not milliseconds"),
        ([{"item_id": "a", "timestamp": -1}], "before 1970"),
        ([{"item_id": "a", "timestamp": datetime(9999, 1, 1)}], "in the future"),
        ([{"item_id": "a", "event": 3}], "is no text"),
        ([{"item_id": "a", "event": ""}], "is no text"),
        ([{"item_id": "a", "value": "much"}], "is no number"),
        ([{"item_id": "a", "value": float("inf")}], "is no number"),
        ([{"item_id": "a", "value": True}], "is no number"),
        (pd.DataFrame({"item_id": ["a", 3]}), "cannot be read"),
    ],
)
def test_history_that_cannot_be_read_is_refused_in_words(history: object, words: str) -> None:
    with pytest.raises(InputError, match=words):
        rows(history)


def test_clock_may_be_a_day_ahead() -> None:
    soon, late = datetime.now(UTC) + timedelta(hours=23), datetime.now(UTC) + timedelta(hours=25)
    assert rows([{"item_id": "a", "timestamp": soon}])
    assert latest_time() > time() * 1e6
    with pytest.raises(InputError, match="in the future"):
        rows([{"item_id": "a", "timestamp": late}])


def test_unknown_items_are_told_and_unknown_behaviors_are_the_usual_one() -> None:
    given = [("a", 1, "cart", 2.0), ("x", 2, None, None), ("c", 3, "never heard of", None), ("b", 4, None, None)]
    histories, unknown = as_histories(given, VOCABULARY, usual_behavior=1)
    assert unknown == ["x"]
    assert histories.item.tolist() == [0, 2, 1]
    assert histories.behavior.tolist() == [0, 1, 1]
    assert histories.timestamp.tolist() == [1, 3, 4]
    np.testing.assert_array_equal(histories.value, np.array([2.0, np.nan, np.nan], dtype=np.float32))
