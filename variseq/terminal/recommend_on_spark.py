"""The `recommend` command with --engine spark: everybody in a table of events, answered by Spark."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from variseq.atomic import atomic_directory, refuse_existing
from variseq.errors import InputError
from variseq.events.prepared import prepared_folder, prepared_on_spark
from variseq.events.spark_session import TABLE, open_spark, spark_failures
from variseq.inference.spark_answers import INPUT_ROW, opened, recommended
from variseq.output.console import console
from variseq.output.printable import printable
from variseq.ranking.options import RecommendOptions
from variseq.terminal.recommend_options import recommend_options

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

OWN = ("run", "engine", "histories", "out")
URI = re.compile(r"[a-z][a-z0-9+.-]+:/")
"""How a path of another file system begins; without it a path is one of this machine."""


def recommend_table(run: Path, typed: dict[str, Any]) -> None:
    """Write the recommendations for everybody in a table of events, and print how many rows there are.

    `typed` has all options of the command. Raises InputError for one that Spark does not take, for a table that cannot
    be read, for an output that exists, and where Spark cannot be started.
    """
    histories, out = typed["histories"], typed["out"]
    if typed["engine"] != "spark" or histories is None or out is None:
        raise InputError(
            f"--engine {typed['engine']} is not possible so. Give --engine spark --histories TABLE --out TABLE "
            "together, or none of --engine and --histories."
        )
    others = typed.keys() - {*OWN, *(one.name for one in fields(RecommendOptions))}
    unset: dict[str, Any] = {"workers": 1}
    if given := sorted(name for name in others if typed[name] and typed[name] != unset.get(name)):
        raise InputError(
            f"--{given[0].replace('_', '-')} is not for --engine spark, which answers everybody in --histories. Leave "
            "it out."
        )
    if not out.startswith(TABLE) and not URI.match(out):
        refuse_existing(Path(out))
    engine = opened(run)
    options = recommend_options(typed, engine.vocabulary)
    with open_spark() as spark, spark_failures():
        answers = recommended(engine, run, table_of(spark, histories), options)
        _write(answers, out)
        num_rows = table_of(spark, out).count()
    console().print(f"{num_rows:,} rows: {printable(out)}", soft_wrap=True)


def table_of(spark: SparkSession, named: str) -> DataFrame:
    """A table of the catalog, a prepared dataset, or the Parquet files of a path with the order of their rows."""
    if named.startswith(TABLE):
        return spark.table(named.removeprefix(TABLE))
    if (folder := prepared_folder(named)) is not None:
        return prepared_on_spark(spark, folder)
    rows = spark.read.parquet(_located(named))
    if INPUT_ROW in rows.columns:
        return rows
    return rows.selectExpr("*", f"struct(_metadata.file_path, _metadata.row_index) AS {INPUT_ROW}")


def _located(path: str) -> str:
    return path if URI.match(path) else f"file://{Path(path).absolute()}"


def _write(answers: DataFrame, out: str) -> None:
    """Write a table, a folder of this machine (whole or not at all), or one of another file system, as Spark does."""
    if out.startswith(TABLE):
        answers.write.saveAsTable(out.removeprefix(TABLE))
    elif URI.match(out):
        answers.write.parquet(out)
    else:
        with atomic_directory(Path(out)) as unfinished:
            answers.write.mode("append").parquet(_located(str(unfinished)))
