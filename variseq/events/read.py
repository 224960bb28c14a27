"""A log of events, in files or in memory, becomes an event table, a vocabulary, item columns and a report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from variseq.atomic import refuse_existing
from variseq.events.clean import ordered, shuffle_ties, to_arrays
from variseq.events.cleaned import open_cleaned, refuse_visits
from variseq.events.items import read_items
from variseq.events.options import ReadOptions
from variseq.events.prepared import (
    EVENTS_PER_BUCKET,
    new_dataset,
    prepared_folder,
    read_prepared,
    write_events,
)
from variseq.events.report import Events, ReadReport
from variseq.events.visits import by_visit

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def read(source: object, items: object | None = None, options: ReadOptions | None = None) -> Events:
    """Read, check, clean and order a log of events.

    `source` is a path, a glob, a folder or a list of paths (CSV, TSV, JSON lines, Parquet; text also gzipped), a folder
    that `prepare` wrote, a pandas, Polars, Arrow or Spark table or stream, or a DuckDB relation. `items` is the same
    for item columns. The work is done by a database within `options.memory_limit`, or by Spark for a frame of Spark;
    only the result, 21 bytes an event, is held in memory.

    Raises InputError when nothing valid is left or the source cannot be understood.

    >>> import pyarrow as pa
    >>> log = read(pa.table({"user": ["u", "u"], "item": [8, 9], "ts": [1600000100, 1600000000]}))
    >>> log.vocabulary.item_ids(log.table.item)
    [9, 8]
    """
    options = options or ReadOptions()
    if (folder := prepared_folder(source)) is not None:
        return read_prepared(folder, items, options)
    with open_cleaned(source, options) as cleaned:
        table = to_arrays(ordered(cleaned.session.engine), cleaned.num_events)
        if cleaned.has_visits:
            table = by_visit(cleaned.session, table, cleaned.vocabulary)
        if options.ties == "shuffle":
            shuffle_ties(table)
        item_table = None if items is None else read_items(cleaned.session, items, cleaned.vocabulary, options)
    counts = np.bincount(table.behavior, minlength=cleaned.vocabulary.num_behaviors).tolist()
    report = cleaned.report(int(table.timestamp.min()), int(table.timestamp.max()), counts)
    return Events(table, cleaned.vocabulary, item_table, report)


def prepare(
    source: object,
    out: Path,
    options: ReadOptions | None = None,
    spark: SparkSession | None = None,
    events_per_bucket: int = EVENTS_PER_BUCKET,
) -> ReadReport:
    """Read, check, clean and order a log, and write it as a dataset that `read` takes; see `variseq.events.prepared`.

    Args:
        source: What `read` takes.
        out: The folder, which must not exist yet. It appears whole or not at all.
        options: How the log is read; they need not be given again when the dataset is read.
        spark: A session to do the work; without one it is DuckDB on this machine, except for a frame of Spark. Both
            write the same bytes.
        events_per_bucket: A bucket ends with the user who has this event; one bucket is in memory when it is read.

    Returns:
        The report, which the dataset holds too.

    Raises:
        InputError: The log cannot be read, or the folder exists or cannot be written.
    """
    options = options or ReadOptions()
    refuse_existing(out)
    with open_cleaned(source, options, spark) as cleaned:
        refuse_visits(cleaned.found["columns"])
        with new_dataset(out) as dataset:
            return write_events(dataset, cleaned, events_per_bucket)
