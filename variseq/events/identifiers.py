"""A column of outside ids becomes SQL that yields them as 64-bit integers or as text, exactly as they came."""

from __future__ import annotations

from variseq.errors import InputError
from variseq.events.workspace import Workspace, name_in_sql

_WHOLE = (
    "TINYINT",
    "SMALLINT",
    "INTEGER",
    "BIGINT",
    "UTINYINT",
    "USMALLINT",
    "UINTEGER",
    "UBIGINT",
    "HUGEINT",
    "UHUGEINT",
)


def read_ids(workspace: Workspace, column: str, name: str, is_text: bool) -> str:
    """SQL for the ids in `column` of `raw`, NULL where there is none. `name` is what the source calls it.

    `is_text` says that the source is a text file: then digits are integers, but only if every id of the column
    is what the integer would be written as ("007" stays text).
    Raises InputError for mixed types, for decimal numbers and for types that are no ids.
    """
    quoted = name_in_sql(column)
    kind = workspace.column_types("raw")[column].split("(")[0]
    if kind == "VARCHAR":
        if not is_text or _any(workspace, f"{_filled(quoted)} AND ({_not_whole(quoted)})"):
            return f"CASE WHEN {_filled(quoted)} THEN {quoted} END"
        return f"TRY_CAST({quoted} AS BIGINT)"
    if kind in _WHOLE:
        if _any(workspace, f"{quoted} IS NOT NULL AND TRY_CAST({quoted} AS BIGINT) IS NULL"):
            raise InputError(f"Ids in {name!r} do not fit into 64 bits. Give them as text.")
        return f"CAST({quoted} AS BIGINT)"
    if kind in ("FLOAT", "DOUBLE", "DECIMAL"):
        number = f"CAST({quoted} AS DOUBLE)"
        if _any(
            workspace, f"NOT isnan({number}) AND (abs({number}) >= 9007199254740992 OR {number} <> floor({number}))"
        ):
            raise InputError(f"Ids in {name!r} are decimal numbers. Give ids as integers or as text.")
        return f"CASE WHEN isnan({number}) THEN NULL ELSE CAST({quoted} AS BIGINT) END"
    if kind in ("ENUM", "UUID"):
        return f"CAST({quoted} AS VARCHAR)"
    if kind in ('"NULL"', "NULL"):
        return "CAST(NULL AS VARCHAR)"
    raise InputError(f"Ids in {name!r} are of type {kind}. Allowed: integers and text.")


def check_json_ids(workspace: Workspace, column: str, name: str) -> bool:
    """Whether the ids of a JSON column are numbers. Raises InputError when some are numbers and some are text."""
    kinds = {
        str(kind)
        for (kind,) in workspace.rows(f"SELECT DISTINCT {name_in_sql(column + '_type')} FROM raw")
        if kind not in (None, "NULL")
    }
    numbers = kinds & {"BIGINT", "UBIGINT"}
    texts = kinds & {"VARCHAR"}
    other = kinds - numbers - texts
    if other:
        raise InputError(f"Ids in {name!r} are of JSON type {', '.join(sorted(other))}. Allowed: integers and text.")
    if numbers and texts:
        raise InputError(f"Ids in {name!r} have mixed id types: some are numbers, some text. Write all of them alike.")
    return bool(numbers)


def _filled(quoted: str) -> str:
    return f"coalesce(trim({quoted}) <> '', false)"


def _not_whole(quoted: str) -> str:
    return f"coalesce(CAST(TRY_CAST({quoted} AS BIGINT) AS VARCHAR) <> {quoted}, true)"


def _any(workspace: Workspace, condition: str) -> bool:
    return bool(workspace.rows(f"SELECT 1 FROM raw WHERE {condition} LIMIT 1"))
