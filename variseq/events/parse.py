"""The table `raw` becomes `parsed`: typed ids, UTC microseconds, behaviour, value, and a reason where invalid."""

from __future__ import annotations

from variseq.errors import InputError
from variseq.events.identifiers import check_json_ids, read_ids
from variseq.events.options import TimeUnit
from variseq.events.stage import Staged
from variseq.events.table import Columns
from variseq.events.time_unit import LATEST_MICROSECONDS, TimeReading, read_time
from variseq.events.vocabulary import MAX_ID_BYTES
from variseq.events.workspace import Workspace, name_in_sql

DEFAULT_EVENT = "event"  # the behaviour of an event that names none
_LARGEST_VALUE = 3.4028234e38  # values are kept as 32-bit floats


def parse(workspace: Workspace, staged: Staged, unit: TimeUnit) -> str:
    """Make `parsed` and return the words that say what the times were taken for."""
    ids = {}
    for column in (Columns.USER, Columns.ITEM):
        is_text = staged.is_text
        if staged.kind == "jsonl":
            is_text = check_json_ids(workspace, column, staged.columns[column])
        ids[column] = read_ids(workspace, column, staged.columns[column], is_text)
    time = read_time(workspace, Columns.TIME, unit)
    value, missing_value = _value(workspace, staged)
    workspace.run(
        f"""
        CREATE TABLE parsed AS
        SELECT input_row, user_id, item_id, time_us, event, value,
            CASE
                WHEN user_id IS NULL THEN 'missing user'
                WHEN item_id IS NULL THEN 'missing item'
                WHEN strlen(CAST(user_id AS VARCHAR)) > {MAX_ID_BYTES} THEN 'too long user'
                WHEN strlen(CAST(item_id AS VARCHAR)) > {MAX_ID_BYTES} THEN 'too long item'
                WHEN time_missing THEN 'missing time'
                WHEN time_us IS NULL THEN 'unparsable time'
                WHEN time_us < 0 OR time_us >= {LATEST_MICROSECONDS} THEN 'absurd time'
                WHEN value IS NULL AND NOT value_missing THEN 'unparsable value'
                WHEN isnan(value) OR abs(value) > {_LARGEST_VALUE!r} THEN 'non-finite value'
            END AS reason
        FROM (
            SELECT input_row, {ids[Columns.USER]} AS user_id, {ids[Columns.ITEM]} AS item_id,
                {time.missing} AS time_missing, {_time(time)} AS time_us,
                {_event(staged)} AS event, {value} AS value, {missing_value} AS value_missing
            FROM raw
        )
        """
    )
    return time.words


def _time(time: TimeReading) -> str:
    return f"CASE WHEN NOT ({time.missing}) THEN {time.microseconds} END"


def _event(staged: Staged) -> str:
    if Columns.EVENT not in staged.columns:
        return f"'{DEFAULT_EVENT}'"
    text = f"CAST({name_in_sql(Columns.EVENT)} AS VARCHAR)"
    return f"CASE WHEN coalesce(trim({text}), '') = '' THEN '{DEFAULT_EVENT}' ELSE trim({text}) END"


def _value(workspace: Workspace, staged: Staged) -> tuple[str, str]:
    """SQL of the value, and of whether there is none."""
    if Columns.VALUE not in staged.columns:
        return "CAST(NULL AS DOUBLE)", "true"
    column = name_in_sql(Columns.VALUE)
    kind = workspace.column_types("raw")[Columns.VALUE].split("(")[0]
    if kind == "VARCHAR":
        return f"TRY_CAST(trim({column}) AS DOUBLE)", f"coalesce(trim({column}) = '', true)"
    if kind in ("DATE", "TIME", "BLOB") or kind.startswith("TIMESTAMP") or kind.endswith("]"):
        raise InputError(
            f"The value column {staged.columns[Columns.VALUE]!r} is of type {kind}. It must hold numbers; "
            "leave it out with columns={'value': ''} (--columns value=)."
        )
    return f"CAST({column} AS DOUBLE)", f"{column} IS NULL"
