"""Spark as the engine that runs clean.sql: tables that are checkpointed, numbering without a sort in one task."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import pyarrow as pa

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

_STATEMENT = re.compile(r"(?:--[^\n]*\n)*(CREATE TABLE|CREATE VIEW|INSERT INTO) (\w+)(?: AS)?\s+(.*)", re.DOTALL)
_BITS_IN_PARTITION = 33
"""Of `monotonically_increasing_id`: the rest is the number of the partition."""
_ROWS_PER_PARTITION = 500_000


class SparkEngine:
    """Tables by name, known to no catalog of Spark: a statement gets those it names as common table expressions.

    A table is checkpointed when it is made, so plans do not grow from round to round of the k-core.
    """

    def __init__(self, spark: SparkSession) -> None:
        self.spark = spark
        self.tables: dict[str, DataFrame] = {}
        self.views: dict[str, str] = {}

    def run(self, statement: str) -> None:
        """CREATE TABLE ... AS, CREATE VIEW ... AS, or INSERT INTO."""
        found = _STATEMENT.fullmatch(statement.strip())
        assert found is not None, statement
        kind, name, query = found.groups()
        if kind == "CREATE VIEW":
            self.views[name] = query
        elif kind == "CREATE TABLE":
            self.tables[name] = self.frame(query).localCheckpoint()
        else:
            num_partitions = int(self.spark.conf.get("spark.sql.shuffle.partitions") or 1)
            both = self.tables[name].union(self.frame(query)).coalesce(num_partitions)
            self.tables[name] = both.localCheckpoint()

    def frame(self, query: str) -> DataFrame:
        """The result of a query over the tables."""
        named = {name: table for name, table in self.tables.items() if _names(name, query, self.views)}
        parts = [f"{name} AS (SELECT * FROM {{{name}}})" for name in named]
        parts += [f"{name} AS ({_literal(view)})" for name, view in self.views.items()]
        beginning = f"WITH {', '.join(parts)} " if parts else ""
        return self.spark.sql(beginning + _literal(query), **named)

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """A small result."""
        return [tuple(row) for row in self.frame(query).collect()]

    def stream(self, query: str, *order: str) -> pa.RecordBatchReader:
        """A result in batches, so that it need not fit into memory; in the order of some of its columns."""
        return stream(self.frame(query), *order)

    def drop(self, name: str) -> None:
        """Forget a table or view; Spark frees its checkpoint."""
        self.tables.pop(name, None)
        self.views.pop(name, None)

    def number_ids(self, table: str, column: str, position: str, query: str) -> None:
        """Make a table of what a query gives and one more column, the index of the row in the order of `column`."""
        in_order = self.frame(query).repartitionByRange(column).sortWithinPartitions(column)
        self.tables[table] = numbered(in_order, position, 0, "int")


def numbered(frame: DataFrame, name: str, first: int, kind: str) -> DataFrame:
    """A frame with the number of each row in a column: through the partitions, from `first` on.

    The frame is checkpointed before it is counted, since a second computation may give other partitions.
    """
    from pyspark.sql import functions as F

    columns = frame.columns
    marked = frame.withColumn(name, F.monotonically_increasing_id()).localCheckpoint()
    partition = F.shiftright(F.col(name), _BITS_IN_PARTITION)
    counts = {row[0]: row[1] for row in marked.groupBy(partition.alias("partition")).count().collect()}
    sizes = [counts.get(number, 0) for number in range(max(counts, default=0) + 1)]
    before = F.array(*[F.lit(start) for start in accumulate(sizes[:-1], initial=first)])
    within = F.col(name).bitwiseAND((1 << _BITS_IN_PARTITION) - 1)
    number = (F.get(before, partition.cast("int")) + within).cast(kind)
    return marked.select(*map(_quoted, columns), number.alias(name))


def stream(frame: DataFrame, *order: str) -> pa.RecordBatchReader:
    """The rows, ordered by columns; one partition of them is here at a time, so partitions are small."""
    from pyspark.sql.pandas.types import to_arrow_schema

    schema = to_arrow_schema(frame.schema)
    kept = frame.localCheckpoint()  # else its rows are made twice, since the bounds of partitions come from a sample
    num_partitions = kept.count() // _ROWS_PER_PARTITION + 1
    if order:
        kept = kept.repartitionByRange(num_partitions, *order).sortWithinPartitions(*order)
    else:
        kept = kept.repartition(num_partitions)
    packed = kept.mapInArrow(partial(_packed, schema), "content binary").localCheckpoint()

    def batches() -> Iterator[pa.RecordBatch]:
        for (content,) in packed.toLocalIterator():
            with pa.ipc.open_stream(content) as reader:
                yield from reader

    return pa.RecordBatchReader.from_batches(schema, batches())


def gathered(batches: Iterator[pa.RecordBatch], num_rows: int) -> Iterator[pa.Table]:
    """Small batches, put together to at least so many rows."""
    waiting: list[pa.RecordBatch] = []
    num_waiting = 0
    for batch in batches:
        waiting.append(batch)
        num_waiting += len(batch)
        if num_waiting >= num_rows:
            yield pa.Table.from_batches(waiting)
            waiting, num_waiting = [], 0
    if num_waiting:
        yield pa.Table.from_batches(waiting)


def _packed(schema: pa.Schema, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """In a worker: rows as the bytes of Arrow streams."""
    for table in gathered(batches, 1 << 18):
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, schema) as writer:
            writer.write_table(table.cast(schema))
        yield pa.record_batch([pa.array([sink.getvalue().to_pybytes()], pa.binary())], ["content"])


def _names(table: str, query: str, views: dict[str, str]) -> bool:
    return any(re.search(rf"\b{table}\b", text) for text in (query, *views.values()))


def _literal(query: str) -> str:
    """A query in which braces are no fields for tables."""
    return query.replace("{", "{{").replace("}", "}}")


def _quoted(name: str) -> str:
    return f"`{name.replace('`', '``')}`"
