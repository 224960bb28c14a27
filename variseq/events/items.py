"""Tables of items and users, aligned with the vocabulary of a log."""

from __future__ import annotations

import ast
import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float, Int

from variseq.errors import CheckpointError, InputError
from variseq.events.columns import ITEM_ALIASES, Wanted, find_layout
from variseq.events.coordinates import degrees_of
from variseq.events.frames import Frame
from variseq.events.hierarchy import LEVEL_MARK, nodes_of
from variseq.events.identifiers import EXACT_NULL_WORDS, NULL_WORDS, read_ids, read_text_cells, trimmed
from variseq.events.ingest import Ingested, ingest
from variseq.events.options import ReadOptions
from variseq.events.session import Session, name_in_sql, open_session, text_in_sql
from variseq.events.sources import Files, open_source
from variseq.events.table import Columns
from variseq.events.vocabulary import Id, Vocabulary, write_parquet

_LABEL = "the items file"
_OWN = b"variseq."  # begins the keys of metadata that Variseq writes
_MAX_WITHOUT_ROW = 0.5  # of the items of a log: with more, ids may be spelled in two ways
_DOUBTFUL = (";", ",")  # also found within the name of one category ("Clothing, Shoes & Jewelry")
_MIN_SHARE = 0.5
_NAMES = ("name", "title", "label")  # the keys of an object that name it
_QUOTED = re.compile(r"""('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")(\s+(?=['"]))?""", re.DOTALL)
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?")
_WHOLE = re.compile(r"0|-?[1-9][0-9]{0,17}")
_IN_WORDS = {"[": "lists in brackets", "|": "'|'", ">": "'>' between levels", ";": "';'", ",": "commas"}


def split_categories(entries: Sequence[object]) -> tuple[list[list[str]], list[str]]:
    """The categories of each entry, and notes on how texts were divided.

    Lists, lists in brackets (JSON, Python or numpy) and `A|B` are divided, `A > B` into its levels. Lists within lists
    are made flat, and of objects the name (or title, or label) is taken. `A, B` and `A;B` are divided when in at least
    half of such texts every part is found in another text of the column as well. An entry has each category once.
    Where all categories are numbers, whole ones are written without decimals.

    >>> split_categories(["Action, Drama", "Drama", "Action"])[0]
    [['Action', 'Drama'], ['Drama'], ['Action']]
    >>> split_categories(["Clothing, Shoes & Jewelry", "Garden"])[0]
    [['Clothing, Shoes & Jewelry'], ['Garden']]
    """
    divided: dict[str, list[str]] = {}
    marks: Counter[str] = Counter()
    plain = [entry for entry in entries if entry is not None and not isinstance(entry, list | tuple | dict)]
    for text in dict.fromkeys(map(_category_text, plain)):
        divided[text], mark = _plainly_divided(text)
        marks[mark] += 1
    notes = []
    everywhere = {text: _pieces(parts, "".join(_DOUBTFUL)) for text, parts in divided.items()}
    count = Counter(part for parts in everywhere.values() for part in set(parts))
    for mark in _DOUBTFUL:
        containing = [text for text, parts in divided.items() if any(mark in part for part in parts)]
        num_known = sum(all(count[part] > 1 for part in everywhere[text]) for text in containing)
        if containing and num_known >= _MIN_SHARE * len(containing):
            divided |= {text: _pieces(divided[text], mark) for text in containing}
            marks[mark] += len(containing)
        elif containing:
            notes.append(
                f"categories such as {containing[0]!r} were taken as one each; write 'A|B' if they are several"
            )
    found = [words for mark, words in _IN_WORDS.items() if marks[mark]]
    if found and found != ["'|'"]:
        notes.insert(0, f"categories were divided at {' and '.join(found)}")
    parts_of = (
        _named([entry]) if entry is None or isinstance(entry, list | tuple | dict) else divided[_category_text(entry)]
        for entry in entries
    )
    of_entries = [list(dict.fromkeys(parts)) for parts in parts_of]
    nameless = next((part for parts in of_entries for part in parts if part[:1] == "{"), None)
    if nameless is not None:
        notes.append(f"categories such as {nameless[:60]!r} have no name, title or label and were taken as one each")
    if all(_NUMBER.fullmatch(part) for parts in of_entries for part in parts):
        of_entries = [list(dict.fromkeys(re.sub(r"\.0+$", "", part) for part in parts)) for parts in of_entries]
    return of_entries, notes


