"""Reads a folder of segments, or a shop's own table, into exposures; every line is accounted for."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from variseq.errors import InputError
from variseq.events.numeric_times import LATEST_MICROSECONDS
from variseq.events.options import ColumnNames
from variseq.events.parse import DEFAULT_EVENT
from variseq.events.vocabulary import Id
from variseq.exposures.folder import SEGMENTS, segment_lines, segments
from variseq.exposures.history import HistoryDigest
from variseq.exposures.impressions import read_impressions
from variseq.exposures.list_rewards import came_back, dwell_time, with_list_rewards
from variseq.exposures.records import policy_fields
from variseq.exposures.report import ExposureReport
from variseq.exposures.rewards import EARLIER, LoggedEvent, RewardOptions, confirmed, with_rewards
from variseq.exposures.table import Exposures

CONTEXT = ("history", "model", "policy", "filters", "log_p", "experiment", "arm", "uncertainty")
PROPENSITIES = {"p_at_rank": "propensity_at_rank", "p_in_list": "propensity_in_list"}
LARGEST_RANK = 1_000_000_000
FAULTS = (ValueError, TypeError, KeyError, AttributeError, RecursionError)


def read_exposures(
    source: object,
    columns: ColumnNames | None = None,
    options: RewardOptions | None = None,
    allow_impossible: bool = False,
) -> tuple[Exposures, ExposureReport]:
    """Exposures with their rewards, and what became of every line.

    Args:
        source: A folder of segments or one segment; or a table with a row for each impression (a file such as CSV or
            Parquet, or a data frame).
        columns: For a table, names of its columns where they are not found: {"propensity": "pscore"}.
        options: What actions are worth, for segments.
        allow_impossible: Whether propensities of 0 and above 1 are counted only.

    Returns:
        The exposures and the report.

    Raises:
        InputError: Nothing can be read, a column is missing, or a propensity is impossible.
    """
    path = Path(source) if isinstance(source, str | Path) else None
    if path is not None and (path.is_dir() or any(map(path.match, SEGMENTS))):
        if columns:
            raise InputError(f"columns are for a table, and {path} has exposures of Variseq. Leave them out.")
        exposures, report = read_segments(path, options or RewardOptions())
    elif options is not None:
        raise InputError(
            "Rewards by behavior, returns and dwell times are for exposures of Variseq, and a table has a column "
            "reward. Leave them out."
        )
    else:
        exposures, report = read_impressions(source, columns or {})
    if not allow_impossible:
        report.refuse_impossible()
    return exposures, report


@dataclass(slots=True)
class _Lines:
    """What the lines of segments have, by their ids."""

    exposures: dict[str, dict[str, Any]] = field(default_factory=dict)
    num_repeated: Counter[str] = field(default_factory=Counter)
    in_conflict: set[str] = field(default_factory=set)
    shown: list[tuple[str, int]] = field(default_factory=list)
    events: dict[str, LoggedEvent] = field(default_factory=dict)


def read_segments(path: Path, options: RewardOptions) -> tuple[Exposures, ExposureReport]:
    """The exposures of a folder of segments, or of one segment. Raises InputError where there are none."""
    paths, report, lines = segments(path), ExposureReport(), _Lines()
    if not paths:
        raise InputError(f"{path} has no {SEGMENTS[0]}. Give a folder that `variseq serve --exposures` wrote.")
    for one in paths:
        for number, text in enumerate(segment_lines(one), 1):
            _read_line(one, number, text, lines, report)
    if num_unreadable := report.lines["unreadable"]:
        report.notes.append(f"{num_unreadable:,} lines cannot be read and are left out. {report.first_fault}.")
    for exposure_id in lines.in_conflict:
        del lines.exposures[exposure_id]
        report.exposures["in conflict"] += 1 + lines.num_repeated.pop(exposure_id)
    report.exposures["repeated"] += lines.num_repeated.total()
    exposures = _table(lines.exposures, report)
    report.exposures["kept"] = exposures.num_exposures
    last_shown: dict[str, int] = {}
    known = set(exposures.exposure_id)
    for exposure_id, last in lines.shown:
        report.shown["of a list" if exposure_id in known else "of no list"] += 1
        if exposure_id in known:
            last_shown[exposure_id] = max(last, last_shown.get(exposure_id, 0))
    if options.only_shown:
        exposures, outcomes = confirmed(exposures, last_shown)
        report.exposures.update(outcomes)
    return _rewarded(exposures, lines, options, report), report


def _read_line(path: Path, number: int, text: bytes, lines: _Lines, report: ExposureReport) -> None:
    """Take a line of a segment, or count what is wrong with it."""
    if not text.endswith(b"\n"):  # A process is writing it.
        report.lines["unfinished"] += 1
        return
    try:
        record = json.loads(text)
        if not (is_earlier := bool(set(PROPENSITIES.values()) & record.keys())):
            READERS[record["kind"]](record, lines, report)
            report.lines[record["kind"]] += 1
    except FAULTS as error:
        report.lines["unreadable"] += 1
        report.first_fault = report.first_fault or f"{path.name}, line {number}: {type(error).__name__}: {error}"
        return
    if is_earlier:
        raise InputError(
            f"{path} is of an earlier release of Variseq, in a format that is read no more. Move it out of the folder, "
            "and read it by that release."
        )


def _rewarded(exposures: Exposures, lines: _Lines, options: RewardOptions, report: ExposureReport) -> Exposures:
    """The exposures with their rewards; what became of the events is counted."""
    events = lines.events.values()
    if options.list_microseconds is not None:
        reward_of = came_back if options.dwell_within is None else dwell_time
        found, outcomes, of_events = with_list_rewards(exposures, events, reward_of, options.list_microseconds)
        report.exposures.update(outcomes | {"kept": found.num_exposures - report.exposures["kept"]})
        report.events.update(of_events)
        return found
    found, of_events = with_rewards(exposures, events, options)
    report.events.update(of_events)
    if num_earlier := of_events[EARLIER]:
        report.notes.append(
            f"{num_earlier:,} of {len(events):,} events are earlier than the list that they name, and count for "
            "nothing. Compare the clocks of the servers and of what sends the events."
        )
    unknown = sorted(set(options.rewards or ()) - report.behaviors.keys()) if report.behaviors else []
    there = ", ".join(sorted(report.behaviors))
    report.notes += [f"No event has the behavior {one!r}. There are: {there}." for one in unknown]
    return found


def _read_exposure(record: dict[str, Any], lines: _Lines, report: ExposureReport) -> None:
    exposure_id, items = _text(record["exposure_id"]), [_id(one) for one in record["item_id"]]
    first_rank, policy = _rank(record.get("first_rank", 1)), record["policy"]
    row: dict[str, Any] = {name: record[name] for name in CONTEXT if name in record}
    row |= {"policy": dict(zip(policy_fields(policy[0]), policy, strict=True)), "history": _history(*record["history"])}
    row |= {"filters": dict(record.get("filters", {})), "model": _text(record["model"])}
    _rank(row["policy"].get("pool", 1))
    row |= {"time": _time(record["time"]), "user": None if record["user"] is None else _text(record["user"])}
    row |= {"items": items, "first_rank": first_rank, "pin": dict(row["filters"].get("pin", {}))}
    for name in PROPENSITIES:
        given = record.get(name)
        column = [math.nan if one is None else float(one) for one in ([None] * len(items) if given is None else given)]
        if len(column) != len(items):
            raise ValueError(f"{name} has {len(column)} numbers for {len(items)} items")
        row[name] = column
    before = lines.exposures.setdefault(exposure_id, row)
    if before is row:
        return
    lines.num_repeated[exposure_id] += 1
    if before["items"] != items or before["first_rank"] != first_rank:
        lines.in_conflict.add(exposure_id)  # Which of them a person saw is not known.


def _read_shown(record: dict[str, Any], lines: _Lines, report: ExposureReport) -> None:
    ranks = [_rank(one) for one in record["ranks"]]
    lines.shown.append((_text(record["exposure_id"]), max(ranks, default=0)))


def _read_event(record: dict[str, Any], lines: _Lines, report: ExposureReport) -> None:
    behavior, exposure_id, rank = record["behavior"], record.get("exposure_id"), record.get("rank")
    event = LoggedEvent(
        _text(record["event_id"]),
        _time(record["time"]),
        _text(record["user"]),
        _id(record["item_id"]),
        DEFAULT_EVENT if behavior is None else _text(behavior),
        None if exposure_id is None else _text(exposure_id),
        None if rank is None else _rank(rank),
        None if (value := record.get("value")) is None else _number(value),
    )
    if event.event_id in lines.events:
        report.events["repeated"] += 1
        return
    lines.events[event.event_id] = event
    report.behaviors[event.behavior] += 1


READERS = {"exposure": _read_exposure, "shown": _read_shown, "event": _read_event}


def _text(given: object) -> str:
    if not isinstance(given, str):
        raise TypeError(f"{given!r} is no text")
    return given


def _id(given: object) -> Id:
    if not isinstance(given, str | int) or isinstance(given, bool):
        raise TypeError(f"{given!r} is no id")
    return given


def _number(given: object) -> float:
    if not isinstance(given, int | float) or isinstance(given, bool) or not math.isfinite(given):
        raise TypeError(f"{given!r} is no number")
    return float(given)


def _rank(given: object) -> int:
    if not isinstance(given, int) or isinstance(given, bool) or not 1 <= given <= LARGEST_RANK:
        raise TypeError(f"{given!r} is no rank")
    return given


def _time(given: object) -> int:
    if not isinstance(given, int) or isinstance(given, bool) or not 0 <= given < LATEST_MICROSECONDS:
        raise TypeError(f"{given!r} is no time in microseconds")
    return given


def _history(digest: object, num_events: object, latest: object) -> HistoryDigest:
    if not isinstance(num_events, int) or num_events < 0:
        raise TypeError(f"{num_events!r} is no number of events")
    return HistoryDigest(_text(digest), num_events, None if latest is None else _time(latest))


def _table(found: Mapping[str, dict[str, Any]], report: ExposureReport) -> Exposures:
    """Lists by time, and those of one time by their ids, so that the order of segments changes nothing."""
    chosen = sorted(found.items(), key=lambda one: (one[1]["time"], one[0]))
    rows = [row for _, row in chosen]
    lengths = [len(row["items"]) for row in rows]
    index: dict[Id, int] = {}
    item = [index.setdefault(one, len(index)) for row in rows for one in row["items"]]
    rank = [row["first_rank"] + number for row in rows for number in range(len(row["items"]))]
    pinned = [
        row["pin"].get(str(row["first_rank"] + number)) == one
        for row in rows
        for number, one in enumerate(row["items"])
    ]
    at_rank, in_list = (np.array([one for row in rows for one in row[name]], dtype=np.float64) for name in PROPENSITIES)
    exposures = Exposures(
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        exposure_id=[exposure_id for exposure_id, _ in chosen],
        user=[row["user"] for row in rows],
        time=np.array([row["time"] for row in rows], dtype=np.int64),
        context=[{name: row[name] for name in CONTEXT if name in row} for row in rows],
        item=np.array(item, dtype=np.int64),
        item_ids=list(index),
        rank=np.array(rank, dtype=np.int64),
        propensity_at_rank=at_rank,
        propensity_in_list=in_list,
        is_pinned=np.array(pinned, dtype=bool),
        reward=np.zeros(len(item)),
    )

    def where(row: int) -> str:
        number = int(np.searchsorted(exposures.offsets, row, side="right")) - 1
        return f"exposure {exposures.exposure_id[number]!r} at rank {exposures.rank[row]}"

    for name in PROPENSITIES.values():
        report.add_propensities(name, getattr(exposures, name), where)
    return exposures
