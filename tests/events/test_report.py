"""A check warns of what is notable in a log."""

import io
import json
from datetime import UTC, date, datetime

import pyarrow as pa
import pytest
from rich.console import Console

from variseq.events.options import ReadOptions
from variseq.events.read import read
from variseq.events.report import CheckReport, check
from variseq.output.console import console

NOW = datetime(2020, 10, 1, tzinfo=UTC)
START = 1_600_000_000


def check_rows(users: list[int], items: list[int], seconds: list[int]) -> CheckReport:
    return check(read(pa.table({"user": users, "item": items, "ts": seconds})), now=NOW)


def test_healthy_log_has_no_warning() -> None:
    users = [user for user in range(20) for _ in range(5)]
    report = check_rows(users, [place % 7 for place in range(100)], [START + 60 * place for place in range(100)])
    assert report.warnings == []
    assert report.history_quantiles["median"] == 5
    assert report.history_histogram == [(1, 1, 0), (2, 3, 0), (4, 7, 20)]


CASES = {
    "one user": ([1] * 3, [1, 2, 3], [START, START + 1, START + 2], "only one user"),
    "one item": ([1, 2, 3], [1] * 3, [START, START + 1, START + 2], "only one item"),
    "constant times": ([1, 1, 2], [1, 2, 3], [START] * 3, "same time"),
    "ties": ([1, 1, 2, 2], [1, 2, 3, 1], [START, START, START, START + 1], "25.0% of events share"),
    "future": ([1, 2], [1, 2], [START, START + 10**8], "1 events lie in the future"),
    "single events": ([1, 2, 3], [1, 2, 3], [START, START + 1, START + 2], "100% of users have a single event"),
    "counters": ([1, 1], [1, 2], [1, 2], "all times lie in 1970"),
    "old": ([1, 2], [1, 2], [500_000_000, 500_000_001], "before 1992"),
    "burst": ([1] * 30 + [2], list(range(31)), [START] * 30 + [START + 9], "1 users have more than 20 events"),
    "repeats": ([1] * 4, [1] * 4, [START + step for step in range(4)], "75% of events repeat"),
}


@pytest.mark.parametrize("case", CASES)
def test_each_trouble_has_its_warning(case: str) -> None:
    users, items, seconds, warning = CASES[case]
    assert any(warning in text for text in check_rows(users, items, seconds).warnings)


def test_report_is_shown_and_is_json() -> None:
    report = check_rows([1, 1, 2, 3], [1, 1, 2, 3], [START, START, START, START + 10**8])
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(report)
    text = console.export_text()
    for part in ("4 rows read, 3 events kept", "rejected: 1 × exact duplicate", "events per user", "warning: "):
        assert part in text
    assert json.loads(json.dumps(report.to_json()))["num_future_events"] == 1


def test_equal_rows_of_a_log_with_dates_only_are_warned_of() -> None:
    days = [18_000 * 86_400, 18_000 * 86_400, 18_001 * 86_400]
    assert any("1 equal rows" in text for text in check_rows([1, 1, 2], [1, 1, 2], days).warnings)
    assert not any("equal rows" in text for text in check_rows([1, 1, 2], [1, 1, 2], [START, START, START]).warnings)


@pytest.mark.parametrize("zone", ["Europe/Berlin", "Asia/Kathmandu", "America/Sao_Paulo"])
def test_equal_rows_with_dates_only_are_warned_of_in_every_zone(zone: str) -> None:
    options = ReadOptions(time_zone=zone)
    days = [date(2018, 11, 4), date(2018, 11, 4), date(2018, 7, 1)]  # midnight of the first is skipped in Brazil
    for times in (days, [str(day) for day in days], [int(f"{day:%Y%m%d}") for day in days]):
        table = pa.table({"user": [1, 1, 2], "item": [1, 1, 2], "ts": times})
        assert any("1 equal rows" in text for text in check(read(table, options=options), now=NOW).warnings)
    noon = [datetime(2018, 11, 4, 12)] * 2
    table = pa.table({"user": [1, 1, 2], "item": [1, 1, 2], "ts": [*noon, datetime(2018, 7, 1)]})
    assert not any("equal rows" in text for text in check(read(table, options=options), now=NOW).warnings)


def test_few_times_of_1970_among_later_ones_are_warned_of() -> None:
    table = pa.table({"user": [1, 2], "item": [1, 2], "ts": ["1970-01-01", "2020-02-01"]})
    assert any("1 events lie in 1970" in text for text in check(read(table), now=NOW).warnings)
    assert not any("1970" in text for text in check_rows([1, 2], [1, 2], [START, START + 1]).warnings)


def test_warnings_of_reading_are_warnings_of_the_check() -> None:
    table = pa.table({"user": [1, 2], "item": [1, 2], "ts": [START, START], "rating": ["4", "x"]})
    report = check(read(table), now=NOW)
    assert any("could not be read" in text for text in report.warnings)
    assert report.read.num_unreadable_values == 1


def test_lines_of_a_pipe_are_not_wrapped(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    found = check_rows(list(range(3)), [1, 2, 3], [START] * 3)
    for columns, is_whole in ((None, True), ("40", False)):
        monkeypatch.delenv("COLUMNS", raising=False)
        if columns is not None:
            monkeypatch.setenv("COLUMNS", columns)
        console().print(found)
        assert (str(found.read).splitlines()[2] in capsys.readouterr().out.splitlines()) == is_whole