def _category_text(entry: object) -> str:
    if isinstance(entry, float) and entry.is_integer():
        return str(int(entry))
    return str(entry).strip()


def _plainly_divided(text: str) -> tuple[list[str], str]:
    """The parts at a mark that has no other meaning, and the mark (empty for none)."""
    if text[:1] + text[-1:] in ("[]", "()", "{}") and (listed := _listed(text)) is not None:
        return _named(listed), "["
    if "|" in text:
        return _named(text.split("|")), "|"
    if " > " in text:
        return _named(text.split(" > ")), ">"
    return _named([text]), ""


def _listed(text: str) -> list[object] | None:
    """The list or the object that a text writes out; None for another text."""
    # Numpy writes no commas between texts, which Python would join.
    with_commas = _QUOTED.sub(lambda match: match[1] + ("," if match[2] else ""), text)
    for read, written in ((json.loads, text), (ast.literal_eval, with_commas)):
        try:
            value = read(written)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            continue
        if isinstance(value, list | tuple | dict):
            return [value] if isinstance(value, dict) else list(value)
    if text[0] == "[" and '"' not in text and "'" not in text:
        inside = text[1:-1].split()
        is_array = len(inside) > 1 and all(_NUMBER.fullmatch(part) for part in inside)  # [1 2], as numpy writes it
        return list(inside if is_array else text[1:-1].split(","))  # [Action, Drama]
    return None


def _pieces(parts: Sequence[str], marks: str) -> list[str]:
    return [piece.strip() for part in parts for piece in re.split(f"[{marks}]", part) if piece.strip()]


def _named(parts: Sequence[object]) -> list[str]:
    texts = [_category_text(part) for part in _flat(parts) if part is not None]
    return [text for text in texts if text.lower() not in NULL_WORDS and text not in EXACT_NULL_WORDS]


def _flat(parts: Sequence[object]) -> Iterator[object]:
    """The values of lists within lists, and the names of objects."""
    for part in parts:
        if isinstance(part, list | tuple):
            yield from _flat(part)
        elif isinstance(part, dict):
            name = next((part[key] for key in _NAMES if part.get(key) is not None), None)
            yield json.dumps(part, default=str, ensure_ascii=False) if name is None else name
        else:
            yield part


# What programs write for no title, in their own case of letters: an item may be called None or Nan.
_NO_TITLE = ("", "\\N", "NaN", "nan", "NULL", "null", "<NA>", "#N/A", "(null)", "<null>", "#NULL!")
_TITLE = f"CAST({Columns.TITLE} AS VARCHAR)"
_TITLE_SQL = (
    f"CASE WHEN {trimmed(_TITLE)} NOT IN ({', '.join(map(text_in_sql, _NO_TITLE))}) THEN {_TITLE} END "
    f"AS {Columns.TITLE}"
)


@dataclass(frozen=True, eq=False)
class CategoryLinks:
    """The categories of item i are `category[offsets[i]:offsets[i + 1]]`, numbered from 0."""

    offsets: Int[np.ndarray, " item_plus_one"]
    category: Int[np.ndarray, " link"]
    names: tuple[str, ...]

    @property
    def num_categories(self) -> int:
        return len(self.names)

    @property
    def weight(self) -> Float[np.ndarray, " link"]:
        """What each link counts: 1 for a node of a tree, whose vectors are summed; of other categories the mean."""
        parents = {LEVEL_MARK.join(levels[:-1]) for levels in (name.split(LEVEL_MARK) for name in self.names)}
        is_node = np.array([LEVEL_MARK in name or name in parents for name in self.names], dtype=bool)[self.category]
        item = np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))
        num_others = np.bincount(item[~is_node], minlength=len(self.offsets))
        weight: Float[np.ndarray, " link"] = np.where(is_node, 1.0, 1 / np.maximum(num_others[item], 1)).astype("f4")
        return weight


