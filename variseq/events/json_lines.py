"""JSON lines: the keys of every line, dotted paths into nested objects, and lists within a line that hold the events.

A line is split by the JSON functions of the database, so that a broken one is kept as text and counted, not skipped.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import duckdb

from variseq.errors import InputError
from variseq.events.delimited import lines_of, survey
from variseq.events.header import decoded_head
from variseq.events.session import Session, insert_from_text, literal_path, name_in_sql, text_in_sql
from variseq.events.sources import DataFile, is_gzip
from variseq.events.table import Columns

_LINES = (
    "auto_detect=false, header=false, delim='\x01', quote='', escape='', strict_mode=false, columns={'line': 'VARCHAR'}"
)
_MAX_NESTED_SHARE = 0.5  # of the rows: with more, the column is another one
# NaN and Infinity, which Python writes but JSON lacks, get quotes.
_WITH_QUOTED_NAN = (
    "CASE WHEN (contains(line, 'NaN') OR contains(line, 'Infinity')) AND NOT json_valid(line) "
    r"""THEN regexp_replace(line, '([^\\]"\s*:\s*)(NaN|-?Infinity)(\s*[,}])', '\1"\2"\3', 'g') ELSE line END"""
)
# How exports of MongoDB write one value as an object.
_WRAPPED = ("$oid", "$numberLong", "$numberInt", "$numberDouble", "$numberDecimal", "$date")


@dataclass(frozen=True)
class Keys:
    """The keys of all lines in order of appearance; `lists` and `objects` are those that hold nested ones."""

    names: list[str]
    lists: dict[str, list[str]]
    objects: dict[str, list[str]]

    def hint(self) -> str:
        """What a reader has to know to name a nested column; empty where nothing is nested."""
        shown = [f"{name}.{inner[0]}" for name, inner in {**self.lists, **self.objects}.items() if inner]
        if not shown:
            return ""
        return f" Some keys hold nested ones: name these with dots, as in {', '.join(shown[:4])}."


def refuse_no_objects(file: DataFile) -> None:
    """Raises InputError when the head of a file has no line that begins as a JSON object does."""
    head = decoded_head(file).lstrip("\ufeff \n\t")
    if head.startswith("["):
        raise InputError(
            f"{file.name} is one JSON array. One JSON object a line is needed (JSON lines). DuckDB reads it in Python: "
            f"variseq.read(duckdb.sql(\"FROM read_json('{file.name}')\"))."
        )
    if not any(line.lstrip().startswith("{") for line in head.split("\n")[:1000]):
        raise InputError(f"{file.name} has no JSON object in its first lines. One JSON object a line is needed.")
    if head.startswith("{\n"):
        raise InputError(
            f"{file.name} holds JSON objects of several lines each. One JSON object a line is needed (JSON lines): "
            f"jq -c . {file.name} > lines.jsonl."
        )


def ingest_lines(session: Session, files: Sequence[DataFile]) -> None:
    """All lines of JSON files in `lines`; those that are no text go to `malformed`."""
    session.run("CREATE TABLE lines (input_row BIGINT, file_index INT, line VARCHAR, is_object BOOLEAN)")
    for index, file in enumerate(files):
        refuse_no_objects(file)
        before = session.number("SELECT coalesce(max(input_row), 0) FROM lines")
        compression = "gzip" if is_gzip(file.path) else "none"
        statement = (
            "INSERT INTO lines SELECT input_row, ?, line, CASE WHEN json_valid(line) THEN "
            "json_type(line) = 'OBJECT' ELSE false END FROM (SELECT row_number() OVER () + ? AS input_row, "
            f"{_WITH_QUOTED_NAN} AS line FROM read_csv(?, {_LINES}, store_rejects=true, compression='{compression}'))"
        )
        try:
            insert_from_text(session, statement, [index, before, literal_path(file.path)], index, before, 0)
        except duckdb.OutOfMemoryException:
            raise
        except duckdb.Error as error:
            raise InputError(f"{file.name} cannot be read as JSON lines: {str(error).splitlines()[0]}") from error


def check_line_counts(session: Session, files: Sequence[DataFile]) -> None:
    """As many lines as an independent count of the bytes of each file finds."""
    both = "SELECT file_index FROM lines UNION ALL SELECT file_index FROM malformed"
    for index, file in enumerate(files):
        counted = survey(file).num_lines
        read = session.number(f"SELECT count(*) FROM ({both}) WHERE file_index = ?", [index])
        if counted != read:
            raise InputError(
                f"{file.name}: {counted:,} lines were counted and {read:,} were read; they part at row "
                f"{_first_difference(session, file, index):,}. Write one JSON object a line, with plain line ends."
            )


def _first_difference(session: Session, file: DataFile, index: int) -> int:
    """The first row whose text was not read as it is in the file; lines that are no text are in neither."""
    shown = 1_000
    statement = "SELECT left(line, ?) FROM lines WHERE file_index = ? ORDER BY input_row"
    read = (str(line) for (line,) in session.rows(statement, [shown, index]))
    row = 0
    for line in lines_of(file):
        if not line.strip():
            continue
        row += 1
        is_text = line.encode("utf-8", "ignore").decode() == line
        if is_text and line[:shown].replace('"', "") != next(read, "").replace('"', ""):
            break
    return row


def find_keys(session: Session) -> Keys:
    """The keys of the table `lines`, from every line."""
    found = session.rows(
        "SELECT key, first_row FROM (SELECT unnest(json_keys(line)) AS key, min(input_row) AS first_row FROM lines "
        "WHERE is_object GROUP BY key) ORDER BY first_row"
    )
    first = session.rows("SELECT unnest(json_keys(line)) FROM (FROM lines WHERE is_object ORDER BY input_row LIMIT 1)")
    names = list(dict.fromkeys(str(key) for key, *_ in first + found))
    lists: dict[str, list[str]] = {}
    objects: dict[str, list[str]] = {}
    nested = session.rows(
        r"SELECT line FROM lines WHERE is_object AND regexp_matches(line, '[\[:,]\s*\{') ORDER BY input_row LIMIT 200"
    )
    for (line,) in nested:
        try:
            entries = json.loads(line)
        except (ValueError, RecursionError):
            continue  # the database reads more than Python does; here only names are gathered
        for name, value in entries.items():
            entry = next((one for one in value if isinstance(one, dict)), None) if isinstance(value, list) else value
            if isinstance(entry, dict) and entry and not set(entry) & set(_WRAPPED):
                (lists if isinstance(value, list) else objects).setdefault(str(name), list(entry))
    return Keys(names, lists, objects)


def exploded_list(keys: Keys, wanted: Iterable[str], explode: str | None) -> str | None:
    """The list of each line whose elements are the events: the one set, or the one that dotted names go through.

    Raises InputError when names go through two lists, or the one set is none.
    """
    through = {name.split(".")[0] for name in wanted if name not in keys.names} & set(keys.lists)
    if explode is not None and explode not in keys.lists:
        raise InputError(
            f"explode={explode!r} names no list of objects. Lists here: {', '.join(keys.lists) or 'none'} (--explode)."
        )
    if len(through | ({explode} if explode else set())) > 1:
        raise InputError(
            f"The columns come from two lists within a line ({', '.join(sorted(through))}). Name columns of one list."
        )
    return explode or next(iter(through), None)


def make_records(session: Session, num_files: int, explode: str | None) -> list[int]:
    """Make `records` (input_row, file_index, line, element) of `lines`, and count the rows before each file.

    Without `explode` a line is a record and keeps its number. With it an element of the list is one, elements are
    counted from 1, and a line without any is a broken one. Broken lines go to `malformed`.
    """
    table = "lines" if explode is None else "records"
    if explode is None:
        session.run(
            "CREATE VIEW records AS SELECT input_row, file_index, line, NULL AS element FROM lines WHERE is_object"
        )
        session.run(
            "INSERT INTO malformed SELECT input_row, 0, file_index, 'not a JSON object', left(line, 10000), input_row "
            "FROM lines WHERE NOT is_object"
        )
    else:
        path = pointer(explode)
        session.run(
            "CREATE TABLE elements AS SELECT input_row AS line_row, file_index, line, "
            "unnest(list) AS element, generate_subscripts(list, 1) AS element_index FROM (SELECT *, "
            "CAST(CASE WHEN json_type(line, ?) = 'ARRAY' THEN json_extract(line, ?) END AS JSON[]) AS list "
            "FROM lines WHERE is_object)",
            [path, path],
        )
        session.run(
            "CREATE TABLE records AS SELECT row_number() OVER (ORDER BY line_row, element_index) AS input_row, * "
            "FROM elements"
        )
        session.run(
            "INSERT INTO malformed SELECT rows_until, 1, file_index, CASE WHEN is_object THEN 'no element in the list' "
            "ELSE 'not a JSON object' END, left(line, 10000), input_row FROM (SELECT lines.*, num_elements, "
            "CAST(sum(coalesce(num_elements, 0)) OVER (ORDER BY input_row) AS BIGINT) AS rows_until FROM lines "
            "LEFT JOIN (SELECT line_row, count(*) AS num_elements FROM elements GROUP BY line_row) "
            "ON line_row = input_row) WHERE num_elements IS NULL"
        )
    before = f"SELECT coalesce(max(input_row), 0) FROM {table} WHERE file_index < ?"
    return [session.number(before, [file_index]) for file_index in range(num_files)]


def extract(
    session: Session, columns: Mapping[str, str], keys: Keys, explode: str | None, files: Sequence[DataFile]
) -> None:
    """Make `raw` of `records`: text and JSON type of the wanted columns. Raises InputError for a nested one."""
    partitions = _make_partitions(session, files)
    sources = {column: _source_of(name, keys, explode) for column, name in columns.items()}
    texts = {column: f"json_extract_string({source}, {path})" for column, (source, path) in sources.items()}
    kinds = {column: f"json_type({source}, {path})" for column, (source, path) in sources.items()}
    for column in sources:
        if columns[column] in partitions:
            key = text_in_sql(columns[column])
            value = f"(SELECT value FROM partitions AS p WHERE p.file_index = records.file_index AND key = {key})"
            texts[column] = f"coalesce({texts[column]}, {value})"
            kinds[column] = f"coalesce({kinds[column]}, 'VARCHAR')"
    _make_raw(session, texts, kinds)
    nested = [
        column
        for column in columns
        if session.rows(f"SELECT 1 FROM raw WHERE {name_in_sql(column + '_type')} IN ('OBJECT', 'ARRAY') LIMIT 1")
    ]
    for column in nested:
        texts[column], kinds[column] = _unwrapped(session, columns[column], *sources[column], column)
    if nested:
        session.drop("raw")
        _make_raw(session, texts, kinds)


def _make_partitions(session: Session, files: Sequence[DataFile]) -> set[str]:
    """`partitions`: the columns that the folders above each file set. Returns their keys."""
    session.run("CREATE OR REPLACE TABLE partitions (file_index INT, key VARCHAR, value VARCHAR)")
    for index, file in enumerate(files):
        for key, value in file.partition.items():
            session.run("INSERT INTO partitions VALUES (?, ?, ?)", [index, key, value])
    return {key for file in files for key in file.partition}


def _make_raw(session: Session, texts: Mapping[str, str], kinds: Mapping[str, str]) -> None:
    fields = [f"{text} AS {name_in_sql(column)}" for column, text in texts.items()]
    fields += [f"{kind} AS {name_in_sql(column + '_type')}" for column, kind in kinds.items()]
    session.run(f"CREATE TABLE raw AS SELECT input_row, {', '.join(fields)} FROM records")


def _unwrapped(session: Session, name: str, source: str, path: str, column: str) -> tuple[str, str]:
    """The one value within an object of MongoDB's export. Lists and text of items pass as JSON text.

    A list or another object is no id and no time: its row has none. Raises InputError when most rows hold such.
    """
    pointers = [path[:-1] + f"/{key}'" for key in _WRAPPED] + [path[:-1] + "/$date/$numberLong'"]
    inner = ", ".join(
        f"CASE WHEN json_type({source}, {one}) NOT IN ('OBJECT', 'ARRAY') THEN json_extract_string({source}, {one}) END"
        for one in pointers
    )
    kind, text = f"json_type({source}, {path})", f"coalesce({inner}, json_extract_string({source}, {path}))"
    if column in Columns.REQUIRED:
        is_nested = f"({kind} IN ('OBJECT', 'ARRAY') AND coalesce({inner}) IS NULL)"
        _check_nested(session, name, column, kind, text, is_nested)
        text = f"CASE WHEN NOT coalesce({is_nested}, false) THEN {text} END"
        kind = f"CASE WHEN {is_nested} THEN 'NULL' ELSE {kind} END"
    return (
        text,
        f"CASE WHEN coalesce({inner}) IS NULL THEN {kind} "
        f"WHEN json_type({source}, {pointers[1]}) IS NOT NULL OR json_type({source}, {pointers[2]}) IS NOT NULL "
        f"THEN 'BIGINT' ELSE 'VARCHAR' END",
    )


def _check_nested(session: Session, name: str, column: str, kind: str, text: str, is_nested: str) -> None:
    num_filled, num_lists, num_objects, row, example = session.row(
        f"SELECT count(*) FILTER (WHERE {kind} <> 'NULL'), count(*) FILTER (WHERE {kind} = 'ARRAY'), "
        f"count(*) FILTER (WHERE {is_nested} AND {kind} = 'OBJECT'), min(input_row) FILTER (WHERE {is_nested}), "
        f"arg_min({text}, input_row) FILTER (WHERE {is_nested}) FROM records"
    )
    num_nested = num_lists + num_objects
    if num_nested <= _MAX_NESTED_SHARE * num_filled:
        if num_nested:
            session.notes.append(
                f"{num_nested:,} rows hold a list or an object in {name!r}, which is none there (first: row {row}: "
                f"{str(example)[:60]!r})"
            )
        return
    if num_lists >= num_objects:
        raise InputError(
            f"Column {name!r} holds lists. Name the list and what stands in it: explode={name!r} (--explode {name}), "
            f"or make one row an element with DuckDB: SELECT * EXCLUDE ({name}), unnest({name}) FROM 'file.jsonl'."
        )
    raise InputError(
        f"Column {name!r} holds nested objects such as {str(example)[:60]!r}. Name the key within with a dot: "
        f"columns={{{column!r}: '{name}.…'}} (--columns {column}={name}.…)."
    )


def _source_of(name: str, keys: Keys, explode: str | None) -> tuple[str, str]:
    """Where a column is: in the line or in the element of its list, and the pointer there, as SQL."""
    if name in keys.names:
        return "line", text_in_sql(pointer(name))
    first, *rest = name.split(".")
    if first == explode:
        return "element", text_in_sql(pointer(*rest))
    return "line", text_in_sql(pointer(first, *rest))


def pointer(*names: str) -> str:
    """The JSON pointer to a key within keys."""
    return "".join("/" + name.replace("~", "~0").replace("/", "~1") for name in names)
