"""A log of events, in files or in memory, becomes an event table, a vocabulary, item columns and a report."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from variseq.errors import InputError
from variseq.events.clean import (
    count_rejects,
    drop_duplicates,
    drop_rare_and_repeated,
    first_faults,
    low_behaviors,
    number_and_order,
    shuffle_ties,
    write_rejects,
)
from variseq.events.columns import Wanted, find_layout
from variseq.events.ingest import Ingested, ingest
from variseq.events.items import read_items
from variseq.events.options import ReadOptions
from variseq.events.parse import parse
from variseq.events.report import Events, ReadReport, fault_in_words, utc_text
from variseq.events.session import Session, name_in_sql, open_session
from variseq.events.sources import open_source
from variseq.events.table import Columns


def read(source: object, items: object | None = None, options: ReadOptions | None = None) -> Events:
    """Read, check, clean and order a log of events.

    `source` is a path, a glob, a folder or a list of paths (CSV, TSV, JSON lines, Parquet; text also gzipped), a
    pandas, Polars or Arrow table or stream, or a DuckDB relation. `items` is the same for item columns. The work is
    done by a database within `options.memory_limit`; only the result, 21 bytes an event, is held in memory.

    Raises InputError when nothing valid is left or the source cannot be understood.

    >>> import pyarrow as pa
    >>> log = read(pa.table({"user": ["u", "u"], "item": [8, 9], "ts": [1600000100, 1600000000]}))
    >>> log.vocabulary.item_ids(log.table.item)
    [9, 8]
    """
    options = options or ReadOptions()
    with open_session(options.memory_limit, options.temporary_folder) as session:
        opened = open_source(session, source, options.format)
        wanted = Wanted(options.columns)
        layout = find_layout(session, opened, options, wanted)
        columns = layout.find(wanted)
        _refuse_useless_min_value(columns, options)
        if Columns.VISIT in columns and options.visit_gap is not None:
            raise InputError(
                f"The column {columns[Columns.VISIT]!r} and visit_gap={options.visit_gap!r} both make visits. Give one."
            )
        ingested = ingest(session, opened, columns, layout, options)
        _refuse_impressions(session, ingested)
        parsed = parse(session, ingested, options)
        num_kept = parsed.num_valid and parsed.num_valid - drop_duplicates(session, options)
        rejected, faults = _rejects(session, ingested, options, num_kept)
        if not num_kept:
            shown = (f"{count:,} × {reason} ({fault_in_words(reason, faults)})" for reason, count in rejected.items())
            raise InputError(f"No valid event is left. Rejected: {'; '.join(shown)}.")
        filtered = drop_rare_and_repeated(session, options)
        num_kept -= sum(filtered.values())
        if not num_kept:
            counted = ", ".join(f"{count:,} × {reason}" for reason, count in filtered.items())
            raise InputError(
                f"No event is left after filtering ({counted}). Lower min_user_events, min_item_events or min_value."
            )
        has_visits = Columns.VISIT in columns
        table, vocabulary = number_and_order(session, options, num_kept, bool(filtered), has_visits)
        if options.ties == "shuffle":
            shuffle_ties(table)
        item_table = None if items is None else read_items(session, items, vocabulary, options)
    counts = np.bincount(table.behavior, minlength=vocabulary.num_behaviors).tolist()
    report = ReadReport(
        num_rows=ingested.num_rows,
        num_events=len(table),
        num_users=vocabulary.num_users,
        num_items=vocabulary.num_items,
        rejected=rejected,
        filtered=filtered,
        first_faults=faults,
        columns=columns,
        time_unit=parsed.time_unit,
        span=(utc_text(int(table.timestamp.min())), utc_text(int(table.timestamp.max()))),
        behaviors=dict(zip(vocabulary.behaviors, counts, strict=True)),
        notes=session.notes,
        warnings=session.warnings,
        num_unreadable_values=parsed.num_unreadable_values,
        low_behaviors=low_behaviors(vocabulary, options),
        options=options.model_dump(mode="json", exclude={"memory_limit", "temporary_folder", "rejects"}),
    )
    return Events(table, vocabulary, item_table, report)


def _refuse_impressions(session: Session, ingested: Ingested) -> None:
    """A field that lists what was shown, with 1 for what was clicked (as in MIND), is no item id."""
    if ingested.types[Columns.ITEM] != "VARCHAR":
        return
    item = name_in_sql(Columns.ITEM)
    shown, count = session.row(
        f"SELECT count(*) FILTER (WHERE regexp_full_match({item}, '\\S+-[01]( \\S+-[01])*') AND {item} LIKE '% %'), "
        f"count(*) FROM raw WHERE input_row <= 1000 AND {item} IS NOT NULL"
    )
    if count and shown > count / 2:
        name = ingested.columns[Columns.ITEM]
        raise InputError(
            f"Column {name!r} holds lists of impressions (N12-1 N34-0), one for each row. DuckDB makes the table: "
            f"variseq.read(duckdb.sql(\"SELECT * EXCLUDE ({name}, shown), split_part(shown, '-', 1) AS item_id FROM "
            f"(SELECT *, unnest(string_split({name}, ' ')) AS shown FROM 'behaviors.parquet') "
            "WHERE shown LIKE '%-1'\"))."
        )


def _refuse_useless_min_value(columns: Mapping[str, str], options: ReadOptions) -> None:
    """Raises InputError for an option on values that would do nothing."""
    if options.min_value is None and options.low_values != "leave-out":
        raise InputError(f"low_values={options.low_values!r} needs min_value: the value below which an event is low.")
    if options.min_value is not None and Columns.VALUE not in columns:
        raise InputError(
            f"min_value={options.min_value:g} needs a column of values, and the log has none. Name it with "
            "columns={'value': ...} (--columns value=...), or leave min_value out."
        )


def _rejects(
    session: Session, ingested: Ingested, options: ReadOptions, num_kept: int
) -> tuple[dict[str, int], dict[str, str]]:
    """Rejected rows by reason, and the first of each; they are written where a file is set for them."""
    if num_kept == ingested.num_rows and options.rejects is None:
        return {}, {}
    rejected = count_rejects(session, with_duplicates=num_kept > 0)
    faults = first_faults(session, ingested) if rejected else {}
    if options.rejects is not None:
        write_rejects(session, ingested, options.rejects)
    return rejected, faults
