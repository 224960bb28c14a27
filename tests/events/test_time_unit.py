"""Times of every unit become the same microseconds, and the report says which unit was taken."""

from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path

import pyarrow as pa
import pytest

from variseq.errors import InputError
from variseq.events.options import ReadOptions, TimeUnit
from variseq.events.read import Events, read

SECONDS = 1_573_568_086  # 2019-11-12 14:14:46 UTC


def read_times(times: list[object] | pa.Array, unit: TimeUnit = "auto") -> Events:
    table = pa.table({"user": list(range(len(times))), "item": [1] * len(times), "time": times})
    return read(table, options=ReadOptions(time_unit=unit))


CASES = {
    "seconds": ([SECONDS], "seconds since 1970 (found)"),
    "fractional seconds": ([float(SECONDS)], "seconds since 1970 (found)"),
    "milliseconds": ([SECONDS * 1000], "milliseconds since 1970 (found)"),
    "microseconds": ([SECONDS * 10**6], "microseconds since 1970 (found)"),
    "nanoseconds": ([SECONDS * 10**9], "nanoseconds since 1970 (found)"),
    "digits": ([str(SECONDS)], "seconds since 1970 (found)"),
    "millisecond digits": ([f" {SECONDS}000"], "milliseconds since 1970 (found)"),
    "ISO": (["2019-11-12T14:14:46"], "ISO 8601"),
    "ISO with Z": (["2019-11-12T14:14:46Z"], "ISO 8601"),
    "ISO with an offset": (["2019-11-12T16:14:46+02:00"], "ISO 8601"),
    "ISO with a blank": (["2019-11-12 14:14:46.000"], "ISO 8601"),
    "US text": (["11/12/2019 2:14:46 PM"], "month/day/year"),
    "naive timestamp": ([datetime(2019, 11, 12, 14, 14, 46)], "timestamps, taken as UTC"),
    "timestamp with a zone": ([datetime(2019, 11, 12, 16, 14, 46, tzinfo=timezone(timedelta(hours=2)))], "timestamps"),
    "nanosecond timestamps": (pa.array([SECONDS * 10**9], pa.timestamp("ns")), "timestamps, taken as UTC"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_every_unit_gives_the_same_instant(case: str) -> None:
    times, words = CASES[case]
    events = read_times(times)
    assert events.table.timestamp.tolist() == [SECONDS * 1_000_000]
    assert events.report.time_unit.startswith(words)


def test_dates_are_midnight() -> None:
    midnight = int(datetime(2019, 11, 12, tzinfo=UTC).timestamp()) * 1_000_000
    for times in ([date(2019, 11, 12)], ["2019-11-12"], [20191112], ["20191112"], ["11/12/2019"]):
        assert read_times(times).table.timestamp.tolist() == [midnight], times


def test_day_first_text_is_recognised_by_its_days() -> None:
    events = read_times(["25/12/2019", "01/02/2019"])
    assert events.report.time_unit.startswith("day/month/year")
    assert events.report.span == ("2019-02-01 00:00:00", "2019-12-25 00:00:00")
    assert read_times(["01/02/2019"], "day/month/year").report.span[0] == "2019-02-01 00:00:00"


def test_fractions_of_a_second_are_kept() -> None:
    assert read_times([SECONDS + 0.25]).table.timestamp.tolist() == [SECONDS * 1_000_000 + 250_000]
    assert read_times(["2019-11-12T14:14:46.000001Z"]).table.timestamp.tolist() == [SECONDS * 1_000_000 + 1]


def test_unit_that_is_set_is_obeyed() -> None:
    events = read_times([SECONDS], "milliseconds")
    assert events.table.timestamp.tolist() == [SECONDS * 1000]
    assert events.report.time_unit == "milliseconds since 1970 (as set)"


def test_unit_that_cannot_apply_is_refused() -> None:
    with pytest.raises(InputError, match="whose unit is known"):
        read_times([datetime(2020, 1, 1)], "seconds")
    with pytest.raises(InputError, match="is for text"):
        read_times([1], "iso")
    with pytest.raises(InputError, match="of type BOOLEAN"):
        read_times([True])


@pytest.mark.parametrize(
    ("times", "reason"),
    [
        ([SECONDS, -1], "absurd time"),
        ([SECONDS, 2**62], "absurd time"),
        ([float(SECONDS), float("inf")], "absurd time"),
        ([float(SECONDS), float("nan")], "missing time"),
        ([float(SECONDS), 1e300], "absurd time"),
        ([SECONDS, None], "missing time"),
        (["2019-11-12", "9999-12-31"], "absurd time"),
        (["2019-11-12", "1969-12-31"], "absurd time"),
        (["2019-11-12", "infinity"], "unparsable time"),
        (["2019-11-12", "2019-02-30"], "unparsable time"),
        (["2019-11-12", " "], "missing time"),
        ([str(SECONDS), "nan"], "unparsable time"),
        ([datetime(2019, 11, 12), datetime(9999, 12, 31)], "absurd time"),
    ],
)
def test_times_out_of_range_are_rejected(times: list[object], reason: str) -> None:
    events = read_times(times)
    assert len(events.table) == 1
    assert events.report.rejected == {reason: 1}


def test_times_of_a_text_file_are_found(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("user,item,date\n1,1,1573568086.5\n")
    assert read(tmp_path / "log.csv").table.timestamp.tolist() == [SECONDS * 1_000_000 + 500_000]
