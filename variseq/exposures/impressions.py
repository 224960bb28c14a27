"""Reads a shop's own table of impressions, one row for each item that was shown, into exposures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Int

from variseq.errors import InputError
from variseq.events.columns import EVENT_ALIASES, Aliases, Wanted, find_layout
from variseq.events.identifiers import TextCells, read_ids, read_text_cells
from variseq.events.ingest import Ingested, ingest
from variseq.events.numeric_times import LATEST_MICROSECONDS
from variseq.events.options import ColumnNames, ReadOptions
from variseq.events.session import Session, group_of, name_in_sql, open_session
from variseq.events.sources import open_source
from variseq.events.table import Columns
from variseq.events.times import local_zone, read_time
from variseq.exposures.report import ExposureReport
from variseq.exposures.table import Exposures

EXPOSURE, RANK, REWARD, PROPENSITY = "exposure_id", "rank", "reward", "propensity"
AT_RANK, IN_LIST = "propensity_at_rank", "propensity_in_list"
NUMBERS = (RANK, REWARD, PROPENSITY, AT_RANK, IN_LIST)
ALIASES: Aliases = {
    EXPOSURE: (("exposure", "slate", "slateid", "impression", "impressionid", "requestid", "listid"),),
    Columns.USER: EVENT_ALIASES[Columns.USER],
    Columns.ITEM: (*EVENT_ALIASES[Columns.ITEM], ("action", "actionid")),
    Columns.TIME: EVENT_ALIASES[Columns.TIME],
    RANK: (("position", "pos"),),
    REWARD: (("click", "clicked", "clicks"), ("label", "conversion", "converted")),
    PROPENSITY: (("propensityscore", "pscore"),),
    AT_RANK: (),
    IN_LIST: (),
}


def read_impressions(source: object, columns: ColumnNames) -> tuple[Exposures, ExposureReport]:
    """Exposures of a table.

    Rows of one exposure id are a list; without such a column each row is a list of its own, and its propensity is both
    that at its rank and that in its list.

    Args:
        source: As for a log: a file, a glob, a data frame.
        columns: Names of columns that are not found by their names.

    Raises:
        InputError: A column is missing or may be two things, or no row can be read.
    """
    options, report = ReadOptions(), ExposureReport()
    with open_session(options.memory_limit, options.temporary_folder) as session:
        opened = open_source(session, source, options.format)
        wanted = Wanted(columns, ALIASES, (Columns.ITEM, REWARD))
        layout = find_layout(session, opened, options, wanted)
        ingested = ingest(session, opened, layout.find(wanted), layout, options)
        report.columns, report.notes = dict(ingested.columns), session.notes
        table = _parsed(session, ingested, options)
        report.lines["unreadable"] = session.number("SELECT count(*) FROM malformed")
    reasons = [one or "read" for one in table.column("reason").to_pylist()]
    report.lines.update(reasons)
    table = table.filter(pa.array([one == "read" for one in reasons]))
    if not len(table):
        rejected = ", ".join(f"{num:,} × {reason}" for reason, num in report.lines.items() if num)
        raise InputError(f"No row of the table can be used ({rejected}). Look at its columns: {report.columns}.")
    return _exposures(table, report), report


def _parsed(session: Session, ingested: Ingested, options: ReadOptions) -> pa.Table:
    """All rows with numbers in place of texts; `reason` says why one cannot be used."""
    there = ingested.columns
    with local_zone(session, options.time_zone):
        cells = read_text_cells(session, ingested.types, list(there))
        item = read_ids(session, ingested, Columns.ITEM, cells)
        chosen = {"item_id": item.sql, "input_row": "input_row", "time_us": "0"}
        faults = {"missing item": f"({item.missing})"}
        parts = "NULL"
        if Columns.TIME in there:
            time = read_time(session, ingested, cells, options)
            parts = time.parts
            chosen["time_us"] = f"CASE WHEN NOT ({time.missing}) THEN {time.microseconds} END"
            faults["no time"] = f"NOT coalesce(({chosen['time_us']}) BETWEEN 0 AND {LATEST_MICROSECONDS - 1}, false)"
        for name in (EXPOSURE, Columns.USER):
            if name in there:
                chosen[name] = cells[name].sql if name in cells else f"CAST({name_in_sql(name)} AS VARCHAR)"
        if EXPOSURE in there:
            faults["no exposure id"] = f"{chosen[EXPOSURE]} IS NULL"
        for name in (one for one in NUMBERS if one in there):
            chosen[name] = _number(name, cells, ingested.types[name])
            if name in (RANK, REWARD):
                faults[f"no {name}"] = f"{chosen[name]} IS NULL"
        if RANK in there:
            faults["rank that is no whole number"] = f"{chosen[RANK]} < 0 OR {chosen[RANK]} <> floor({chosen[RANK]})"
        selected = ", ".join(f"{sql} AS {name_in_sql(name)}" for name, sql in chosen.items())
        reason = " ".join(f"WHEN {sql} THEN '{name}'" for name, sql in faults.items())
        rows = f"(SELECT *, {parts} AS time_parts FROM raw)"
        return session.arrow(f"SELECT {selected}, CASE {reason} END AS reason FROM {rows} ORDER BY input_row")


def _number(name: str, cells: Mapping[str, TextCells], kind: str) -> str:
    """SQL of a finite number, NULL for none. Raises InputError for a type that has none."""
    if name in cells:
        text = cells[name].sql
        number = f"CASE lower({text}) WHEN 'true' THEN 1.0 WHEN 'false' THEN 0.0 ELSE TRY_CAST({text} AS DOUBLE) END"
    elif group_of(kind) in ("whole", "fractional", "BOOLEAN", "nothing"):
        number = f"CAST({name_in_sql(name)} AS DOUBLE)"
    else:
        raise InputError(f"The column for {name} is of type {kind}. Allowed: numbers.")
    return f"(CASE WHEN isfinite({number}) THEN {number} END)"


def _exposures(table: pa.Table, report: ExposureReport) -> Exposures:
    names, rows = table.column_names, np.arange(len(table))
    list_of_row = rows
    if EXPOSURE in names:
        list_of_row = _codes(table.column(EXPOSURE))
    time, input_row = (table.column(name).to_numpy() for name in ("time_us", "input_row"))
    rank = np.ones(len(table), dtype=np.int64)
    if RANK in names:
        rank = table.column(RANK).to_numpy().astype(np.int64)
        if not rank.min():
            report.notes.append("ranks begin at 0; 1 was added")
            rank = rank + 1
    elif EXPOSURE in names:
        order = np.argsort(list_of_row, kind="stable")
        begin = np.searchsorted(list_of_row[order], list_of_row[order])
        rank[order] = np.arange(len(order)) - begin + 1
        report.notes.append("there is no column of ranks; rows of a list are taken in their order")
    # A list is of the time of its first row; of equal times, the order of the table counts.
    first_row = np.full(list_of_row.max() + 1, len(rows), dtype=np.int64)
    np.minimum.at(first_row, list_of_row, rows)
    of_first = first_row[list_of_row]
    order = np.lexsort((rank, of_first, time[of_first]))
    is_doubled = _has_rank_twice(list_of_row, rank)
    report.exposures["with a rank twice"] = int(is_doubled.sum())
    order = order[~is_doubled[list_of_row[order]]]
    starts = np.flatnonzero(np.diff(list_of_row[order], prepend=-1))
    report.exposures["kept"] = len(starts)
    first = order[starts]
    users = table.column(Columns.USER).to_pylist() if Columns.USER in names else None
    ids = table.column(EXPOSURE).to_pylist() if EXPOSURE in names else [f"row {row}" for row in input_row.tolist()]
    reward, at_rank, in_list = _numbers(table, report, len(starts) < len(order))
    item_ids = table.column("item_id").combine_chunks().unique()
    return Exposures(
        offsets=np.append(starts, len(order)).astype(np.int64),
        exposure_id=[ids[row] for row in first.tolist()],
        user=[None if users is None else users[row] for row in first.tolist()],
        time=time[first].astype(np.int64),
        context=None,
        item=_codes(table.column("item_id"))[order],
        item_ids=item_ids.to_pylist(),
        rank=rank[order],
        propensity_at_rank=at_rank[order],
        propensity_in_list=in_list[order],
        is_pinned=np.zeros(len(order), dtype=bool),
        reward=reward[order],
    )


def _codes(column: pa.ChunkedArray) -> Int[np.ndarray, " row"]:
    """The number of each value, in the order of the first rows."""
    encoded = column.combine_chunks().dictionary_encode()
    codes: Int[np.ndarray, " row"] = encoded.indices.to_numpy().astype(np.int64)
    return codes


def _has_rank_twice(list_of_row: Int[np.ndarray, " row"], rank: Int[np.ndarray, " row"]) -> Any:
    order = np.lexsort((rank, list_of_row))
    is_same = (np.diff(list_of_row[order]) == 0) & (np.diff(rank[order]) == 0)
    found = np.zeros(list_of_row.max() + 1, dtype=bool)
    found[list_of_row[order][1:][is_same]] = True
    return found


def _numbers(table: pa.Table, report: ExposureReport, has_lists: bool) -> tuple[Any, Any, Any]:
    """Rewards and both propensities. Raises InputError for a propensity of lists that may be either."""
    names, columns = table.column_names, {}
    if PROPENSITY in names and has_lists:
        name = report.columns[PROPENSITY]
        raise InputError(
            f"Lists have several rows, and {name!r} may be the probability of an item at its rank, given those above "
            f"it, or in the list. Name it: --columns {AT_RANK}={name}, or --columns {IN_LIST}={name}."
        )
    rows = table.column("input_row").to_numpy()
    for name in (REWARD, PROPENSITY, AT_RANK, IN_LIST):
        if name in names:
            columns[name] = table.column(name).cast(pa.float64()).to_numpy()
            if name != REWARD:
                report.add_propensities(report.columns[name], columns[name], lambda row: f"row {rows[row]}")
    unknown = np.full(len(table), np.nan)
    both = columns.get(PROPENSITY, unknown)
    return columns[REWARD], columns.get(AT_RANK, both), columns.get(IN_LIST, both)
