from __future__ import annotations

import pandas as pd
import pytest

from variseq.errors import InputError
from variseq.log import Log, read


def test_parts_and_log_tell_their_numbers(shop_log: Log) -> None:
    assert "150 users, 40 items" in repr(shop_log)
    train, _, test = shop_log.split("leave-one-out")
    assert repr(train).startswith("<train part of a leave-one-out split: ")
    assert "150 test events" in repr(test)
    assert shop_log.check() is shop_log.checked


@pytest.mark.parametrize(
    ("users", "items", "message"), [("u" * 6, "abcabc", "1 user.*3 item"), ("uvwuvw", "a" * 6, "3 .*1 ")]
)
def test_one_user_or_one_item_is_too_few(users: str, items: str, message: str) -> None:
    times = [1_600_000_000 + 1000 * place for place in range(6)]
    log = read(pd.DataFrame({"user_id": list(users), "item_id": list(items), "timestamp": times}))
    for by in ("time", "leave-one-out"):
        with pytest.raises(InputError, match=rf"{message}.*at least 2 of each"):
            log.split(by)


@pytest.mark.parametrize(
    ("by", "slices", "message"),
    [
        ("random", {}, "Allowed: time, leave-one-out"),
        ("leave-one-out", {"test": 0.2}, "slices of time"),
        ("time", {"test": "soon"}, "not a duration"),
    ],
)
def test_split_that_cannot_be_is_refused(shop_log: Log, by: str, slices: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        shop_log.split(by, **slices)
