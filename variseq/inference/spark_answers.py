"""Recommendations for a Spark table of events: each partition has whole users and an exported model, without torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from functools import lru_cache, partial
from pathlib import Path
from time import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from variseq.artifacts.catalog_changes import read_changes
from variseq.errors import CheckpointError, InputError
from variseq.events.table import Columns
from variseq.inference.engine import load_engine
from variseq.ranking.changed_engine import ChangeableEngine
from variseq.ranking.engine import NO_HISTORY, Engine
from variseq.ranking.known_users import USERS_AT_ONCE, recommend_histories
from variseq.ranking.options import RecommendOptions
from variseq.sequences.given_history import LARGEST_VALUE, NOW, as_histories, latest_time
from variseq.sequences.histories import Histories
from variseq.threads import use_threads

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

MICROS, INPUT_ROW = "time_us", "input_row"
TIMES: Mapping[str, str] = {
    "timestamp": "unix_micros(timestamp)",
    "timestamp_ntz": "timestampdiff(MICROSECOND, TIMESTAMP_NTZ '1970-01-01 00:00:00', timestamp)",
    **{kind: "timestamp * 1000000L" for kind in ("int", "bigint")},
    **{kind: "CAST(round(timestamp * 1e6) AS BIGINT)" for kind in ("float", "double")},
}
"""UTC microseconds by Spark's name of the type of the times; numbers are seconds since 1970."""
WHOLE = ("tinyint", "smallint", "int", "bigint")


def recommend_on_spark(
    folder: Path | str, histories: DataFrame, options: RecommendOptions | None = None, **fields: Any
) -> DataFrame:
    """Recommendations for everybody in a Spark table of events, computed where the partitions are.

    The answers are those of `VariationalAttention.recommend` for the same events, without an index.

    Args:
        folder: What `variseq export` wrote, at a path that all machines read.
        histories: One row an event: user_id, item_id, timestamp (a time, or seconds since 1970) and, where there are
            any, event and value. Events of one time are in the order of a column input_row, otherwise of their ids.
        options: See `RecommendOptions`.
        **fields: Fields of `RecommendOptions` by name, such as k=5.

    Returns:
        One row for each user and rank, with the columns of `Recommendations.to_arrow`; computed when it is used.

    Raises:
        CheckpointError: For a folder that is missing, damaged or not exported.
        InputError: For missing columns, columns of another type, and options that are not possible.
    """
    return recommended(opened(Path(folder)), folder, histories, RecommendOptions.of(options, fields))


def recommended(engine: Engine, folder: Path | str, histories: DataFrame, options: RecommendOptions) -> DataFrame:
    """`recommend_on_spark` with the engine of the folder."""
    from pyspark.sql.pandas.types import from_arrow_schema

    if options.at == NOW:  # the same moment in all partitions
        options = replace(options, at=datetime.fromtimestamp(time(), UTC))
    empty = as_histories([], engine.vocabulary, engine.usual_behavior, engine.visit_gap)[0]
    schema = engine.recommend(empty, [None], [NO_HISTORY], options).to_arrow().schema
    answer = partial(answers, str(folder), engine.version, options)
    return events_by_user(histories, engine).mapInArrow(answer, from_arrow_schema(schema))


def opened(folder: Path) -> Engine:
    """An exported model under the changes of its catalog, which looks at all items. Raises CheckpointError."""
    return ChangeableEngine(load_engine(folder, exact=True)).engine(read_changes(folder))


def events_by_user(histories: DataFrame, engine: Engine) -> DataFrame:
    """The events with whole users in each partition, oldest first. Raises InputError for columns that do not fit."""
    types = dict(histories.dtypes)
    if missing := [name for name in Columns.REQUIRED if name not in types]:
        raise InputError(
            f"The histories have no column {missing[0]}; they have {', '.join(types)}. Rename the columns: "
            f"{', '.join((*Columns.REQUIRED, Columns.EVENT, Columns.VALUE))}, of which the last two may be missing."
        )
    if types[Columns.TIME] not in TIMES:
        raise InputError(
            f"The column timestamp is {types[Columns.TIME]}. Allowed: {', '.join(TIMES)}; numbers are seconds since "
            "1970."
        )
    ids = []
    for name, known in ((Columns.USER, engine.vocabulary.users), (Columns.ITEM, engine.vocabulary.items)):
        is_whole = pa.types.is_integer(known.type)
        if (types[name] in WHOLE) != is_whole or not (is_whole or types[name] == "string"):
            kind = "integers" if is_whole else "text"
            raise InputError(
                f"The column {name} is {types[name]}, and the ids of this model are {kind}. Cast the column."
            )
        ids.append(f"CAST({name} AS {'BIGINT' if is_whole else 'STRING'}) AS {name}")
    event, value = (
        f"CAST({name if name in types else 'NULL'} AS {kind}) AS {name}"
        for name, kind in ((Columns.EVENT, "STRING"), (Columns.VALUE, "DOUBLE"))
    )
    row = [INPUT_ROW] if INPUT_ROW in types else []
    order = row or [Columns.ITEM, Columns.EVENT, Columns.VALUE]
    chosen = histories.selectExpr(*ids, f"{TIMES[types[Columns.TIME]]} AS {MICROS}", event, value, *row)
    ordered = chosen.repartition(Columns.USER).sortWithinPartitions(Columns.USER, MICROS, *order)
    return ordered.drop(INPUT_ROW)