@dataclass(frozen=True, eq=False)
class ItemTable:
    """One row an item of the vocabulary, in its order: title (text or null), category (list of text), further columns.

    `num_left_out` counts rows whose item is not in the log, `num_without_row` items of the log that have no row.
    """

    table: pa.Table
    num_left_out: int = 0
    num_without_row: int = 0

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def titles(self, positions: Iterable[int] | Int[np.ndarray, " position"]) -> list[str | None]:
        """Titles of items; None where there is none."""
        return self._take(Columns.TITLE, positions)

    def categories(self, positions: Iterable[int] | Int[np.ndarray, " position"]) -> list[tuple[str, ...]]:
        """Categories of items; empty where there is none."""
        return [tuple(categories or ()) for categories in self._take(Columns.CATEGORY, positions)]

    def all_categories(self) -> list[tuple[str, ...]] | None:
        """The categories of every item; None where no item has one."""
        of_items = self.categories(range(len(self)))
        return of_items if any(of_items) else None

    def _linked_categories(self) -> tuple[str, ...]:
        """The categories that distinguish items.

        A category of a single item adds nothing to the item itself; one of most items distinguishes none.
        """
        of_items = self.categories(range(len(self)))
        count = Counter(category for categories in of_items for category in set(categories))
        used = sorted(name for name, num_items in count.items() if 2 <= num_items <= len(self) / 2)
        return tuple(used)

    def category_links(self, names: tuple[str, ...] | None = None) -> CategoryLinks:
        """Which categories each item has, of those with these names; None: of those that distinguish items."""
        names = self._linked_categories() if names is None else names
        number = {name: index for index, name in enumerate(names)}
        of_items = [sorted(set(categories)) for categories in self.categories(range(len(self)))]
        links = [[number[name] for name in categories if name in number] for categories in of_items]
        offsets = np.cumsum([0, *map(len, links)])
        return CategoryLinks(offsets, np.array([index for one in links for index in one], dtype=np.int64), names)

    def save(self, path: Path | str) -> None:
        write_parquet(self.table, Path(path))

    @classmethod
    def load(cls, path: Path | str) -> ItemTable:
        """Read what `save` wrote. Raises CheckpointError."""
        try:
            table = pq.read_table(path)
        except (OSError, pa.ArrowException) as error:
            raise CheckpointError(f"The item columns in {path} cannot be read ({error}).") from error
        if not {Columns.TITLE, Columns.CATEGORY} <= set(table.column_names):
            raise CheckpointError(f"The item columns in {path} are damaged: title or category is missing.")
        return cls(table)

    def _take(self, column: str, positions: Iterable[int] | Int[np.ndarray, " position"]) -> list[Any]:
        index = positions if isinstance(positions, np.ndarray) else np.array(list(positions), dtype=np.int64)
        taken: list[Any] = self.table.column(column).take(pa.array(index, pa.int64())).to_pylist()
        return taken


def _read_aligned(
    session: Session, source: object, options: ReadOptions, wanted: Wanted, key: str, known: pa.Array, label: str
) -> tuple[pa.Table, bool]:
    """A table of items or users (`label` in messages), its rows in the order of the ids `known` of the log.

    Columns have the names of the source, but those that were looked for, which come first. Also says whether numbers
    came as text. The table `matched_rows` stays in the session.
    """
    opened = open_source(session, source)
    layout = find_layout(session, opened, options, wanted)
    found = layout.find(wanted)
    others = [name for name in layout.names if name not in found.values()]
    if key == Columns.USER and (len(set(layout.names)) < len(layout.names) or key not in layout.names or not others):
        raise InputError(
            f"The table of users has the columns {', '.join(layout.names)}. It needs a column {key!r} and at least "
            "one more to group by, each name once."
        )
    columns = found | {f"other_{index}": name for index, name in enumerate(others)}
    ingested = ingest(session, opened, columns, layout, options)
    _match_rows(session, ingested, key, known, label)
    if not session.number("SELECT count(position) FROM matched_rows"):
        raise InputError(
            f"No id of {label} is in the log: the log has ids like {known[0].as_py()!r}, the table like "
            f"{_first_external_id(session)!r}. Check which column is {key}"
            + (f": {wanted.option}={{{key!r}: ...}}." if wanted.required else ".")
        )
    texts = [_TITLE_SQL if column == Columns.TITLE else name_in_sql(column) for column in columns if column != key]
    table = session.arrow(
        f"SELECT {', '.join(texts) or 'position'} FROM (SELECT CAST(range AS BIGINT) AS position "
        f"FROM range({len(known)})) LEFT JOIN matched_rows USING (position) LEFT JOIN raw USING (input_row) "
        "ORDER BY position"
    )
    kept = {column: table.column(column) for column in found if column != key}
    kept |= {name: table.column(f"other_{index}") for index, name in enumerate(others)}
    return _with_metadata(pa.table(kept), opened), ingested.is_text


