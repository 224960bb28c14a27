from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from variseq.errors import InputError
from variseq.sequences import calendar
from variseq.sequences.calendar import checked_calendar, hour_and_weekend

ZONES = ["UTC", "Europe/Berlin", "America/St_Johns", "Asia/Kathmandu", "Australia/Lord_Howe"]


@given(st.integers(0, 2_000_000_000), st.sampled_from(ZONES))
def test_hour_and_weekend_are_those_of_the_clock_in_the_zone(second: int, zone: str) -> None:
    hour, is_weekend = hour_and_weekend(np.array([second * 1_000_000]), zone)
    local = datetime.fromtimestamp(second, UTC).astimezone(ZoneInfo(zone))
    assert hour[0] == pytest.approx(local.hour + local.minute / 60 + local.second / 3600)
    assert is_weekend[0] == (local.weekday() >= 5)


def test_name_that_is_no_zone_is_refused_with_a_near_one(monkeypatch: pytest.MonkeyPatch) -> None:
    assert checked_calendar("none") == "none"
    with pytest.raises(InputError, match="Europe/Berlin"):
        checked_calendar("Europe/Berln")
    with pytest.raises(InputError, match="IANA"):
        checked_calendar("EST")
    monkeypatch.setattr(calendar, "_zones", frozenset)
    assert checked_calendar("UTC") == "UTC"
    with pytest.raises(InputError, match="tzdata"):
        checked_calendar("Europe/Berlin")
