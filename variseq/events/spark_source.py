"""A log in Spark: DuckDB reads rows within the workers, and Spark puts together what it counts there."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa

from variseq.errors import InputError
from variseq.events.columns import parquet_types
from variseq.events.frames import Frame
from variseq.events.ingest import Ingested
from variseq.events.session import Session, name_in_sql, text_in_sql
from variseq.events.sources import Files
from variseq.events.spark_engine import SparkEngine, gathered, numbered, stream

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

_ROWS_AT_ONCE = 500_000
_JOINED: dict[str, Callable[[list[Any]], Any]] = {"sum": sum, "min": min, "max": max, "key": min}
_HANDED_OVER = {
    "TIMESTAMP_NS": "make_timestamp(epoch_ns({}) // 1000)",
    "ENUM": "CAST({} AS VARCHAR)",
    "UTINYINT": "CAST({} AS SMALLINT)",
    "USMALLINT": "CAST({} AS INTEGER)",
    "UINTEGER": "CAST({} AS BIGINT)",
}
"""Types that Spark lacks, and SQL of one that is read as they are."""


class SparkSource(Session):
    """The database of this process, which finds and opens the source; after that `raw` is a frame of Spark.

    What is asked of `raw` runs in the workers, in the words that are used without Spark. So each cell is read alike.
    """

    def __init__(self, spark: SparkSession, memory_limit: str, folder: Path) -> None:
        super().__init__(memory_limit, folder)
        self.spark_engine = SparkEngine(spark)
        self.zone = "UTC"

    @property
    def engine(self) -> SparkEngine:
        """What cleans `parsed`: Spark."""
        return self.spark_engine

    def set_zone(self, zone: str) -> None:
        super().set_zone(zone)
        self.zone = zone

    def take_frame(self, frame: DataFrame, columns: Mapping[str, str]) -> Ingested:
        """Take a frame as the log; its rows are numbered in the order in which Spark gives them."""
        from pyspark.sql import functions as F

        chosen = frame.select(*[F.col(f"`{name}`").alias(column) for column, name in columns.items()])
        ingested = Ingested(dict(columns), files=[""], offsets=[0])
        self._distribute(numbered(chosen, "input_row", 1, "bigint"), ingested)
        ingested.num_rows = self.engine.tables["raw"].count()
        if not ingested.num_rows:
            raise InputError("The table has no rows.")
        return ingested

    def hand_over(self, opened: Files | Frame, ingested: Ingested) -> None:
        """Let Spark read files of Parquet that are alike; else give it the rows that are here, in a file."""
        spark, kinds = self.engine.spark, ingested.types
        if isinstance(opened, Files) and opened.format == "parquet" and _are_alike(self, opened, ingested):
            frame = self._of_files(opened, ingested)
            if self._types_of(frame) == kinds and frame.count() == ingested.num_rows:
                self._distribute(frame, ingested)
                return
        if not (spark.conf.get("spark.master", "") or "").startswith("local"):
            raise InputError(
                "On a cluster, Spark takes Parquet files with the same columns, and its own frames: "
                "variseq.read(spark.read.csv(...)), or table:NAME on the command line."
            )
        path = self.folder / "raw.parquet"
        written = ", ".join(
            f"{_HANDED_OVER.get(kind.split('(')[0], '{}').format(name_in_sql(name))} AS {name_in_sql(name)}"
            for name, kind in self.column_types("raw").items()
        )
        self.run(f"COPY (SELECT {written} FROM raw) TO {text_in_sql(str(path))} (FORMAT parquet)")
        kinds = self.column_types(f"SELECT {written} FROM raw")
        self._distribute(spark.read.parquet(str(path)), ingested)
        for name, kind in kinds.items():
            if ingested.types[name] != kind and kind != '"NULL"':
                raise InputError(
                    f"Column {ingested.columns.get(name, name)!r} is of type {kind}, which Spark reads as "
                    f"{ingested.types[name]}. Convert it, or prepare the log with --engine duckdb."
                )

    def _of_files(self, opened: Files, ingested: Ingested) -> DataFrame:
        """Parquet files as one frame, with the row numbers that DuckDB gives."""
        from pyspark.sql import functions as F

        before = {str(file.path.resolve()): rows for file, rows in zip(opened.files, ingested.offsets, strict=True)}
        frame = self.engine.spark.read.parquet(*before)
        fields = [F.col(f"`{name}`").alias(column) for column, name in ingested.columns.items()]
        path = F.regexp_replace("_metadata.file_path", "^file:/*", "/").alias("file_path")
        rows = frame.select(path, F.col("_metadata.row_index"), *fields)
        named = self.engine.spark.createDataFrame([*before.items()], "file_path string, num_before bigint")
        number = (F.col("row_index") + F.col("num_before") + 1).alias("input_row")
        return rows.join(F.broadcast(named), "file_path").select(number, *ingested.columns)

    def _types_of(self, frame: DataFrame) -> dict[str, str]:
        from pyspark.sql.pandas.types import to_arrow_schema

        with self.registered("arriving", to_arrow_schema(frame.schema).empty_table()):
            return self.column_types("SELECT * FROM arriving")

    def _distribute(self, frame: DataFrame, ingested: Ingested) -> None:
        """From here on, `raw` is the frame; here it is empty and shows the types."""
        from pyspark.sql.pandas.types import to_arrow_schema

        self.engine.tables["raw"] = frame
        self._replace("raw", to_arrow_schema(frame.schema).empty_table().to_reader())
        ingested.types = self.column_types("raw")

    def _replace(self, name: str, reader: pa.RecordBatchReader) -> None:
        self.drop(name)
        with self.registered("arriving", reader):
            self.run(f"CREATE TABLE {name} AS SELECT * FROM arriving")

    def aggregate(self, query: str, how: str) -> list[tuple[Any, ...]]:
        """Rows of an aggregate over `raw`: those of each part, joined."""
        rows = self._in_workers(partial(aggregated_in_worker, query, self.zone), "row string").collect()
        return joined([json.loads(row) for (row,) in rows], how.split())

    def num_distinct(self, *expressions: str) -> tuple[int, ...]:
        """How many different values each expression over `raw` has."""
        from pyspark.sql import functions as F

        names = [f"c{index}" for index in range(len(expressions))]
        listed = ", ".join(
            f"CAST({expression} AS VARCHAR) AS {name}" for expression, name in zip(expressions, names, strict=True)
        )
        schema = pa.schema([(name, pa.string()) for name in names])
        texts = self._by_row(f"SELECT DISTINCT {listed} FROM raw", schema)
        (counts,) = texts.agg(*[F.countDistinct(name) for name in names]).collect()
        return tuple(counts)

    def make_parsed(self, query: str) -> None:
        """Make the table `parsed` by a query that takes `raw` row by row."""
        schema = self.connection.sql(query).to_arrow_table().schema
        schema = pa.schema([(field.name, pa.string() if field.type == pa.null() else field.type) for field in schema])
        self.engine.tables["parsed"] = self._by_row(query, schema).localCheckpoint()

    def make_found(self, query: str) -> None:
        """Make the table `found` by a query of Spark for input_row and reason, and `raw` with these rows."""
        found = self.engine.frame(query).localCheckpoint()
        self._replace("found", stream(found))
        self._replace("raw", stream(self.engine.tables["raw"].join(found, "input_row", "leftsemi")))

    def _by_row(self, query: str, schema: pa.Schema) -> DataFrame:
        from pyspark.sql.pandas.types import from_arrow_schema

        return self._in_workers(partial(read_in_worker, query, self.zone, schema), from_arrow_schema(schema))

    def _in_workers(self, work: Any, schema: Any) -> DataFrame:
        return self.engine.tables["raw"].mapInArrow(work, schema)


def _are_alike(session: Session, opened: Files, ingested: Ingested) -> bool:
    """Whether all files have the columns with the same types, and paths that Spark neither changes nor leaves out."""
    if not all(re.fullmatch(r"(/[a-zA-Z0-9][\w.-]*)+", str(file.path.resolve()), re.ASCII) for file in opened.files):
        return False
    first, *others = (parquet_types(session, file) for file in opened.files)
    return all(
        name in first and all(other.get(name) == first[name] for other in others) for name in ingested.columns.values()
    )


def joined(rows: list[list[Any]], how: list[str]) -> list[tuple[Any, ...]]:
    """Aggregates of the parts as those of the whole; rows of equal keys belong together.

    >>> joined([["a", 2, 5.0], ["b", 1, None], ["a", 1, 4.0]], ["key", "sum", "min"])
    [('a', 3, 4.0), ('b', 1, None)]
    """
    groups: dict[tuple[Any, ...], list[list[Any]]] = {}
    for row in rows:
        key = tuple(value for value, kind in zip(row, how, strict=True) if kind == "key")
        groups.setdefault(key, []).append(row)
    joined = []
    for group in groups.values():
        columns = [[value for value in column if value is not None] for column in zip(*group, strict=True)]
        kinds = zip(columns, how, strict=True)
        joined.append(tuple((_JOINED[kind](known) if known else None) for known, kind in kinds))
    return joined


def _parts(query: str, zone: str, batches: Iterator[pa.RecordBatch]) -> Iterator[duckdb.DuckDBPyRelation]:
    """In a worker: the result of a query for each part of `raw`."""
    for raw in gathered(batches, _ROWS_AT_ONCE):
        with duckdb.connect(config={"threads": 1}) as connection:
            connection.execute(f"SET TimeZone = {text_in_sql(zone)}")
            connection.register("raw", raw)
            yield connection.sql(query)


def aggregated_in_worker(query: str, zone: str, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for result in _parts(query, zone, batches):
        rows = [json.dumps(row, default=float) for row in result.fetchall()]
        yield pa.record_batch([pa.array(rows, pa.string())], ["row"])


def read_in_worker(
    query: str, zone: str, schema: pa.Schema, batches: Iterator[pa.RecordBatch]
) -> Iterator[pa.RecordBatch]:
    for result in _parts(query, zone, batches):
        for batch in pa.RecordBatchReader.from_stream(result):
            yield batch.cast(schema)