def _with_metadata(table: pa.Table, opened: Files | Frame) -> pa.Table:
    """The table with what Variseq wrote about the columns of a Parquet file, such as the encoder of vectors."""
    if isinstance(opened, Frame) or opened.format != "parquet":
        return table
    written = {field.name: field.metadata or {} for field in pq.read_schema(opened.files[0].path)}
    own = {name: {key: text for key, text in found.items() if key.startswith(_OWN)} for name, found in written.items()}
    return table.cast(pa.schema([field.with_metadata(own.get(field.name)) for field in table.schema]))


def _match_rows(session: Session, ingested: Ingested, key: str, known: pa.Array, label: str) -> None:
    """Make `matched_rows` (input_row, external_id, position: NULL where the log lacks the id); equal rows are one."""
    cells = read_text_cells(session, ingested.types, [key])
    num_warnings = len(session.warnings)
    ids = read_ids(session, ingested, key, cells)
    session.notes += session.warnings[num_warnings:]  # here they are notes, for the log decides
    del session.warnings[num_warnings:]
    # The log decides whether ids are integers or text; digits in a text file are written out or read accordingly.
    if pa.types.is_integer(known.type):
        external_id = ids.sql
        same = "TRY_CAST(external_id AS BIGINT) = known.id AND CAST(known.id AS VARCHAR) = CAST(external_id AS VARCHAR)"
    else:
        external_id = cells[key].sql if ingested.is_text else ids.sql
        same = "CAST(external_id AS VARCHAR) = known.id"
    with session.registered("known", pa.table({"id": known, "position": np.arange(len(known))})):
        session.run(
            "CREATE OR REPLACE TABLE matched_rows AS SELECT input_row, external_id, known.position FROM (SELECT "
            f"input_row, {external_id} AS external_id FROM raw WHERE NOT {ids.missing}) LEFT JOIN known ON {same}"
        )
    num_without, num_repeated = session.row(
        "SELECT (SELECT count(*) FROM raw) - count(*), count(*) - count(DISTINCT external_id) FROM matched_rows"
    )
    if num_without:
        session.notes.append(f"{num_without:,} rows of {label} have no id and were left out")
    if num_repeated:
        _drop_equal_rows(session, [column for column in ingested.columns if column != key], key, label)


def _drop_equal_rows(session: Session, columns: Sequence[str], key: str, label: str) -> None:
    cells = "".join(f", CAST({name_in_sql(name)} AS VARCHAR)" for name in columns)
    num_equal = session.number(
        "DELETE FROM matched_rows WHERE input_row NOT IN (SELECT min(input_row) FROM matched_rows "
        f"JOIN raw USING (input_row) GROUP BY external_id{cells})"
    )
    rows = session.rows(
        "SELECT external_id, count(*) FROM matched_rows GROUP BY external_id HAVING count(*) > 1 "
        "ORDER BY min(input_row)"
    )
    if rows:
        shown = ", ".join(f"{external_id!r} ({count} rows)" for external_id, count in rows[:5])
        raise InputError(
            f"{label.capitalize()} has {len(rows)} ids in more than one row: {shown}. Which row is right is unknown: "
            f"keep one row for each {key.removesuffix('_id')}."
        )
    session.notes.append(f"{num_equal:,} rows of {label} equal others and were left out")


def _first_external_id(session: Session, condition: str = "true") -> object:
    return session.row(f"SELECT min_by(external_id, input_row) FROM matched_rows WHERE {condition}")[0]


