from __future__ import annotations

import pandas as pd
import pytest

from variseq.errors import InputError
from variseq.log import Log, read


def frame(users: list[str], items: list[str], times: list[int]) -> pd.DataFrame:
    return pd.DataFrame({"user_id": users, "item_id": items, "timestamp": times})


TIMES = [1_600_000_000 + 1000 * place for place in range(6)]


def test_one_user_is_too_few() -> None:
    log = read(frame(["u"] * 6, list("abcabc"), TIMES))
    for by in ("time", "leave-one-out"):
        with pytest.raises(InputError, match=r"1 user\(s\) and 3 item\(s\).*at least 2 of each"):
            log.split(by)


def test_one_item_is_too_few() -> None:
    log = read(frame(list("uvwuvw"), ["a"] * 6, TIMES))
    with pytest.raises(InputError, match=r"3 user\(s\) and 1 item\(s\)"):
        log.split("leave-one-out")


def test_constant_times_cannot_be_split_by_time_and_say_what_can_be_done() -> None:
    log = read(frame(["u"] * 3 + ["v"] * 3, list("abcabc"), [TIMES[0]] * 6))
    with pytest.raises(InputError, match=r"All events have the same time.*leave-one-out"):
        log.split("time")
    train, _, test = log.split("leave-one-out")
    assert train.part.history().num_events == 2
    assert len(test.part.queries()) == 2


def test_unknown_split_is_refused(shop_log: Log) -> None:
    with pytest.raises(InputError, match="Allowed: 'time' and 'leave-one-out'"):
        shop_log.split("random")  # type: ignore[arg-type]


def test_share_or_duration_that_leaves_nothing_is_refused(shop_log: Log) -> None:
    for wrong in ({"test": 1.5}, {"test": "9999d"}, {"test": "soon"}, {"test": 0.6, "valid": 0.6}):
        with pytest.raises(InputError):
            shop_log.split("time", **wrong)


def test_time_split_learns_from_nothing_after_the_cut(shop_log: Log) -> None:
    train, valid, test = shop_log.split("time", test=0.2, valid=0.1)
    learned = train.part.history()
    times = shop_log.histories.timestamp
    assert learned.timestamp.max() < times[valid.part.queries().position].min()
    assert valid.part.history().timestamp.max() < times[test.part.queries().position].min()


def test_parts_and_log_tell_their_numbers(shop_log: Log) -> None:
    assert "150 users, 40 items" in repr(shop_log)
    train, _, test = shop_log.split("leave-one-out")
    assert repr(train).startswith("<train part of a leave-one-out split: ")
    assert "150 test events" in repr(test)
    assert shop_log.check() is shop_log.checked


def test_leave_one_out_refuses_slices_of_time(shop_log: Log) -> None:
    with pytest.raises(InputError, match="slices of time"):
        shop_log.split("leave-one-out", test=0.2)
