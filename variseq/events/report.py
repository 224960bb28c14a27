"""The report of a read and the check of a log."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
from jaxtyping import Int
from rich.console import Group
from rich.table import Table
from rich.text import Text

from variseq.distinct import distinct
from variseq.events.items import ItemTable
from variseq.events.options import duration
from variseq.events.table import MICROSECONDS_PER_SECOND, Columns, EventTable
from variseq.events.vocabulary import Vocabulary
from variseq.output.printable import printable, printable_lines

_HINTS = {
    "ambiguous date": "the day or the month may be first: set --time-unit day/month/year or month/day/year",
    "ambiguous time zone": "short names stand for several zones: write an offset such as +01:00 or a name such as "
    "Europe/Paris",
    "year of two digits": "give the format, such as --time-format '%d/%m/%y'",
    "month name not in English": "month names are read in English only: write times as 2020-02-13",
    "absurd time": "before 1970, after 2100, or in no unit near the other times; see --time-unit",
    "unparsable time": "is it of another format? Give it with --time-format",
}


@dataclass(frozen=True)
class ReadReport:
    """Every row that came is in `num_events`, in `rejected` or in `filtered`.

    `rejected` counts invalid rows by reason, `filtered` rows that an option drops; `first_faults` gives the first row
    of each reason; `columns` is the canonical name to the name in the source; `span` is the first and the last UTC
    time. `notes` are on how columns were read, `warnings` on where that may be wrong;
    `num_unreadable_values` counts rows whose value is no number and was left out.
    `low_behaviors` are those that low values were put under, which are never targets.
    `options` are those that decide what was read, so that another file can be read alike.
    """

    num_rows: int
    num_events: int
    num_users: int
    num_items: int
    rejected: dict[str, int]
    filtered: dict[str, int]
    first_faults: dict[str, str]
    columns: dict[str, str]
    time_unit: str
    span: tuple[str, str]
    behaviors: dict[str, int]
    notes: list[str] = field(default_factory=list)
    low_behaviors: list[str] = field(default_factory=list)
    options: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    num_unreadable_values: int = 0

    def __post_init__(self) -> None:
        num_counted = self.num_events + sum(self.rejected.values()) + sum(self.filtered.values())
        if num_counted != self.num_rows:
            raise RuntimeError(f"{self.num_rows:,} rows were read, but {num_counted:,} are accounted for.")

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        lines = [
            f"{self.num_rows:,} rows read, {self.num_events:,} events kept: "
            f"{self.num_users:,} users, {self.num_items:,} items",
            "columns: " + ", ".join(f"{column} = {printable(name)}" for column, name in self.columns.items()),
            f"times: {self.time_unit}; from {self.span[0]} to {self.span[1]}",
            "behaviors: " + ", ".join(f"{printable(name)} {count:,}" for name, count in self.behaviors.items()),
        ]
        for reason, count in self.rejected.items():
            lines.append(f"rejected: {count:,} × {reason} ({printable(fault_in_words(reason, self.first_faults))})")
        lines += [f"filtered: {count:,} × {reason}" for reason, count in self.filtered.items()]
        lines += [f"note: {printable(note)}" for note in self.notes]
        lines += [f"warning: {printable(warning)}" for warning in self.warnings]
        return "\n".join(lines)


def fault_in_words(reason: str, first_faults: Mapping[str, str]) -> str:
    """Where a reason was first met, and what helps."""
    hint = f"; {_HINTS[reason]}" if reason in _HINTS else ""
    return f"first: {first_faults.get(reason, 'unknown')}{hint}"


def utc_text(microseconds: int) -> str:
    """An instant in words.

    >>> utc_text(0)
    '1970-01-01 00:00:00'
    """
    instant = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)
    return instant.replace(tzinfo=None).isoformat(sep=" ")


BURST_NUM_EVENTS = 20  # more than this many events of one user within a second: not a person
BURST_SECONDS = 1.0
MAX_TIE_SHARE = 0.01
MAX_SINGLE_EVENT_SHARE = 0.2
MAX_REPEAT_SHARE = 0.5
DAY = 86_400 * MICROSECONDS_PER_SECOND
LATEST_OLD_TIME = int(datetime(1992, 1, 1, tzinfo=UTC).timestamp()) * MICROSECONDS_PER_SECOND  # hardly any log is older
MINUTES_OF_OFFSETS = 15  # zones differ from UTC by a multiple of it
_QUANTILES = {"min": 0.0, "25%": 0.25, "median": 0.5, "75%": 0.75, "90%": 0.9, "99%": 0.99, "max": 1.0}


@dataclass(frozen=True)
class Events:
    """A cleaned log. `items` is None when no item file was given."""

    table: EventTable
    vocabulary: Vocabulary
    items: ItemTable | None
    report: ReadReport


@dataclass(frozen=True)
class CheckReport:
    """What `check` found. Shares are from 0 to 1; `history_histogram` has (shortest, longest, num_users) per bin."""

    read: ReadReport
    history_quantiles: dict[str, int]
    history_histogram: list[tuple[int, int, int]]
    tie_share: float
    repeat_share: float
    num_single_event_users: int
    num_burst_users: int
    num_future_events: int
    num_visits: int | None
    warnings: list[str]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def __rich__(self) -> Group:
        return Group(
            printable_lines(replace(self.read, warnings=[])),
            *([] if self.num_visits is None else [_visits_in_words(self.num_visits, self.read)]),
            _history_heading(self),
            _history_table(self),
            *(Text(printable(f"warning: {text}"), "yellow") for text in self.warnings),
        )


def check(events: Events, now: datetime | None = None) -> CheckReport:
    """Judge a log. `now` is what future dates are measured against; None is the present."""
    table = events.table
    lengths = np.bincount(table.user, minlength=events.vocabulary.num_users)
    moment = int((now or datetime.now(UTC)).timestamp() * MICROSECONDS_PER_SECOND)
    pairs = table.user.astype(np.int64) * events.vocabulary.num_items + table.item
    pairs.sort()
    found = CheckReport(
        read=events.report,
        history_quantiles={
            name: int(np.quantile(lengths, quantile, method="lower")) for name, quantile in _QUANTILES.items()
        },
        history_histogram=_histogram(lengths),
        tie_share=float(((np.diff(table.user) == 0) & (np.diff(table.timestamp) == 0)).sum() / len(table)),
        repeat_share=float((np.diff(pairs) == 0).sum() / len(table)),
        num_single_event_users=int((lengths == 1).sum()),
        num_burst_users=_num_burst_users(table),
        num_future_events=int((table.timestamp > moment).sum()),
        num_visits=_num_visits(table, visit_gap_of(events.report)),
        warnings=list(events.report.warnings),
    )
    found.warnings.extend(text for applies, text in _checks(found, events) if applies)
    return found


def _checks(found: CheckReport, events: Events) -> list[tuple[bool, str]]:
    """What a log is warned of, and whether it applies."""
    report, times = events.report, events.table.timestamp
    first, last = int(times.min()), int(times.max())
    is_one_time = len(times) > 1 and first == last
    shuffled = report.options.get("ties") == "shuffle"
    num_doubled, num_of_1970 = report.rejected.get("exact duplicate", 0), int((times < 366 * DAY).sum())
    single_share = found.num_single_event_users / report.num_users
    return [
        (report.num_users == 1, "there is only one user, and nobody to learn from. Is user_id the right column?"),
        (report.num_items == 1, "there is only one item, and nothing to choose from. Is item_id the right column?"),
        (
            is_one_time,
            f"all events have the same time ({utc_text(first)}): the order is only that of the input rows",
        ),
        (
            found.tie_share > MAX_TIE_SHARE and not is_one_time and found.num_visits is None,
            f"{found.tie_share:.1%} of events share their time with the user's event before: "
            + (
                "their order is drawn"
                if shuffled
                else "among them the order of the input counts; ties='shuffle' draws it"
            ),
        ),
        (last < 366 * DAY, "all times lie in 1970: are they counters, or in another unit? Set time_unit if so"),
        (
            366 * DAY <= last < LATEST_OLD_TIME,
            f"all times lie before {utc_text(LATEST_OLD_TIME)[:4]}: is their unit {report.time_unit}?",
        ),
        (
            num_doubled > 0 and _are_whole_days(times, report.options.get("time_zone")),
            f"{num_doubled:,} equal rows were left out, but all times are whole days: they may be real (two pieces of "
            "an article on one day). Put a count into the value column, or give times",
        ),
        (
            num_of_1970 > 0 and last >= LATEST_OLD_TIME,
            f"{num_of_1970:,} events lie in 1970, and the last is of {utc_text(last)[:4]}: does 0 or 1970-01-01 stand "
            "for times that are not known, or are the times of several kinds?",
        ),
        (
            found.num_future_events > 0,
            f"{found.num_future_events:,} events lie in the future, the last at {utc_text(last)}",
        ),
        (
            found.num_burst_users > 0 and found.num_visits is None,
            f"{found.num_burst_users:,} users have more than {BURST_NUM_EVENTS} events within "
            f"{BURST_SECONDS:g} second: robots, or imported lists?",
        ),
        (
            single_share > MAX_SINGLE_EVENT_SHARE,
            f"{single_share:.0%} of users have a single event, which gives nothing to predict from",
        ),
        (
            found.repeat_share > MAX_REPEAT_SHARE,
            f"{found.repeat_share:.0%} of events repeat an item the user had before: "
            "leaving out seen items would hide them",
        ),
    ]


def visit_gap_of(report: ReadReport) -> int | None:
    """The longest time between two events of a visit in microseconds; None for a log that was read without visits.

    Events of a visit that a column names have one time.
    """
    if Columns.VISIT in report.columns:
        return 0
    gap = report.options["visit_gap"]
    return None if gap is None else duration(gap, "visit_gap")


def _num_visits(table: EventTable, visit_gap: int | None) -> int | None:
    if visit_gap is None:
        return None
    return 1 + int(((np.diff(table.user) != 0) | (np.diff(table.timestamp) > visit_gap)).sum())


def _visits_in_words(num_visits: int, report: ReadReport) -> Text:
    how = f"by the column {report.columns[Columns.VISIT]}" if Columns.VISIT in report.columns else "by their gaps"
    mean = report.num_events / num_visits
    return Text(printable(f"visits: {num_visits:,} {how}, {mean:.1f} events each; inside a visit events have no order"))


def _are_whole_days(timestamp: Int[np.ndarray, " event"], zone: str | None) -> bool:
    """Whether every time is the start of a day, in the zone of times that name none."""
    if (timestamp % (MINUTES_OF_OFFSETS * 60 * MICROSECONDS_PER_SECOND)).any():
        return False
    if zone is None:
        return not (timestamp % DAY).any()
    moments = distinct(timestamp) // MICROSECONDS_PER_SECOND
    days = (datetime.fromtimestamp(int(moment), ZoneInfo(zone)) for moment in moments)
    # A day whose midnight is skipped begins when the clock goes on; that is what its midnight is taken for.
    return all(day.timestamp() == day.replace(hour=0, minute=0, second=0).timestamp() for day in days)


def _num_burst_users(table: EventTable) -> int:
    """An event and the one `BURST_NUM_EVENTS` further on, of the same user, within the time of a burst."""
    same_user = table.user[BURST_NUM_EVENTS:] == table.user[:-BURST_NUM_EVENTS]
    seconds = (table.timestamp[BURST_NUM_EVENTS:] - table.timestamp[:-BURST_NUM_EVENTS]) / MICROSECONDS_PER_SECOND
    return len(distinct(table.user[BURST_NUM_EVENTS:][same_user & (seconds < BURST_SECONDS)]))


def _histogram(lengths: Int[np.ndarray, " user"]) -> list[tuple[int, int, int]]:
    """Bins that double: 1, 2-3, 4-7, ..."""
    bins = np.bincount(np.floor(np.log2(lengths)).astype(np.int64))
    return [(1 << power, (2 << power) - 1, int(count)) for power, count in enumerate(bins)]


def _history_heading(found: CheckReport) -> Text:
    quantiles = ", ".join(f"{name} {length:,}" for name, length in found.history_quantiles.items())
    return Text(f"events per user ({quantiles})")


def _history_table(found: CheckReport) -> Table:
    table = Table()
    for name in ("events", "users", ""):
        table.add_column(name, justify="left" if name == "" else "right")
    most = max(count for _, _, count in found.history_histogram)
    for shortest, longest, count in found.history_histogram:
        label = str(shortest) if shortest == longest else f"{shortest}-{longest}"
        table.add_row(label, f"{count:,}", "█" * round(30 * count / most))
    return table
