"""The command `prepare`: a log, read and cleaned once, as a dataset for `fit` and `check`."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from variseq.errors import InputError
from variseq.events.spark_session import TABLE, open_spark, spark_failures
from variseq.output.printable import printable, printable_lines
from variseq.terminal.read_options import ReadFlags, events_source, takes_read_options

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from pyspark.sql import SparkSession

commands = typer.Typer(rich_markup_mode=None)


@commands.command()
@takes_read_options
def prepare(
    source: Annotated[
        list[str], typer.Argument(help="Event files, as for fit; with Spark also table:NAME, a table that Spark knows.")
    ],
    read: ReadFlags,
    out: Annotated[Path, typer.Option(help="Folder for the dataset; must not exist yet.")],
    engine: Annotated[str, typer.Option(help="duckdb, on this machine, or spark.")] = "duckdb",
) -> None:
    """Read and clean a log once, and write it as a dataset that fit and check take in its place."""
    from variseq.events.read import prepare as prepare_log
    from variseq.terminal.run_config import run_config

    options = run_config(None, read, []).read
    given = source[0] if len(source) == 1 else source
    with _session(engine) as spark, events_source(given) as events:
        report = prepare_log(_table(spark, events), out, options, spark)
    typer.echo(f"{printable_lines(str(report))}\nDataset: {printable(out)}")


def _session(engine: str) -> AbstractContextManager[SparkSession | None]:
    """The session of Spark, or none. Raises InputError for an unknown engine."""
    if engine == "duckdb":
        return nullcontext()
    if engine != "spark":
        raise InputError(f"There is no engine {engine!r}. Allowed: duckdb, spark.")
    return open_spark()


def _table(spark: SparkSession | None, source: str | list[str]) -> Any:
    """A table of Spark, or the source itself. Raises InputError for a table without Spark or with other sources."""
    given = [source] if isinstance(source, str) else source
    if not any(one.startswith(TABLE) for one in given):
        return source
    if spark is None or len(given) > 1:
        raise InputError(f"{TABLE}NAME is a table that Spark knows. Give it alone, with --engine spark.")
    with spark_failures():
        return spark.table(given[0].removeprefix(TABLE))
