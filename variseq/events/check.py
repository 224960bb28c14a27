"""A log that was read becomes a judgment of it: counts, distributions, and warnings about what will hurt later."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
from jaxtyping import Int
from rich.console import Group
from rich.table import Table
from rich.text import Text

from variseq.events.read import Events
from variseq.events.report import ReadReport, utc_text
from variseq.events.table import MICROSECONDS_PER_SECOND, EventTable
from variseq.output.printable import printable, printable_lines

BURST_NUM_EVENTS = 20  # more than this many events of one user within a second: not a person
BURST_SECONDS = 1.0
MAX_TIE_SHARE = 0.01
MAX_SINGLE_EVENT_SHARE = 0.2
MAX_REPEAT_SHARE = 0.5
DAY = 86_400 * MICROSECONDS_PER_SECOND
LATEST_OLD_TIME = int(datetime(1992, 1, 1, tzinfo=UTC).timestamp()) * MICROSECONDS_PER_SECOND  # hardly any log is older
MINUTES_OF_OFFSETS = 15  # zones differ from UTC by a multiple of it
_QUANTILES = (0.0, 0.25, 0.5, 0.75, 0.9, 0.99, 1.0)


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
    warnings: list[str]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def __rich__(self) -> Group:
        return Group(
            printable_lines(replace(self.read, warnings=[])),
            _history_table(self),
            *(Text(printable(f"warning: {text}"), "yellow") for text in self.warnings),
        )


def check(events: Events, now: datetime | None = None) -> CheckReport:
    """Judge a log. `now` is what future dates are measured against; None is the present."""
    table = events.table
    lengths = np.bincount(table.user, minlength=events.vocabulary.num_users)
    moment = int((now or datetime.now(UTC)).timestamp() * MICROSECONDS_PER_SECOND)
    found = CheckReport(
        read=events.report,
        history_quantiles={_percent(q): int(np.quantile(lengths, q, method="lower")) for q in _QUANTILES},
        history_histogram=_histogram(lengths),
        tie_share=_tie_share(table),
        repeat_share=_repeat_share(table),
        num_single_event_users=int((lengths == 1).sum()),
        num_burst_users=_num_burst_users(table),
        num_future_events=int((table.timestamp > moment).sum()),
        warnings=list(events.report.warnings),
    )
    found.warnings.extend(_small_log_warnings(events) + _time_warnings(found, events) + _history_warnings(found))
    return found


def _small_log_warnings(events: Events) -> list[str]:
    warnings = []
    if events.vocabulary.num_users == 1:
        warnings.append("there is only one user, and nobody to learn from. Is user_id the right column?")
    if events.vocabulary.num_items == 1:
        warnings.append("there is only one item, and nothing to choose from. Is item_id the right column?")
    return warnings


def _time_warnings(found: CheckReport, events: Events) -> list[str]:
    warnings = []
    first, last = int(events.table.timestamp.min()), int(events.table.timestamp.max())
    if len(events.table) > 1 and first == last:
        warnings.append(f"all events have the same time ({utc_text(first)}): the order is only that of the input rows")
    elif found.tie_share > MAX_TIE_SHARE:
        warnings.append(
            f"{found.tie_share:.1%} of events share their time with the user's event before: "
            "among them the order of the input counts"
        )
    if last < 366 * DAY:
        warnings.append("all times lie in 1970: are they counters, or in another unit? Set time_unit if so")
    elif last < LATEST_OLD_TIME:
        warnings.append(
            f"all times lie before {utc_text(LATEST_OLD_TIME)[:4]}: is their unit {events.report.time_unit}?"
        )
    num_doubled = events.report.rejected.get("exact duplicate", 0)
    if num_doubled and _are_whole_days(events.table.timestamp, events.report.options.get("time_zone")):
        warnings.append(
            f"{num_doubled:,} equal rows were left out, but all times are whole days: they may be real (two pieces of "
            "an article on one day). Put a count into the value column, or give times"
        )
    num_of_1970 = int((events.table.timestamp < 366 * DAY).sum())
    if num_of_1970 and last >= LATEST_OLD_TIME:
        warnings.append(
            f"{num_of_1970:,} events lie in 1970, and the last is of {utc_text(last)[:4]}: does 0 or 1970-01-01 stand "
            "for times that are not known, or are the times of several kinds?"
        )
    if found.num_future_events:
        warnings.append(f"{found.num_future_events:,} events lie in the future, the last at {utc_text(last)}")
    if found.num_burst_users:
        warnings.append(
            f"{found.num_burst_users:,} users have more than {BURST_NUM_EVENTS} events within "
            f"{BURST_SECONDS:g} second: robots, or imported lists?"
        )
    return warnings


def _are_whole_days(timestamp: Int[np.ndarray, " event"], zone: str | None) -> bool:
    """Whether every time is the start of a day, in the zone of times that name none."""
    if (timestamp % (MINUTES_OF_OFFSETS * 60 * MICROSECONDS_PER_SECOND)).any():
        return False
    if zone is None:
        return not (timestamp % DAY).any()
    moments = np.unique(timestamp) // MICROSECONDS_PER_SECOND
    days = (datetime.fromtimestamp(int(moment), ZoneInfo(zone)) for moment in moments)
    # A day whose midnight is skipped begins when the clock goes on; that is what its midnight is taken for.
    return all(day.timestamp() == day.replace(hour=0, minute=0, second=0).timestamp() for day in days)


def _history_warnings(found: CheckReport) -> list[str]:
    warnings = []
    share = found.num_single_event_users / found.read.num_users
    if share > MAX_SINGLE_EVENT_SHARE:
        warnings.append(f"{share:.0%} of users have a single event, which gives nothing to predict from")
    if found.repeat_share > MAX_REPEAT_SHARE:
        warnings.append(
            f"{found.repeat_share:.0%} of events repeat an item the user had before: "
            "leaving out seen items would hide them"
        )
    return warnings


def _tie_share(table: EventTable) -> float:
    same = (np.diff(table.user) == 0) & (np.diff(table.timestamp) == 0)
    return float(same.sum() / len(table))


def _repeat_share(table: EventTable) -> float:
    pairs = table.user.astype(np.int64) * (int(table.item.max()) + 1) + table.item
    pairs.sort()
    return float((np.diff(pairs) == 0).sum() / len(table))


def _num_burst_users(table: EventTable) -> int:
    """An event and the one `BURST_NUM_EVENTS` further on, of the same user, within the time of a burst."""
    same_user = table.user[BURST_NUM_EVENTS:] == table.user[:-BURST_NUM_EVENTS]
    seconds = (table.timestamp[BURST_NUM_EVENTS:] - table.timestamp[:-BURST_NUM_EVENTS]) / MICROSECONDS_PER_SECOND
    return len(np.unique(table.user[BURST_NUM_EVENTS:][same_user & (seconds < BURST_SECONDS)]))


def _histogram(lengths: Int[np.ndarray, " user"]) -> list[tuple[int, int, int]]:
    """Bins that double: 1, 2-3, 4-7, ..."""
    bins = np.bincount(np.floor(np.log2(lengths)).astype(np.int64))
    return [(1 << power, (2 << power) - 1, int(count)) for power, count in enumerate(bins)]


def _percent(quantile: float) -> str:
    return {0.0: "min", 0.5: "median", 1.0: "max"}.get(quantile, f"{quantile:.0%}")


def _history_table(found: CheckReport) -> Table:
    quantiles = ", ".join(f"{name} {length:,}" for name, length in found.history_quantiles.items())
    table = Table(title=f"events per user ({quantiles})", title_justify="left")
    for name in ("events", "users", ""):
        table.add_column(name, justify="left" if name == "" else "right")
    most = max(count for _, _, count in found.history_histogram)
    for shortest, longest, count in found.history_histogram:
        label = str(shortest) if shortest == longest else f"{shortest}-{longest}"
        table.add_row(label, f"{count:,}", "█" * round(30 * count / most))
    return table
