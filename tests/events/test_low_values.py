"""Events with a low value, such as bad ratings: left out and counted, or kept as what nobody should be shown next."""

from __future__ import annotations

import pyarrow as pa
import pytest

from variseq.errors import InputError
from variseq.events.options import ReadOptions
from variseq.events.read import read
from variseq.events.report import Events
from variseq.log import Log

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
