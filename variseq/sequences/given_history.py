"""A history as a caller gives it (item ids, or events with their times) into the arrays that a model reads."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from time import time
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from jaxtyping import Int

from variseq.errors import InputError
from variseq.events.table import MICROSECONDS_PER_SECOND, Columns
from variseq.events.vocabulary import Id, Vocabulary
from variseq.sequences.histories import Histories

HistoryRow = tuple[Id, int, str | None, float | None]
"""What somebody did: item id, UTC microseconds, behavior and value."""

NOW = "now"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LARGEST_VALUE = 1e30  # Larger ones, in units of a small standard deviation, are beyond 32-bit floats.
FIELDS = (Columns.ITEM, Columns.TIME, Columns.EVENT, Columns.VALUE)
_DAY_SECONDS = 86_400


@dataclass(frozen=True, slots=True)
class GivenEvent:
    """An event of a history as it was given.

    `timestamp` is seconds since 1970, ISO 8601 text with a zone, or a datetime; `visit` is the number of its visit in a
    history of visits without times.
    """

    item_id: Id
    timestamp: str | int | float | datetime | None = None
    event: str | None = None
    value: float | None = None
    visit: int | None = None


def given_history(history: object) -> list[Id | GivenEvent]:
    """The entries of a list, a data frame or an Arrow table.

    A list holds item ids, or mappings with item_id and, where there are any, timestamp, event and value. It may also
    hold visits, each a list of item ids. A table has these columns. Raises InputError for any other type.

    >>> given_history([7, {"item_id": 9, "timestamp": 1_700_000_000}])
    [7, GivenEvent(item_id=9, timestamp=1700000000, event=None, value=None, visit=None)]
    """
    if isinstance(history, pd.DataFrame):
        try:
            history = pa.Table.from_pandas(history, preserve_index=False)
        except (pa.ArrowException, TypeError) as error:
            raise InputError(
                f"The table of the history cannot be read: {error}. Give each column values of one type."
            ) from error
    elif hasattr(history, "to_arrow"):  # a frame of another library, such as polars
        history = history.to_arrow()
    if isinstance(history, pa.Table | pa.ChunkedArray | pa.Array):
        history = history.to_pylist()
    if isinstance(history, str | bytes | Mapping) or not isinstance(history, Iterable):
        raise InputError(
            f"history={history!r} is one value. Give a list of item ids, oldest first (history=['i9', 'i3']), of "
            f"events with {', '.join(FIELDS)}, or a table with these columns."
        )
    given = list(history)
    if given and all(isinstance(one, list | tuple) for one in given):  # visits, the oldest first
        return [GivenEvent(_plain(item), visit=number) for number, visit in enumerate(given) for item in visit]
    return [_event(one) if isinstance(one, Mapping) else _plain(one) for one in given]


def history_rows(given: Sequence[Id | GivenEvent], step: int = MICROSECONDS_PER_SECOND) -> list[HistoryRow]:
    """The entries as rows, oldest first; those without times are in their order, `step` microseconds apart.

    Raises InputError where ids and events are mixed, where some events have times and some none, and for a time that
    cannot be.

    >>> history_rows(["i9", "i3"])
    [('i9', 0, None, None), ('i3', 1000000, None, None)]
    """
    events = [one for one in given if isinstance(one, GivenEvent)]
    if not events:
        return [(one, index * step, None, None) for index, one in enumerate(given) if not isinstance(one, GivenEvent)]
    if len(events) < len(given):
        raise InputError("history mixes item ids and events. Send all as ids, or all as events with their times.")
    without = sum(one.timestamp is None for one in events)
    if without == len(events):
        return [
            (one.item_id, (index if one.visit is None else one.visit) * step, one.event, one.value)
            for index, one in enumerate(events)
        ]
    if without:
        raise InputError(
            f"{without} of {len(events)} events of the history have no timestamp. Give all of them, or none."
        )
    latest = latest_time()
    rows = [(one.item_id, microseconds(one.timestamp, latest), one.event, one.value) for one in events]
    return sorted(rows, key=lambda row: row[1])


def as_histories(
    rows: Sequence[HistoryRow],
    vocabulary: Vocabulary,
    usual_behavior: int,
    visit_gap: int | None = None,
    ends: Sequence[int] | Int[np.ndarray, " history"] | None = None,
) -> tuple[Histories, list[Id]]:
    """Rows, oldest first, as a model reads them, and the ids that are not in the vocabulary, which are left out.

    All rows are one history, or several, of which each ends before a row of `ends`. An unknown behavior, or none, is
    taken for the usual one. Raises InputError for ids of the other type.
    """
    position = vocabulary.item_positions([row[0] for row in rows])
    num_known = np.concatenate([[0], np.cumsum(position >= 0)]).astype(np.int64)
    indices = np.flatnonzero(position >= 0).tolist()
    of_name = {name: index for index, name in enumerate(vocabulary.behaviors)}
    behavior = [
        usual_behavior if (name := rows[at][2]) is None else of_name.get(name, usual_behavior) for at in indices
    ]
    value = [math.nan if (found := rows[at][3]) is None else found for at in indices]
    histories = Histories(
        num_known[[0, *([len(rows)] if ends is None else ends)]],
        position[indices].astype(np.int32),
        np.array(behavior, dtype=np.uint8),
        np.array([rows[at][1] for at in indices], dtype=np.int64),
        np.array(value, dtype=np.float32),
        visit_gap=visit_gap,
    )
    return histories, [rows[at][0] for at in np.flatnonzero(position < 0).tolist()]


def latest_time() -> int:
    """Later than this is no time of an event, in microseconds: clocks may be a day ahead."""
    return int((time() + _DAY_SECONDS) * MICROSECONDS_PER_SECOND)


def microseconds(given: object, latest: int, what: str = "timestamp", ahead: str = "a day") -> int:
    """A time as UTC microseconds. Raises InputError for what is no time, for one before 1970 and one after `latest`.

    >>> microseconds("2026-11-24T15:00:00Z", latest=2 * 10**15), microseconds(1.5, latest=2 * 10**15)
    (1795532400000000, 1500000)
    """
    if isinstance(given, int | float) and not isinstance(given, bool) and math.isfinite(given):
        found, hint = round(given * MICROSECONDS_PER_SECOND), " Numbers are seconds since 1970, not milliseconds."
    else:
        found, hint = _moment(given, what), ""
    if not 0 <= found <= latest:
        raise InputError(
            f"The {what} {given!r} is before 1970 or more than {ahead} in the future.{hint} Check the clock."
        )
    return found


def request_microseconds(at: object) -> int:
    """The time of a request, "now" or as that of an event, as UTC microseconds; at most a year in the future.

    Raises InputError for what is no time.
    """
    now = time()
    if at == NOW:
        return int(now * MICROSECONDS_PER_SECOND)
    latest = int((now + 366 * _DAY_SECONDS) * MICROSECONDS_PER_SECOND)
    return microseconds(at, latest, "request time", "a year")


def too_early(at: object, latest: int, whose: str) -> InputError:
    """The error for a request time before the latest event, which is in UTC microseconds."""
    return InputError(
        f"at={at!r} is before the latest event of {whose} ({EPOCH + timedelta(microseconds=latest)}). Give a later "
        "time, or leave it out."
    )


def _moment(given: object, what: str) -> int:
    """Text needs a zone; a datetime without one is in UTC, as in the columns of a log."""
    if not isinstance(given, str | datetime):
        raise InputError(
            f"The {what} {given!r} is no time. Write seconds since 1970, or text like 2026-11-24T15:00:00Z."
        )
    try:
        parsed = datetime.fromisoformat(given.upper()) if isinstance(given, str) else given
        found = int((parsed.replace(tzinfo=parsed.tzinfo or UTC) - EPOCH) // timedelta(microseconds=1))
    except (ValueError, OverflowError) as error:
        raise InputError(f"The {what} {given!r} is no time. Write it like 2026-11-24T15:00:00Z.") from error
    if parsed.tzinfo is None and isinstance(given, str):
        raise InputError(f"The {what} {given!r} has no zone. Write it like 2026-11-24T15:00:00Z.")
    return found


def _event(given: Mapping[Any, Any]) -> GivenEvent:
    if unknown := [name for name in given if name not in FIELDS]:
        raise InputError(f"An event of the history has {unknown[0]!r}. There are: {', '.join(FIELDS)}. Leave it out.")
    # Tables have None, NaN or NaT for a value that is not there.
    absent = {name for name, value in given.items() if pd.api.types.is_scalar(value) and pd.isna(value)}
    plain = {name: None if name in absent else _plain(value) for name, value in given.items()}
    item_id = plain.get(Columns.ITEM)
    if item_id is None:
        raise InputError(f"An event of the history has no item_id: {dict(given)!r}. Give each its item_id.")
    event, value = plain.get(Columns.EVENT), plain.get(Columns.VALUE)
    if event is not None and not (isinstance(event, str) and event):
        raise InputError(f"The event {event!r} in the history is no text. Name the behavior, or leave it out.")
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if value is not None and not (is_number and abs(value) <= LARGEST_VALUE):
        raise InputError(f"The value {value!r} in the history is no number up to {LARGEST_VALUE:g}. Leave it out.")
    return GivenEvent(item_id, plain.get(Columns.TIME), event, None if value is None else float(value))


def _plain(value: Any) -> Any:
    """Numbers of numpy as those of Python."""
    return value.item() if isinstance(value, np.generic) else value