def read_items(session: Session, source: object, vocabulary: Vocabulary, options: ReadOptions) -> ItemTable:
    """Item columns aligned to the vocabulary. Raises InputError for doubled ids and when no id is one of the log's."""
    wanted = Wanted(options.item_columns, ITEM_ALIASES, (Columns.ITEM,), "item_columns")
    table, _ = _read_aligned(session, source, options.for_items(), wanted, Columns.ITEM, vocabulary.items, _LABEL)
    empty = pa.nulls(vocabulary.num_items, pa.string())
    if not table.num_columns:
        # A table of ids alone; without a column it would have no rows.
        table = pa.table({Columns.TITLE: empty})
    title, category = (
        table.column(name) if name in table.column_names else empty for name in (Columns.TITLE, Columns.CATEGORY)
    )
    categories, notes = split_categories(category.to_pylist())
    table, nodes = _checked(session, table, vocabulary.items.to_pylist())
    categories = [list(dict.fromkeys([*names, *of_tree])) for names, of_tree in zip(categories, nodes, strict=True)]
    table = table.select([name for name in table.column_names if name not in (Columns.TITLE, Columns.CATEGORY)])
    table = table.add_column(0, Columns.CATEGORY, pa.array(categories, pa.list_(pa.string())))
    table = table.add_column(0, Columns.TITLE, title.cast(pa.string()))
    num_rows, num_matched = session.row("SELECT count(*), count(position) FROM matched_rows")
    num_left_out, num_without_row = num_rows - num_matched, vocabulary.num_items - num_matched
    num_broken = session.number("SELECT count(*) FROM malformed")
    messages = {
        f"{num_left_out:,} rows of the items file belong to no item of the log and were left out": num_left_out,
        f"{num_without_row:,} items of the log have no row in the items file and so no title": num_without_row,
        f"{num_broken:,} lines of the items file could not be read and were left out": num_broken,
    }
    session.notes += notes + [message for message, count in messages.items() if count]
    _warn_of_few_matches(session, vocabulary.items)
    return ItemTable(table, num_left_out, num_without_row)


def _checked(session: Session, table: pa.Table, ids: list[Id]) -> tuple[pa.Table, list[list[str]]]:
    """The table with coordinates as numbers and without tree codes, and the nodes of the tree that each item has."""
    if (degrees := degrees_of(table, ids)) is not None:
        for column, name in enumerate((Columns.LATITUDE, Columns.LONGITUDE)):
            cells = pa.array(degrees[:, column], from_pandas=True)
            table = table.set_column(table.column_names.index(name), name, cells)
        if num_missing := int(np.isnan(degrees[:, 0]).sum()):
            session.notes.append(f"{num_missing:,} items of the log have no coordinates")
    if Columns.HIERARCHY not in table.column_names:
        return table, [[]] * len(table)
    nodes = nodes_of(table.column(Columns.HIERARCHY).to_pylist(), ids)
    if num_missing := sum(not of_item for of_item in nodes):
        session.notes.append(f"{num_missing:,} items of the log have no tree code")
    return table.drop_columns(Columns.HIERARCHY), nodes


def read_item_rows(source: object, options: ReadOptions | None = None) -> tuple[pa.Table, dict[str, str], list[str]]:
    """All columns of a table of items as they are, the names of those for item_id, title and category, and notes.

    Raises InputError when the source cannot be understood, or has no column of ids.
    """
    options = options or ReadOptions()
    wanted = Wanted(options.item_columns, ITEM_ALIASES, (Columns.ITEM,), "item_columns")
    with open_session(options.memory_limit, options.temporary_folder) as session:
        opened = open_source(session, source)
        layout = find_layout(session, opened, options.for_items(), wanted)
        found = layout.find(wanted)
        ingest(session, opened, {f"column_{index}": name for index, name in enumerate(layout.names)}, layout, options)
        table = session.arrow("SELECT * EXCLUDE (input_row) FROM raw ORDER BY input_row")
        if num_broken := session.number("SELECT count(*) FROM malformed"):
            session.notes.append(f"{num_broken:,} lines of the items file could not be read and were left out")
        return _with_metadata(table.rename_columns(layout.names), opened), found, session.notes


