"""A log of events, in files or in memory, becomes an event table, a vocabulary, item columns and a report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from variseq.errors import InputError
from variseq.events.clean import drop_duplicates, drop_rare_and_repeated, low_behaviors, number_and_order
from variseq.events.items import ItemTable, read_items
from variseq.events.layout import Wanted, find_layout
from variseq.events.options import ReadOptions
from variseq.events.parse import parse
from variseq.events.rejects import count_rejects, first_faults, write_rejects
from variseq.events.report import ReadReport, behavior_mix, fault_in_words, span_of
from variseq.events.source import open_source
from variseq.events.stage import Staged, stage
from variseq.events.table import Columns, EventTable
from variseq.events.vocabulary import Vocabulary
from variseq.events.workspace import Workspace, name_in_sql, open_workspace


@dataclass(frozen=True)
class Events:
    """A cleaned log. `items` is None when no item file was given."""

    table: EventTable
    vocabulary: Vocabulary
    items: ItemTable | None
    report: ReadReport


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
    with open_workspace(options.memory_limit, options.temporary_folder) as workspace:
        opened = open_source(source, workspace.folder, options.format)
        wanted = Wanted(options.columns)
        layout = find_layout(workspace, opened, options, wanted)
        columns = layout.find(wanted)
        _refuse_useless_min_value(columns, options)
        staged = stage(workspace, opened, columns, layout, options)
        _refuse_impressions(workspace, staged)
        parsed = parse(workspace, staged, options)
        _refuse_all_invalid(workspace, staged, options)
        drop_duplicates(workspace, options)
        rejected, faults = _rejects(workspace, staged, options)
        filtered = _filter(workspace, options)
        table, vocabulary = number_and_order(workspace, options)
        item_table = None if items is None else read_items(workspace, items, vocabulary, options)
    report = ReadReport(
        num_rows=staged.num_rows,
        num_events=len(table),
        num_users=vocabulary.num_users,
        num_items=vocabulary.num_items,
        rejected=rejected,
        filtered=filtered,
        first_faults=faults,
        columns=columns,
        time_unit=parsed.time_unit,
        span=span_of(table),
        behaviors=behavior_mix(table, vocabulary),
        notes=staged.notes + parsed.notes + ([] if item_table is None else item_table.notes),
        warnings=parsed.warnings + ([] if item_table is None else item_table.warnings),
        num_unreadable_values=parsed.num_unreadable_values,
        low_behaviors=low_behaviors(vocabulary, options),
        options=options.model_dump(mode="json", exclude={"memory_limit", "temporary_folder", "rejects"}),
    )
    return Events(table, vocabulary, item_table, report)


def _refuse_impressions(workspace: Workspace, staged: Staged) -> None:
    """A field that lists what was shown, with 1 for what was clicked (as in MIND), is no item id."""
    if workspace.column_types("raw")[Columns.ITEM] != "VARCHAR":
        return
    item = name_in_sql(Columns.ITEM)
    shown, count = workspace.row(
        f"SELECT count(*) FILTER (WHERE regexp_full_match({item}, '\\S+-[01]( \\S+-[01])*') AND {item} LIKE '% %'), "
        f"count(*) FROM raw WHERE input_row <= 1000 AND {item} IS NOT NULL"
    )
    if count and shown > count / 2:
        name = staged.columns[Columns.ITEM]
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
    workspace: Workspace, staged: Staged, options: ReadOptions, final: bool = True
) -> tuple[dict[str, int], dict[str, str]]:
    rejected = count_rejects(workspace, with_duplicates=final)
    faults = first_faults(workspace, staged) if rejected else {}
    if options.rejects is not None:
        write_rejects(workspace, staged, options.rejects)
    return rejected, faults


def _refuse_all_invalid(workspace: Workspace, staged: Staged, options: ReadOptions) -> None:
    if workspace.rows("SELECT 1 FROM parsed WHERE reason IS NULL LIMIT 1"):
        return
    rejected, faults = _rejects(workspace, staged, options, final=False)
    shown = "; ".join(f"{count:,} × {reason} ({fault_in_words(reason, faults)})" for reason, count in rejected.items())
    raise InputError(f"No valid event is left. Rejected: {shown}.")


def _filter(workspace: Workspace, options: ReadOptions) -> dict[str, int]:
    """Drop what the options ask to drop, and count it by reason."""
    drop_rare_and_repeated(workspace, options)
    counts = workspace.rows(
        "SELECT reason, count(*) FROM dropped WHERE reason <> 'exact duplicate' GROUP BY reason ORDER BY reason"
    )
    filtered = {str(reason): int(count) for reason, count in counts}
    if workspace.number("SELECT count(*) FROM kept") == 0:
        raise InputError(
            f"No event is left after filtering ({_counted(filtered)}). Lower min_user_events, min_item_events or "
            "min_value."
        )
    workspace.run("DROP TABLE parsed")  # only its coded copy is needed from here on
    return filtered


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} × {reason}" for reason, count in counts.items())
