"""A source, read and cleaned by DuckDB or Spark: numbered events in order, and what the report says of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from variseq.errors import InputError
from variseq.events.clean import (
    count_rejects,
    drop_duplicates,
    drop_rare_and_repeated,
    first_faults,
    low_behaviors,
    number_what_is_left,
    write_rejects,
)
from variseq.events.columns import Wanted, find_layout
from variseq.events.frames import Frame, stream
from variseq.events.ingest import Ingested, ingest
from variseq.events.options import ReadOptions
from variseq.events.parse import parse
from variseq.events.report import ReadReport, fault_in_words, utc_text
from variseq.events.session import Session, name_in_sql, open_session
from variseq.events.sources import open_source
from variseq.events.spark_session import spark_failures
from variseq.events.spark_source import SparkSource
from variseq.events.table import Columns
from variseq.events.vocabulary import Vocabulary

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@dataclass(frozen=True)
class Cleaned:
    """What is kept of a source: the tables are in `session.engine`; `found` are fields of its report."""

    session: Session
    vocabulary: Vocabulary
    num_events: int
    has_visits: bool
    found: dict[str, Any]

    def report(self, first: int, last: int, num_of_behaviors: list[int]) -> ReadReport:
        """The report, from the first and the last time of the events and their number by behavior."""
        behaviors = dict(zip(self.vocabulary.behaviors, num_of_behaviors, strict=True))
        span = (utc_text(first), utc_text(last))
        return ReadReport(num_events=self.num_events, span=span, behaviors=behaviors, **self.found)


@contextmanager
def open_cleaned(source: object, options: ReadOptions, spark: SparkSession | None = None) -> Iterator[Cleaned]:
    """Read and clean a source, with Spark where its session or a frame of it is given.

    Raises InputError when nothing valid is left or the source cannot be understood.
    """
    if is_spark_frame(source):
        spark = source.sparkSession  # type: ignore[attr-defined]
    if spark is None:
        make: Callable[[str, Path], Session] = Session
        failures: AbstractContextManager[None] = nullcontext()
    else:
        make, failures = partial(SparkSource, spark), spark_failures()
    with failures, open_session(options.memory_limit, options.temporary_folder, make) as session:
        columns, ingested = _ingested(session, source, options)
        _refuse_impressions(session, ingested)
        parsed = parse(session, ingested, options)
        num_kept = parsed.num_valid and parsed.num_valid - drop_duplicates(session.engine)
        rejected, faults = _rejects(session, ingested, options, num_kept)
        if not num_kept:
            shown = (f"{count:,} × {reason} ({fault_in_words(reason, faults)})" for reason, count in rejected.items())
            raise InputError(f"No valid event is left. Rejected: {'; '.join(shown)}.")
        filtered = drop_rare_and_repeated(session.engine, options)
        num_kept -= sum(filtered.values())
        if not num_kept:
            counted = ", ".join(f"{count:,} × {reason}" for reason, count in filtered.items())
            raise InputError(
                f"No event is left after filtering ({counted}). Lower min_user_events, min_item_events or min_value."
            )
        vocabulary = number_what_is_left(session.engine, options, bool(filtered))
        found = {
            "num_rows": ingested.num_rows,
            "num_users": vocabulary.num_users,
            "num_items": vocabulary.num_items,
            "rejected": rejected,
            "filtered": filtered,
            "first_faults": faults,
            "columns": columns,
            "time_unit": parsed.time_unit,
            "notes": session.notes,
            "warnings": session.warnings,
            "num_unreadable_values": parsed.num_unreadable_values,
            "low_behaviors": low_behaviors(vocabulary, options),
            "options": options.model_dump(mode="json", exclude={"memory_limit", "temporary_folder", "rejects"}),
        }
        yield Cleaned(session, vocabulary, num_kept, Columns.VISIT in columns, found)


def is_spark_frame(source: object) -> bool:
    """Whether a source is a frame of Spark."""
    return type(source).__module__.startswith("pyspark.sql.") and hasattr(source, "sparkSession")


def _ingested(session: Session, source: Any, options: ReadOptions) -> tuple[dict[str, str], Ingested]:
    """The columns that were found, and the source in `raw`."""
    is_frame = is_spark_frame(source)
    opened = Frame(list(source.columns), stream) if is_frame else open_source(session, source, options.format)
    wanted = Wanted(options.columns)
    layout = find_layout(session, opened, options, wanted)
    columns = layout.find(wanted)
    _refuse_useless_min_value(columns, options)
    if Columns.VISIT in columns and options.visit_gap is not None:
        raise InputError(
            f"The column {columns[Columns.VISIT]!r} and visit_gap={options.visit_gap!r} both make visits. Give one."
        )
    if not isinstance(session, SparkSource):
        return columns, ingest(session, opened, columns, layout, options)
    refuse_visits(columns)
    if is_frame:
        return columns, session.take_frame(source, columns)
    ingested = ingest(session, opened, columns, layout, options)
    session.hand_over(opened, ingested)
    return columns, ingested


def refuse_visits(columns: Mapping[str, str]) -> None:
    """Raises InputError for a column of visits, whose events are put together in memory."""
    if Columns.VISIT in columns:
        raise InputError(
            f"The column {columns[Columns.VISIT]!r} names visits, which are neither prepared nor read with Spark. Give "
            "visit_gap (--visit-gap 30m) in its place, or give the log itself to fit."
        )


def _refuse_impressions(session: Session, ingested: Ingested) -> None:
    """A field that lists what was shown, with 1 for what was clicked (as in MIND), is no item id."""
    if ingested.types[Columns.ITEM] != "VARCHAR":
        return
    item = name_in_sql(Columns.ITEM)
    ((shown, count),) = session.aggregate(
        f"SELECT count(*) FILTER (WHERE regexp_full_match({item}, '\\S+-[01]( \\S+-[01])*') AND {item} LIKE '% %'), "
        f"count(*) FROM raw WHERE input_row <= 1000 AND {item} IS NOT NULL",
        "sum sum",
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
    rejected = count_rejects(session, with_duplicates=num_kept > 0, all_rows=options.rejects is not None)
    faults = first_faults(session, ingested) if rejected else {}
    if options.rejects is not None:
        write_rejects(session, ingested, options.rejects)
    return rejected, faults