def read_new_items(
    source: object, kind: pa.DataType | None, options: ReadOptions | None = None
) -> tuple[list[Id], ItemTable]:
    """The ids of a table of items, and its columns; no log says which items there are.

    Args:
        source: What `read` takes as items.
        kind: The type of ids: 64-bit integers or text; None: integers where all of them are.
        options: How the table is read.

    Raises:
        InputError: For a table without ids, doubled ids, and ids that are no integers where the others are.
    """
    options, is_whole = options or ReadOptions(), kind is not None and pa.types.is_integer(kind)
    wanted = Wanted(options.item_columns, ITEM_ALIASES, (Columns.ITEM,), "item_columns")
    with open_session(options.memory_limit, options.temporary_folder) as session:
        opened, of_items = open_source(session, source), options.for_items()
        layout = find_layout(session, opened, of_items, wanted)
        ingested = ingest(session, opened, {Columns.ITEM: layout.find(wanted)[Columns.ITEM]}, layout, of_items)
        cells = read_text_cells(session, ingested.types, [Columns.ITEM])
        found = read_ids(session, ingested, Columns.ITEM, cells)
        text = cells[Columns.ITEM].sql if ingested.is_text and not is_whole else found.sql
        rows = session.rows(
            f"SELECT CAST({text} AS VARCHAR) FROM raw WHERE NOT {found.missing} GROUP BY 1 ORDER BY min(input_row)"
        )
        texts = [str(row[0]) for row in rows]
        if not texts:
            raise InputError(f"No row of {_LABEL} has an id. Check which column is {Columns.ITEM}.")
        if is_whole and (bad := [repr(one) for one in texts if not _WHOLE.fullmatch(one)]):
            raise InputError(f"The item ids of this data are integers, and these are none: {', '.join(bad[:5])}.")
        if kind is None:
            kind = pa.int64() if all(map(_WHOLE.fullmatch, texts)) else pa.string()
        ids = pa.array([int(one) for one in texts] if pa.types.is_integer(kind) else texts, kind)
        return ids.to_pylist(), read_items(session, source, Vocabulary(ids[:0], ids, ()), options)


def read_catalog(items: object, kind: pa.DataType | None, options: ReadOptions) -> tuple[pa.Array, ItemTable]:
    """The sorted ids of a table of items, and its columns in that order. Raises what `read_new_items` raises."""
    ids, table = read_new_items(items, kind, options)
    order = sorted(range(len(ids)), key=lambda index: ids[index])
    return pa.array([ids[index] for index in order], kind), ItemTable(table.table.take(pa.array(order)))


def _warn_of_few_matches(session: Session, known: pa.Array) -> None:
    """A warning when there are rows without an item of the log, and many items without a row."""
    matched = set(session.arrow("SELECT position FROM matched_rows WHERE position IS NOT NULL").column(0).to_pylist())
    other = _first_external_id(session, "position IS NULL")
    num_without = len(known) - len(matched)
    if other is not None and num_without >= _MAX_WITHOUT_ROW * len(known):
        example = next(known[index].as_py() for index in range(len(known)) if index not in matched)
        session.warnings.append(
            f"{num_without:,} of {len(known):,} ids of the log have no row in {_LABEL}, which has other ids: the log "
            f"has e.g. {example!r}, the table {other!r}. Are they spelled alike?"
        )


UserColumn = list[float | str | None]


def read_users(source: object, vocabulary: Vocabulary, options: ReadOptions | None = None) -> dict[str, UserColumn]:
    """Each further column of a table with user_id, one value for every user of the vocabulary, None without a row.

    `source` is what `read` takes. A column whose values are all numbers (also in a text file) is one of floats, any
    other is one of text. Rows of users that are not in the log are left out.

    Raises InputError without a column user_id or any other, for doubled ids, and when no id is one of the log's.

    >>> vocabulary = Vocabulary(pa.array([7, 12]), pa.array(["a"]), ("event",))
    >>> read_users(pa.table({"user_id": [12], "country": ["DE"], "age": [31]}), vocabulary)
    {'country': [None, 'DE'], 'age': [None, 31.0]}
    """
    options = options or ReadOptions()
    wanted = Wanted({}, {Columns.USER: ()}, ())
    with open_session(options.memory_limit, options.temporary_folder) as session:
        table, is_text = _read_aligned(
            session, source, options, wanted, Columns.USER, vocabulary.users, "the table of users"
        )
    return {name: _as_floats_or_text(table.column(name), is_text) for name in table.column_names}


def _as_floats_or_text(column: pa.ChunkedArray, is_text: bool) -> UserColumn:
    """Numbers as floats, where all are numbers; otherwise everything as text. What is empty or not finite is None."""
    values: list[Any] = column.to_pylist()
    if is_text:
        values = [None if value is None or not value.strip() else value.strip() for value in values]
    if not any(isinstance(value, bool) for value in values):
        with suppress(ValueError, TypeError):
            numbers = [math.nan if value is None else float(value) for value in values]
            return [number if math.isfinite(number) else None for number in numbers]
    return [None if value is None else str(value) for value in values]
