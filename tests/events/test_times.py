"""Times of every unit become the same microseconds."""

from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from variseq.errors import InputError
from variseq.events.options import ReadOptions, TimeUnit
from variseq.events.read import read
from variseq.events.report import Events

pytestmark = pytest.mark.slow

SECONDS = 1_573_568_086  # 2019-11-12 14:14:46 UTC


def read_times(times: list[object] | pa.Array, unit: TimeUnit = "auto", **options: str) -> Events:
    """Each time is one of a user of its own, so that the events keep the order of the times."""
    table = pa.table({"user": list(range(len(times))), "item": [1] * len(times), "time": times})
    return read(table, options=ReadOptions.model_validate({"time_unit": unit, **options}))


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
    "US text": (["11/12/2019 2:14:46 PM", "11/30/2019 1:00 AM"], "month/day/year"),
    "naive timestamp": ([datetime(2019, 11, 12, 14, 14, 46)], "timestamps, taken as UTC"),
    "timestamp with a zone": ([datetime(2019, 11, 12, 16, 14, 46, tzinfo=timezone(timedelta(hours=2)))], "timestamps"),
    "nanosecond timestamps": (pa.array([SECONDS * 10**9], pa.timestamp("ns")), "timestamps, taken as UTC"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_every_unit_gives_the_same_instant(case: str) -> None:
    times, words = CASES[case]
    events = read_times(times)
    assert events.table.timestamp[0] == SECONDS * 1_000_000
    assert events.report.time_unit.startswith(words)


def test_dates_are_midnight() -> None:
    midnight = int(datetime(2019, 11, 12, tzinfo=UTC).timestamp()) * 1_000_000
    for times in ([date(2019, 11, 12)], ["2019-11-12"], [20191112], ["20191112"]):
        assert read_times(times).table.timestamp.tolist() == [midnight], times


def test_day_first_text_is_recognized_by_its_days() -> None:
    events = read_times(["01/02/2019"] * 50 + ["25/12/2019"])
    assert events.report.time_unit.startswith("day/month/year")
    assert events.report.span == ("2019-02-01 00:00:00", "2019-12-25 00:00:00")
    assert read_times(["01/02/2019"], "day/month/year").report.span[0] == "2019-02-01 00:00:00"


def test_fractions_of_a_second_are_kept(tmp_path: Path) -> None:
    assert read_times([SECONDS + 0.25]).table.timestamp.tolist() == [SECONDS * 1_000_000 + 250_000]
    assert read_times(["2019-11-12T14:14:46.000001Z"]).table.timestamp.tolist() == [SECONDS * 1_000_000 + 1]
    (tmp_path / "log.csv").write_text("user,item,date\n1,1,1573568086.5\n")
    assert read(tmp_path / "log.csv").table.timestamp.tolist() == [SECONDS * 1_000_000 + 500_000]


def test_unit_that_is_set_is_obeyed() -> None:
    events = read_times([SECONDS], "milliseconds")
    assert events.table.timestamp.tolist() == [SECONDS * 1000]
    assert events.report.time_unit == "milliseconds since 1970 (as set)"


def test_unit_that_cannot_apply_is_refused() -> None:
    with pytest.raises(InputError, match="unit is fixed"):
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
        ([SECONDS, 0], "absurd time"),
        ([SECONDS, 20200201], "absurd time"),
        ([SECONDS * 1000] * 3 + [SECONDS // 10], "absurd time"),
        ([float(SECONDS), float("inf")], "absurd time"),
        ([float(SECONDS), float("nan")], "missing time"),
        ([float(SECONDS), 1e300], "absurd time"),
        ([SECONDS, None], "missing time"),
        (["2019-11-12", "9999-12-31"], "absurd time"),
        (["2019-11-12", "1969-12-31"], "absurd time"),
        (["2019-11-12", "infinity"], "unparsable time"),
        (["2019-11-12", "2019-02-30"], "unparsable time"),
        (["2019-11-12", " "], "missing time"),
        ([str(SECONDS), "nan"], "missing time"),
        (["2019-11-12 10:00:00Z", "2019-11-12 10:00 CET"], "ambiguous time zone"),
        (["2019-11-12", "12/11/19"], "year of two digits"),
        (["2019-11-12", "2019-11-13", "01/02/2019"], "ambiguous date"),
        (["2019-11-12", "2019-11-12 13:00 PM"], "unparsable time"),
        ([datetime(2019, 11, 12), datetime(9999, 12, 31)], "absurd time"),
    ],
)
def test_times_out_of_range_are_rejected(times: list[object], reason: str) -> None:
    events = read_times(times)
    assert len(events.table) == len(times) - 1
    assert events.report.rejected == {reason: 1}


NOON = int(datetime(2020, 2, 1, 12, 30, tzinfo=UTC).timestamp())
SPELLINGS = [
    "2020-02-01 12:30:00 UTC", "2020-02-01T13:30+0100", "2020-02-01T12:30:00,000", "20200201T123000Z",
    "20200201 12:30", "2020.02.01 12:30", "2020/2/1 12:30:00", "01.02.2020 12:30", "Feb 1, 2020 12:30 PM",
    "1 February 2020 12:30", "01-Feb-2020 12:30:00", "Sat, 01 Feb 2020 13:30:00 +0100", "Sat Feb  1 12:30:00 2020",
    "Sat Feb 01 2020 13:30:00 GMT+0100 (Central European Standard Time)", "2020-02-01 13:30:00 Europe/Paris",
    "2020-02-01T13:30:00+01:00[Europe/Paris]", "01/Feb/2020:12:30:00 +0000", "2020-02-01 12:30:00 +0000 UTC",
]  # fmt: skip


def test_each_spelling_is_the_instant_that_it_says() -> None:
    assert read_times(SPELLINGS).table.timestamp.tolist() == [NOON * 1_000_000] * len(SPELLINGS)


WHOLE_SECONDS = st.datetimes(datetime(1971, 1, 1), datetime(2099, 1, 1)).map(lambda time: time.replace(microsecond=0))
FORMS = ["%Y-%m-%dT%H:%M:%SZ", "%d.%m.%Y %H:%M:%S", "%Y%m%dT%H%M%S", "%b %d, %Y %I:%M:%S %p", "%a %b %d %H:%M:%S %Y",
         "%d %B %Y %H:%M:%S", "%Y/%m/%d %H:%M:%S +0000"]  # fmt: skip


@settings(max_examples=4)
@given(st.lists(WHOLE_SECONDS, min_size=1, max_size=9))
def test_time_of_any_spelling_is_itself(times: list[datetime]) -> None:
    texts = [f"{time:{FORMS[place % 7]}}" for place, time in enumerate(times)]
    expected = [int(time.replace(tzinfo=UTC).timestamp()) * 1_000_000 for time in times]
    assert read_times([*texts, "25.12.2019 00:00:00"]).table.timestamp.tolist()[:-1] == expected


@settings(max_examples=8)
@given(st.lists(st.dates(date(2000, 1, 1), date(2030, 1, 1)), min_size=1, max_size=8), st.sampled_from("/-"))
def test_dates_with_the_day_first_are_themselves_or_refused(days: list[date], mark: str) -> None:
    try:
        events = read_times([f"{day:%d{mark}%m{mark}%Y}" for day in days])
    except InputError:
        assert all(day.day <= 12 for day in days)
        return
    expected = [int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * 1_000_000 for day in days]
    assert events.table.timestamp.tolist() == expected


def test_date_that_no_row_decides_is_asked_for_with_both_readings() -> None:
    with pytest.raises(InputError, match=r"2011-08-02 .*day first.*2011-02-08 .*month first.*--time-unit"):
        read_times(["02/08/2011 9:01", "03/03/2011 10:00"])
    assert read_times(["02/08/2011 9:01"], "month/day/year").report.span[0] == "2011-02-08 09:01:00"


def test_few_rows_against_the_others_are_rejected_and_noted_and_many_are_refused() -> None:
    events = read_times(["25/02/2020"] * 20 + ["02/25/2020"])
    assert events.report.rejected == {"unparsable time": 1}
    assert any("cannot have the day first" in note for note in events.report.notes)
    with pytest.raises(InputError, match="contradict"):
        read_times(["25/02/2020", "02/25/2020"])


@pytest.mark.parametrize("as_text", [False, True])
def test_each_number_of_a_mixture_is_read_by_its_size(as_text: bool) -> None:
    numbers = [SECONDS * 1000, SECONDS * 1000 + 1000, SECONDS, SECONDS * 10**6]
    events = read_times([str(number) if as_text else number for number in numbers])
    assert (events.table.timestamp // 1_000_000 - SECONDS).tolist() == [0, 1, 0, 0]
    assert "2 milliseconds, 1 seconds, 1 microseconds" in events.report.time_unit
    assert events.report.warnings


@settings(max_examples=8)
@given(st.lists(st.tuples(st.integers(SECONDS - 10**7, SECONDS + 10**7), st.integers(0, 3)), min_size=1, max_size=20))
def test_no_number_is_ever_read_years_off(times: list[tuple[int, int]]) -> None:
    events = read_times([second * 1000**power for second, power in times])
    assert (events.table.timestamp // 1_000_000).tolist() == [second for second, _ in times]


OTHER_CLOCKS = {
    "ticks": (637161588000000000, "2020-02-01 13:00:00"),
    "filetime": (132250356000000000, "2020-02-01 13:00:00"),
    "excel": (43862.5, "2020-02-01 12:00:00"),
    "days": (18293, "2020-02-01 00:00:00"),
}


@pytest.mark.parametrize("unit", OTHER_CLOCKS)
def test_number_of_another_clock_is_asked_for_and_read_when_named(unit: TimeUnit) -> None:
    number, instant = OTHER_CLOCKS[unit]
    with pytest.raises(InputError, match=f"several ways.*'{unit}'"):
        read_times([number, number])
    assert read_times([number], unit).report.span[0] == instant


def test_digits_of_a_calendar_are_recognized() -> None:
    for times in ([20200201123000], ["20200201123000"], [202002011230], ["202002011230"]):
        assert read_times(times).table.timestamp.tolist() == [NOON * 1_000_000]
    with pytest.raises(InputError, match="yyyymmddhh"):
        read_times([2020020112])


def test_format_is_obeyed_and_checked() -> None:
    assert read_times(["01/02/20 12.30"], time_format="%d/%m/%y %H.%M").table.timestamp.tolist() == [NOON * 1_000_000]
    assert read_times([20200201], time_format="%Y%d%m").report.span[0] == "2020-01-02 00:00:00"
    for form, message in (("%H:%M", "a year"), ("%Y-%m-%d %Z", "%Z"), ("%Y-%m-%d %Q", "cannot be used")):
        with pytest.raises(InputError, match=message):
            read_times(["2020-02-01"], time_format=form)
    with pytest.raises(InputError, match="both set"):
        read_times(["2020-02-01"], "iso", time_format="%Y-%m-%d")
    with pytest.raises(InputError, match="holds TIMESTAMP"):
        read_times([datetime(2020, 1, 1)], time_format="%Y-%m-%d")


def test_zone_is_that_of_times_without_one() -> None:
    for time in ("2020-07-01 12:00", "Jul 1, 2020 12:00", datetime(2020, 7, 1, 12)):
        assert read_times([time], time_zone="Europe/Berlin").report.span[0] == "2020-07-01 10:00:00"
    for time in ("2020-07-01 12:00Z", datetime(2020, 7, 1, 12, tzinfo=UTC)):
        assert read_times([time], time_zone="Europe/Berlin").report.span[0] == "2020-07-01 12:00:00"
    skipped, twice = read_times(["2020-03-29 02:30", "2020-10-25 02:30"], time_zone="Europe/Berlin").table.timestamp
    assert skipped == int(datetime(2020, 3, 29, 1, 30, tzinfo=UTC).timestamp()) * 1_000_000
    assert twice == int(datetime(2020, 10, 25, 1, 30, tzinfo=UTC).timestamp()) * 1_000_000
    for zone in ("BST", "Europe/Berln"):
        with pytest.raises(InputError, match="Europe/Berlin"):
            read_times(["2020-07-01"], time_zone=zone)


def test_end_of_a_day_may_be_written_as_24_hours() -> None:
    assert set(read_times(["2020-02-01 24:00", "1 Feb 2020 24:00:00"]).report.span) == {"2020-02-02 00:00:00"}


def test_periods_of_pandas_are_their_start() -> None:
    frame = pd.DataFrame({"user": [1, 2], "item": [1, 2], "ts": pd.PeriodIndex(["2020-02", None], freq="M")})
    report = read(frame).report
    assert (report.span[0], report.rejected) == ("2020-02-01 00:00:00", {"missing time": 1})


def test_rounded_and_misnamed_times_are_warned_of() -> None:
    warnings = read_times(pa.array([float(SECONDS)], pa.float32())).report.warnings
    assert any("exact only to 128" in warning for warning in warnings)
    for name in ("timestamp_ms", "time (ms)"):
        options = ReadOptions(columns={"timestamp": name})
        (warning,) = read(pa.table({"user": [1], "item": [1], name: [SECONDS]}), options=options).report.warnings
        assert f"{name!r} is named for milliseconds" in warning
        right = pa.table({"user": [1], "item": [1], name: [SECONDS * 1000]})
        assert read(right, options=options).report.warnings == []


DAYS = [20200201 + day for day in range(6)]
FOREIGN_ROWS = {
    "epochs among dates": ([*DAYS, SECONDS, SECONDS + 1], 2),
    "zero among dates": ([*DAYS, 0], 1),
    "zero and nothing else among dates": ([DAYS[0], 0], 1),
    "negative among dates": ([*DAYS, -1], 1),
    "zero among seconds of a calendar": ([20200201101010, 20200202101010, 0], 1),
    "epoch among minutes of a calendar": ([202002011010, 202002021010, 202002031010, SECONDS * 1000], 1),
    "minutes of a calendar among milliseconds": ([SECONDS * 1000] * 4 + [202002011010], 1),
}


@pytest.mark.parametrize("as_text", [False, True])
@pytest.mark.parametrize("case", FOREIGN_ROWS)
def test_few_numbers_of_another_kind_are_rejected_and_change_no_other(case: str, as_text: bool) -> None:
    numbers, num_rejected = FOREIGN_ROWS[case]
    report = read_times([str(number) if as_text else number for number in numbers]).report
    assert report.rejected == {"absurd time": num_rejected}
    assert {time[:4] for time in report.span} <= {"2019", "2020"}


@pytest.mark.parametrize("foreign", [0, -1, 2**62])
def test_number_of_another_clock_is_asked_for_also_beside_a_bad_row(foreign: int) -> None:
    for unit, (number, _) in OTHER_CLOCKS.items():
        with pytest.raises(InputError, match=f"several ways.*'{unit}'"):
            read_times([float(number)] * 4 + [float(foreign)])
    with pytest.raises(InputError, match="yyyymmddhh"):
        read_times([2020020112, 2020020113, foreign])


def test_most_numbers_near_1970_and_some_decades_later_are_refused() -> None:
    with pytest.raises(InputError, match="several kinds"):
        read_times([1, 2, 3, 4, 5, SECONDS])
    with pytest.raises(InputError, match="'excel'"):
        read_times([43862, 43863, 43864, 43865, SECONDS])
    assert read_times([0, 1, 2, 3]).report.rejected == {}


def test_days_are_those_of_the_zone() -> None:
    assert read_times([43862.5], "excel", time_zone="Europe/Berlin").report.span[0] == "2020-02-01 11:00:00"
    assert read_times([18293], "days", time_zone="Europe/Berlin").report.span[0] == "2020-01-31 23:00:00"


@pytest.mark.parametrize("form", ["%Y%d%m", "%Y-%d-%m", "%Y/%d/%m %H:%M"])
def test_dates_with_the_day_before_the_month_are_refused_with_their_format(form: str) -> None:
    times = [f"{date(2020, 2, day):{form}}" for day in range(1, 28)]
    with pytest.raises(InputError, match=f"--time-format '{form}"):
        read_times(times)
    assert read_times(times, time_format=form).report.span[1][:10] == "2020-02-27"


def test_one_impossible_month_is_rejected_alone() -> None:
    assert read_times(["2020-02-25"] * 20 + ["2020-25-02"]).report.rejected == {"unparsable time": 1}
    assert read_times([20200225] * 20 + [20202502]).report.rejected == {"unparsable time": 1}


def test_zone_in_brackets_counts_where_no_offset_stands() -> None:
    named = ["2020-02-01T13:30:00[Europe/Paris]", "2020-02-01 07:30:00 [America/New_York]",
             "2020-02-01 13:30 (Europe/Paris)", "2020-02-01 12:30 (UTC)"]  # fmt: skip
    events = read_times([*named, "2020-02-01 13:30 (CET)", "2020-02-01 13:30 [PST]"])
    assert events.table.timestamp.tolist() == [NOON * 1_000_000] * 4
    assert events.report.rejected == {"ambiguous time zone": 2}


def test_months_that_are_not_english_and_short_years_are_rejected_with_their_cause() -> None:
    report = read_times(["13 ene 2020", "13 mar 2020", "13-août-2020", "agosto 3, 2020", "13. März 2020 10:00"]).report
    assert report.rejected == {"month name not in English": 4}
    report = read_times(["13-Feb-20", "13-Feb-2020", "30 Feb 2020", "soon"]).report
    assert report.rejected == {"unparsable time": 2, "year of two digits": 1}


def test_times_rounded_by_a_spreadsheet_are_warned_of() -> None:
    for times in (["1.58E+12", "1.58E+12", "1.59E+12"], ["1.58E+09", "1.58052E+09"]):
        assert any("E+" in text and "look rounded" in text for text in read_times(times).report.warnings)
    assert read_times(["1.580515201E9", "1.5805152E9"]).report.warnings == []


@pytest.mark.parametrize("zone", [None, "UTC"])
def test_nanoseconds_are_cut_off_alike_everywhere(tmp_path: Path, zone: str | None) -> None:
    moment = SECONDS * 1_000_000 + 123_456
    typed = pa.array([SECONDS * 10**9 + 123_456_789], pa.timestamp("ns", zone))
    table = pa.table({"user": [1], "item": [1], "time": typed})
    pa.parquet.write_table(table, tmp_path / "log.parquet")
    assert read(table).table.timestamp.tolist() == [moment]
    if zone is None:  # with a zone the database has rounded before it hands them over
        assert read(tmp_path / "log.parquet").table.timestamp.tolist() == [moment]
    assert read_times(["2019-11-12T14:14:46.123456789Z"]).table.timestamp.tolist() == [moment]


@pytest.mark.parametrize("order", [1, -1])
def test_dates_and_datetimes_of_one_pandas_column_keep_their_clock(order: int) -> None:
    times = [date(2020, 2, 1), datetime(2020, 2, 2, 10), None][::order]
    frame = pd.DataFrame({"user": [1, 2, 3], "item": [1, 2, 3], "ts": pd.Series(times, dtype=object)})
    report = read(frame).report
    assert (report.span, report.rejected) == (("2020-02-01 00:00:00", "2020-02-02 10:00:00"), {"missing time": 1})