def answers(
    folder: str, version: str, options: RecommendOptions, batches: Iterator[pa.RecordBatch]
) -> Iterator[pa.RecordBatch]:
    """The recommendations for one partition of `events_by_user`; the work of one task.

    Raises InputError for events that cannot be, and CheckpointError where this machine has another model.
    """
    use_threads(1)
    engine = _of_worker(folder, version)
    for events in whole_users(map(_checked, batches)):
        ids, histories = _histories(events, engine)
        fallback = [None if length else NO_HISTORY for length in histories.lengths.tolist()]
        for first in range(0, len(ids), USERS_AT_ONCE):
            part = slice(first, first + USERS_AT_ONCE)
            some = histories.rows(np.arange(len(ids))[part])
            yield from recommend_histories(engine, some, ids[part], fallback[part], options).to_arrow().to_batches()


def whole_users(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.Table]:
    """The rows of batches that are ordered by user, cut between users; at most a batch and one user are held.

    >>> batches = [pa.record_batch({"user_id": ids}) for ids in ([1, 1, 2], [2], [2, 3])]
    >>> [table["user_id"].to_pylist() for table in whole_users(iter(batches))]
    [[1, 1], [2, 2, 2], [3]]
    """
    kept: list[pa.RecordBatch] = []
    for batch in batches:
        if not batch.num_rows:
            continue
        user = batch.column(Columns.USER)
        cut = pc.index(user, user[-1]).as_py()
        if cut or (kept and kept[-1].column(Columns.USER)[-1] != user[-1]):
            yield pa.Table.from_batches([*kept, batch.slice(0, cut)])
            kept = []
        kept.append(batch.slice(cut))
    if kept:
        yield pa.Table.from_batches(kept)


@lru_cache(maxsize=1)
def _of_worker(folder: str, version: str) -> Engine:
    """The model of this process, which several tasks may use."""
    engine = opened(Path(folder))
    if engine.version != version:
        raise CheckpointError(
            f"{folder} is version {engine.version} on a worker and {version} on the driver. Copy the export again."
        )
    return engine


def _checked(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The batch. Raises InputError for a missing id, and for a time or a value that cannot be."""
    for name in (Columns.USER, Columns.ITEM, MICROS):
        if batch.column(name).null_count:
            shown = Columns.TIME if name == MICROS else name
            raise InputError(f"The histories have a row without {shown}. Leave such rows out.")
    time_us, value = batch.column(MICROS), batch.column(Columns.VALUE)
    if batch.num_rows and not 0 <= pc.min(time_us).as_py() <= pc.max(time_us).as_py() <= latest_time():
        raise InputError(
            "The histories have a timestamp before 1970 or more than a day in the future. Numbers are seconds since "
            "1970, not milliseconds."
        )
    if pc.any(pc.greater(pc.abs(value), LARGEST_VALUE)).as_py():
        raise InputError(f"The histories have a value above {LARGEST_VALUE:g}. Leave it out.")
    return batch


def _histories(events: pa.Table, engine: Engine) -> tuple[list[Any], Histories]:
    """The ids of the users and their histories, as the model reads them; unknown items are left out."""
    user = events.column(Columns.USER).combine_chunks()
    ends = np.append(np.flatnonzero(pc.not_equal(user[1:], user[:-1])) + 1, len(user))
    names = (Columns.ITEM, MICROS, Columns.EVENT, Columns.VALUE)
    rows = list(zip(*(events.column(name).to_pylist() for name in names), strict=True))
    read = as_histories(rows, engine.vocabulary, engine.usual_behavior, engine.visit_gap, ends)
    return user.take(pa.array(ends - 1)).to_pylist(), read[0]
