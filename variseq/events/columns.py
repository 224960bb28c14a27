"""The columns of a source: their names, aliases, and layout over all files."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

import duckdb
import pyarrow.parquet as pq

from variseq.errors import InputError
from variseq.events.frames import Frame
from variseq.events.header import Header, read_header
from variseq.events.json_lines import Keys, exploded_list, find_keys, ingest_lines
from variseq.events.options import ColumnNames, ReadOptions
from variseq.events.session import Session, literal_path, start_tables
from variseq.events.sources import DataFile, Files
from variseq.events.table import Columns

# Per canonical column, tiers of aliases: a later tier is looked at only when no name of an earlier one is there.
# Written as they are compared: lower case, letters and digits only.
EVENT_ALIASES: Mapping[str, tuple[tuple[str, ...], ...]] = {
    Columns.USER: (
        ("user", "uid", "users", "visitor", "visitorid", "customer", "customerid", "customerno", "reviewer",
         "reviewerid", "member", "memberid", "person", "personid", "reader", "readerid", "account", "accountid",
         "client", "clientid"),
        ("session", "sessionid"),
    ),
    Columns.ITEM: (
        ("item", "iid", "items", "movie", "movieid", "product", "productid", "sku", "asin", "parentasin", "stockcode",
         "article", "articleid", "news", "newsid", "song", "songid", "track", "trackid", "book", "bookid", "isbn",
         "video", "videoid", "content", "contentid", "game", "gameid", "business", "businessid", "ad", "adid"),
    ),
    Columns.TIME: (
        ("ts", "time", "datetime", "date", "unixtime", "unixreviewtime", "unixtimestamp", "timestampms", "timestamps",
         "eventtime", "eventtimestamp", "createdat", "reviewtime", "invoicedate", "tdat"),
    ),
    Columns.EVENT: (
        ("behavior", "behaviour", "behaviortype", "behaviourtype", "eventtype", "eventname", "action", "actiontype",
         "interaction", "interactiontype"),
    ),
    Columns.VALUE: (
        ("rating", "ratings", "stars", "score", "weight", "overall"),
        ("price", "amount", "quantity", "dwell", "dwelltime", "playtime", "duration", "watchtime"),
    ),
}  # fmt: skip
ITEM_ALIASES: Mapping[str, tuple[tuple[str, ...], ...]] = {
    Columns.ITEM: EVENT_ALIASES[Columns.ITEM] + (("id",),),
    Columns.TITLE: (("name", "movietitle", "itemname", "itemtitle", "productname", "producttitle", "headline"),),
    Columns.CATEGORY: (("categories", "genre", "genres", "class", "categoryid", "categorycode", "maincategory"),),
}


def by_name(chosen: ColumnNames) -> dict[str, str]:
    """Columns that were set by name; an index is a name of digits. Names by index stand in the header."""
    return {} if isinstance(chosen, list) else {column: str(name) for column, name in chosen.items()}


def find_columns(
    names: Sequence[str],
    chosen: Mapping[str, str],
    aliases: Mapping[str, tuple[tuple[str, ...], ...]] = EVENT_ALIASES,
    required: Sequence[str] = Columns.REQUIRED,
    option: str = "columns",
    later: Sequence[str] = (),
    hint: str = "",
) -> dict[str, str]:
    """Canonical name to the name in the source. `chosen` comes first, then the canonical name itself, then aliases.

    `later` are names that count only where none of `names` fits; `hint` ends the message about a missing column.

    Raises InputError when a required column is missing, when two names fit one column, or when a chosen name is absent.

    >>> find_columns(["userId", "movieId", "rating", "ts"], {})
    {'user_id': 'userId', 'item_id': 'movieId', 'timestamp': 'ts', 'value': 'rating'}
    """
    _check_names(names, later, chosen, aliases, option)
    found: dict[str, str] = {}
    for column, tiers in aliases.items():
        if column in chosen:
            if chosen[column] == "" and column not in required:
                continue
            found[column] = chosen[column]
            continue
        free = [name for name in names if name not in chosen.values()]
        candidates = _candidates(free, column, tiers)
        candidates = candidates or _candidates([name for name in later if name not in chosen.values()], column, tiers)
        if len(candidates) > 1:
            raise InputError(
                f"Several columns could be {column}: {', '.join(candidates)}. "
                f"Say which one: {option}={{{column!r}: {candidates[0]!r}}} ({_cli(option)} {column}={candidates[0]})."
            )
        if candidates:
            found[column] = candidates[0]
    for column, name in found.items():
        if list(found.values()).count(name) > 1:
            raise InputError(f"{option} takes {name!r} for {column} and for another column. Give each one of its own.")
    missing = [column for column in required if column not in found]
    if missing:
        raise InputError(_missing_message(missing, names, option) + hint)
    return found


def looks_like_data(names: Sequence[str]) -> bool:
    """Whether a first line holds a number or a time, which no column is called.

    >>> looks_like_data(["u1", "i1", "2020-02-01"]), looks_like_data(["user", "item", "ts"])
    (True, False)
    """
    return any(_is_number_or_time(name.strip()) for name in names)


def _is_number_or_time(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        try:
            datetime.fromisoformat(text)
        except ValueError:
            return False
    return bool(re.search(r"\d", text))


def _check_names(
    names: Sequence[str],
    later: Sequence[str],
    chosen: Mapping[str, str],
    aliases: Mapping[str, tuple[tuple[str, ...], ...]],
    option: str,
) -> None:
    doubled = sorted({name for name in names if list(names).count(name) > 1})
    if doubled:
        if looks_like_data(names):
            raise InputError(_data_message(names, option))
        raise InputError(f"Column names appear twice: {', '.join(doubled)}. Give every column a name of its own.")
    for column, name in chosen.items():
        if column not in aliases:
            raise InputError(f"{option} names {column!r}, which is none of: {', '.join(aliases)}.")
        if name != "" and name not in names and name not in later:
            raise InputError(f"{option} sets {column} to {name!r}, but the columns are: {', '.join(names)}.")


def _data_message(names: Sequence[str], option: str) -> str:
    shown = ", ".join(name[:60] for name in names[:10])
    return (
        f"The first line looks like data: {shown}. A header line with column names is needed, or names by index: "
        f"{option}=['user_id', 'item_id', ...] ({_cli(option)} user_id,item_id,timestamp,value)."
    )


def _candidates(names: Sequence[str], column: str, tiers: tuple[tuple[str, ...], ...]) -> list[str]:
    for tier in ((_plain(column),), *tiers):
        exact = [name for name in names if name == column]
        candidates = exact or [name for name in names if _plain(name) in tier]
        if candidates:
            return candidates
    return []


def _plain(name: str) -> str:
    """Lower case, letters and digits only, without the type that some data sets append to a name ("user_id:token")."""
    return re.sub(r"[^a-z0-9]", "", name.split(":")[0].lower())


def _missing_message(missing: Sequence[str], names: Sequence[str], option: str) -> str:
    if looks_like_data(names):
        return _data_message(names, option)
    shown = ", ".join(name[:60] for name in names[:40]) + (", ..." if len(names) > 40 else "")
    return (
        f"No column for {' and '.join(missing)}. The columns are: {shown}. "
        f"Name it: {option}={{{missing[0]!r}: ...}} ({_cli(option)} {missing[0]}=...)."
    )


def _cli(option: str) -> str:
    return "--" + option.replace("_", "-")


@dataclass(frozen=True)
class Wanted:
    """Which columns are looked for: names that the user set, aliases of each column, and those that must be there."""

    chosen: ColumnNames
    aliases: Mapping[str, tuple[tuple[str, ...], ...]] = field(default_factory=lambda: EVENT_ALIASES)
    required: Sequence[str] = Columns.REQUIRED
    option: str = "columns"


@dataclass(frozen=True)
class Layout:
    """The columns that a source has: `names` of its own, `partitions` of its folders; and what was read to know it."""

    names: list[str]
    partitions: list[str] = field(default_factory=list)
    headers: list[Header] = field(default_factory=list)
    keys: Keys | None = None
    explode: str | None = None
    notes: list[str] = field(default_factory=list)

    def find(self, wanted: Wanted) -> dict[str, str]:
        """Canonical name to the name here. Raises InputError; see `find_columns`."""
        dotted = [] if self.keys is None else [name for name in _paths(wanted.chosen) if self._reaches(name)]
        hint = "" if self.keys is None else self.keys.hint()
        names, chosen = [*self.names, *dotted], by_name(wanted.chosen)
        if self.keys is None:
            _refuse_nested(chosen, names)
        return find_columns(names, chosen, wanted.aliases, wanted.required, wanted.option, self.partitions, hint)

    def _reaches(self, name: str) -> bool:
        assert self.keys is not None
        return name not in self.names and name.split(".")[0] in self.names


def _refuse_nested(chosen: Mapping[str, str], names: Sequence[str]) -> None:
    for name in chosen.values():
        outer = name.split(".")[0]
        if name not in names and "." in name and outer in names:
            raise InputError(
                f"Column {outer!r} is nested, and only JSON lines take names with dots. DuckDB makes a row of "
                'each element: variseq.read(duckdb.sql("SELECT * EXCLUDE '
                f"({outer}), unnest({outer}, recursive := true) FROM 'events.parquet'\"))."
            )


def find_layout(session: Session, source: Files | Frame, options: ReadOptions, wanted: Wanted) -> Layout:
    """The columns of all files of a source. JSON lines are read into the table `lines` for it."""
    start_tables(session)
    if options.explode is not None and (isinstance(source, Frame) or source.format != "jsonl"):
        raise InputError(f"explode={options.explode!r} is for JSON lines (--explode). Leave it out.")
    if not isinstance(source, Frame) and source.format in ("csv", "tsv"):
        return _layout_of_text(source, options, wanted)
    if isinstance(wanted.chosen, list):
        raise InputError(
            f"{wanted.option} names columns by index, which is for text files without a header line. "
            "Give them by name: {'user_id': ...}."
        )
    if isinstance(source, Frame):
        return Layout(source.names, notes=list(source.notes))
    partitions = union(file.partition for file in source.files)
    if source.format == "parquet":
        names = union(list(parquet_types(session, file)) for file in source.files)
        return Layout(names, partitions, notes=list(source.notes))
    ingest_lines(session, source.files)
    keys = find_keys(session)
    if not keys.names:
        (line,) = session.row("SELECT coalesce(min_by(line, input_row), '') FROM lines")
        raise InputError(f"No line is a JSON object. The first is {line[:60]!r}. One JSON object a line is needed.")
    explode = exploded_list(keys, _paths(wanted.chosen), options.explode)
    return Layout(keys.names, partitions, [], keys, explode, list(source.notes))


def _paths(chosen: ColumnNames) -> list[str]:
    return [name for name in by_name(chosen).values() if "." in name]


def union(lists: Iterable[Iterable[str]]) -> list[str]:
    """All names of several lists, each once, in order of appearance."""
    return list(dict.fromkeys(name for names in lists for name in names))


def _layout_of_text(source: Files, options: ReadOptions, wanted: Wanted) -> Layout:
    notes = list(source.notes)
    headers = [_header(file, options, wanted, notes) for file in source.files]
    for file, header in zip(source.files, headers, strict=True):
        if header.has_empty_end:
            notes.append(f"{file.name}: rows end in one delimiter more than the header line; it is left out")
        if len(set(header.names)) < len(header.names):
            find_columns(header.names, {}, wanted.aliases, wanted.required, wanted.option)  # raises for doubled names
    partitions = union(file.partition for file in source.files)
    return Layout(union([header.names for header in headers]), partitions, headers, notes=notes)


def _header(file: DataFile, options: ReadOptions, wanted: Wanted, notes: list[str]) -> Header:
    """The header line; or names by index, where the first line is data."""
    written = read_header(file, options)
    if isinstance(wanted.chosen, list):
        indices = wanted.chosen
    else:
        chosen = [name for name in by_name(wanted.chosen).values() if name]
        if not chosen or not all(index.isdecimal() for index in chosen) or _are_numbered(written.names):
            return written
        indices = [str(index) for index in range(1, len(written.names) + 1)]
    by_index = read_header(file, options, indices)
    if not _has_required(written.names, wanted):
        return by_index
    _refuse_other_order(file, written.names, wanted)
    notes.append(f"{file.name}: the first line holds column names, and is left out")
    return replace(by_index, is_data=False, has_empty_end=written.has_empty_end)


def _are_numbered(names: Sequence[str]) -> bool:
    """Whether the names are 0, 1, 2, ... as a frame without names writes them."""
    return any(list(names) == [str(index) for index in range(start, start + len(names))] for start in (0, 1))


def _refuse_other_order(file: DataFile, names: Sequence[str], wanted: Wanted) -> None:
    """Raises InputError where a header line contradicts the names by index."""
    named = find_columns(names, {}, wanted.aliases, wanted.required)
    if isinstance(wanted.chosen, list):
        given = {column: names[index] for index, column in enumerate(wanted.chosen) if column in named}
    else:
        indices = {column: int(index) for column, index in wanted.chosen.items() if column in named and index}
        given = {column: names[index - 1] for column, index in indices.items() if 1 <= index <= len(names)}
    for column, name in given.items():
        if named[column] != name:
            raise InputError(
                f"{file.name}: the first line names {named[column]!r} as {column}, and by index it is {name!r}. "
                f"Leave {wanted.option} out, or give names instead of indices."
            )


def _has_required(names: Sequence[str], wanted: Wanted) -> bool:
    try:
        find_columns(names, {}, wanted.aliases, wanted.required)
    except InputError:
        return False
    return True


def parquet_types(session: Session, file: DataFile) -> dict[str, str]:
    """Column name to type. Raises InputError when the file is no Parquet."""
    try:
        described = session.rows(
            "DESCRIBE SELECT * FROM read_parquet(?, hive_partitioning=false)", [literal_path(file.path)]
        )
    except duckdb.Error as error:
        raise InputError(
            f"{file.name} is not a Parquet file, or is damaged ({str(error).splitlines()[0][:200]})."
        ) from error
    names = [str(name) for name in pq.read_schema(file.path).names]
    doubled = sorted({name for name in names if [one.lower() for one in names].count(name.lower()) > 1})
    if doubled or "file_row_number" in names:
        raise InputError(
            f"{file.name} has columns that have the same name: {', '.join(doubled) or 'file_row_number'}. "
            "Give every column a name of its own."
        )
    return {name: str(kind) for name, kind, *_ in described}
