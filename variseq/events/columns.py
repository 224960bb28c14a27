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

Aliases = Mapping[str, tuple[tuple[str, ...], ...]]
# Per canonical column, tiers of aliases: a later tier is looked at only when no name of an earlier one is there.
# Written as they are compared: lower case, letters and digits only.
EVENT_ALIASES: Aliases = {
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
    Columns.VISIT: (),
}  # fmt: skip
ITEM_ALIASES: Aliases = {
    Columns.ITEM: EVENT_ALIASES[Columns.ITEM] + (("id",),),
    Columns.TITLE: (("name", "movietitle", "itemname", "itemtitle", "productname", "producttitle", "headline"),),
    Columns.CATEGORY: (("categories", "genre", "genres", "class", "categoryid", "categorycode", "maincategory"),),
    Columns.HIERARCHY: (("tree", "codetree", "treecode", "taxonomy"),),
    Columns.LATITUDE: (("lat",),),
    Columns.LONGITUDE: (("lon", "lng"),),
}


@dataclass(frozen=True)
class Wanted:
    """Which columns are looked for: names that the user set, aliases of each column, and those that must be there."""

    chosen: ColumnNames = field(default_factory=dict)
    aliases: Aliases = field(default_factory=lambda: EVENT_ALIASES)
    required: Sequence[str] = Columns.REQUIRED
    option: str = "columns"

    @property
    def by_name(self) -> dict[str, str]:
        """Columns that were set by name; an index is a name of digits. Names by index stand in the header."""
        return {} if isinstance(self.chosen, list) else {column: str(name) for column, name in self.chosen.items()}

    @property
    def paths(self) -> list[str]:
        """Names with dots, which lead into nested objects."""
        return [name for name in self.by_name.values() if "." in name]

    @property
    def flag(self) -> str:
        """The option as it is written on the command line."""
        return "--" + self.option.replace("_", "-")


def find_columns(
    names: Sequence[str], wanted: Wanted | None = None, later: Sequence[str] = (), hint: str = ""
) -> dict[str, str]:
    """Canonical name to the name in the source: a name that was set, the canonical name itself, then aliases.

    `later` are names that count only where none of `names` fits; `hint` ends the message about a missing column.

    Raises InputError when a required column is missing, when two names fit one column, or when a chosen name is absent.

    >>> find_columns(["userId", "movieId", "rating", "ts"])
    {'user_id': 'userId', 'item_id': 'movieId', 'timestamp': 'ts', 'value': 'rating'}
    """
    wanted = wanted or Wanted()
    chosen, option, flag = wanted.by_name, wanted.option, wanted.flag
    _check_names(names, later, wanted)
    free, free_later = ([name for name in listed if name not in chosen.values()] for listed in (names, later))
    found: dict[str, str] = {}
    for column, tiers in wanted.aliases.items():
        is_set = column in chosen and (chosen[column] != "" or column in wanted.required)
        if is_set:
            found[column] = chosen[column]
        if column in chosen or column == Columns.VISIT:  # visits change what is predicted, so they are only by choice
            continue
        candidates = _candidates(free, column, tiers) or _candidates(free_later, column, tiers)
        if len(candidates) > 1:
            raise InputError(
                f"Several columns could be {column}: {', '.join(candidates)}. "
                f"Say which one: {option}={{{column!r}: {candidates[0]!r}}} ({flag} {column}={candidates[0]})."
            )
        if candidates:
            found[column] = candidates[0]
    for column, name in found.items():
        if list(found.values()).count(name) > 1:
            raise InputError(f"{option} takes {name!r} for {column} and for another column. Give each one of its own.")
    missing = [column for column in wanted.required if column not in found]
    if missing:
        _refuse_short_list(missing, wanted)
        _refuse_data(names, wanted)
        shown = ", ".join(name[:60] for name in names[:40]) + (", ..." if len(names) > 40 else "")
        raise InputError(
            f"No column for {' and '.join(missing)}. The columns are: {shown}. "
            f"Name it: {option}={{{missing[0]!r}: ...}} ({flag} {missing[0]}=...).{hint}"
        )
    return found


def looks_like_data(names: Sequence[str]) -> bool:
    """Whether a first line holds a number or a time, which no column is called.

    >>> looks_like_data(["u1", "i1", "2020-02-01"]), looks_like_data(["user", "item", "ts"])
    (True, False)
    """
    return any(_is_number_or_time(name.strip()) for name in names)


def _is_number_or_time(text: str) -> bool:
    for read in (float, datetime.fromisoformat):
        try:
            read(text)
        except ValueError:
            continue
        return bool(re.search(r"\d", text))
    return False


def _check_names(names: Sequence[str], later: Sequence[str], wanted: Wanted) -> None:
    doubled = sorted({name for name in names if list(names).count(name) > 1})
    if doubled:
        _refuse_data(names, wanted)
        raise InputError(f"Column names appear twice: {', '.join(doubled)}. Give every column a name of its own.")
    for column, name in wanted.by_name.items():
        if column not in wanted.aliases:
            raise InputError(f"{wanted.option} names {column!r}, which is none of: {', '.join(wanted.aliases)}.")
        if name != "" and name not in names and name not in later:
            raise InputError(f"{wanted.option} sets {column} to {name!r}, but the columns are: {', '.join(names)}.")


def _refuse_data(names: Sequence[str], wanted: Wanted) -> None:
    if looks_like_data(names):
        shown = ", ".join(name[:60] for name in names[:10])
        raise InputError(
            f"The first line looks like data: {shown}. A header line with column names is needed, or names by index: "
            f"{wanted.option}=['user_id', 'item_id', ...] ({wanted.flag} user_id,item_id,timestamp,value)."
        )


def _refuse_short_list(missing: Sequence[str], wanted: Wanted) -> None:
    """Raises InputError where columns are named by index, and not all that are needed."""
    indices = list(wanted.by_name.values())
    if isinstance(wanted.chosen, list) or (indices and all(index.isdecimal() for index in indices)):
        named = ", ".join(name for name in wanted.chosen if name)
        raise InputError(
            f"{wanted.option} names {named} by index, and {' and '.join(missing)} not. Name each column that is "
            f"needed, e.g. {wanted.flag} user_id,item_id,timestamp,value."
        )


def _candidates(names: Sequence[str], column: str, tiers: tuple[tuple[str, ...], ...]) -> list[str]:
    for tier in ((plain_name(column),), *tiers):
        if candidates := [name for name in names if name == column] or [
            name for name in names if plain_name(name) in tier
        ]:
            return candidates
    return []


def plain_name(name: str) -> str:
    """Lower case, letters and digits only, without the type that some data sets append to a name ("user_id:token")."""
    return re.sub(r"[^a-z0-9]", "", name.split(":")[0].lower())


@dataclass(frozen=True)
class Layout:
    """The columns that a source has: `names` of its own, `partitions` of its folders; and what was read to know it."""

    names: list[str]
    partitions: list[str] = field(default_factory=list)
    headers: list[Header] = field(default_factory=list)
    keys: Keys | None = None
    explode: str | None = None

    def find(self, wanted: Wanted) -> dict[str, str]:
        """Canonical name to the name here. Raises InputError; see `find_columns`."""
        nested = [name for name in wanted.paths if name not in self.names and name.split(".")[0] in self.names]
        if self.keys is not None:
            return find_columns([*self.names, *nested], wanted, self.partitions, self.keys.hint())
        if nested:
            outer = nested[0].split(".")[0]
            raise InputError(
                f"Column {outer!r} is nested, and only JSON lines take names with dots. DuckDB makes a row of "
                'each element: variseq.read(duckdb.sql("SELECT * EXCLUDE '
                f"({outer}), unnest({outer}, recursive := true) FROM 'events.parquet'\"))."
            )
        return find_columns(self.names, wanted, self.partitions)


def find_layout(session: Session, source: Files | Frame, options: ReadOptions, wanted: Wanted) -> Layout:
    """The columns of all files of a source. JSON lines are read into the table `lines` for it."""
    start_tables(session)
    if options.explode is not None and (isinstance(source, Frame) or source.format != "jsonl"):
        raise InputError(f"explode={options.explode!r} is for JSON lines (--explode). Leave it out.")
    if not isinstance(source, Frame) and source.format in ("csv", "tsv"):
        return _layout_of_text(session, source, options, wanted)
    if isinstance(wanted.chosen, list):
        raise InputError(
            f"{wanted.option} names columns by index, which is for text files without a header line. "
            "Give them by name: {'user_id': ...}."
        )
    if isinstance(source, Frame):
        return Layout(source.names)
    partitions = union(file.partition for file in source.files)
    if source.format == "parquet":
        return Layout(union(parquet_types(session, file) for file in source.files), partitions)
    ingest_lines(session, source.files)
    keys = find_keys(session)
    if not keys.names:
        (line,) = session.row("SELECT coalesce(min_by(line, input_row), '') FROM lines")
        raise InputError(f"No line is a JSON object. The first is {line[:60]!r}. One JSON object a line is needed.")
    return Layout(keys.names, partitions, [], keys, exploded_list(keys, wanted.paths, options.explode))


def union(lists: Iterable[Iterable[str]]) -> list[str]:
    """All names of several lists, each once, in order of appearance."""
    return list(dict.fromkeys(name for names in lists for name in names))


def _layout_of_text(session: Session, source: Files, options: ReadOptions, wanted: Wanted) -> Layout:
    headers = [_header(session, file, options, wanted) for file in source.files]
    for file, header in zip(source.files, headers, strict=True):
        if header.has_empty_end:
            session.notes.append(f"{file.name}: rows end in one delimiter more than the header line; it is left out")
        if len(set(header.names)) < len(header.names):
            find_columns(header.names, replace(wanted, chosen={}))  # raises for doubled names
    partitions = union(file.partition for file in source.files)
    return Layout(union(header.names for header in headers), partitions, headers)


def _header(session: Session, file: DataFile, options: ReadOptions, wanted: Wanted) -> Header:
    """The header line; or names by index, where the first line is data."""
    written = read_header(file, options)
    if isinstance(wanted.chosen, list):
        indices = wanted.chosen
    else:
        chosen = [name for name in wanted.by_name.values() if name]
        if not chosen or not all(index.isdecimal() for index in chosen) or _are_numbered(written.names):
            return written
        indices = [str(index) for index in range(1, len(written.names) + 1)]
    by_index = read_header(file, options, indices)
    try:
        named = find_columns(written.names, replace(wanted, chosen={}))
    except InputError:
        return by_index
    _refuse_other_order(file, written.names, named, wanted)
    session.notes.append(f"{file.name}: the first line holds column names, and is left out")
    return replace(by_index, is_data=False, has_empty_end=written.has_empty_end)


def _are_numbered(names: Sequence[str]) -> bool:
    """Whether the names are 0, 1, 2, ... as a frame without names writes them."""
    return any(list(names) == [str(index) for index in range(start, start + len(names))] for start in (0, 1))


def _refuse_other_order(file: DataFile, names: Sequence[str], named: Mapping[str, str], wanted: Wanted) -> None:
    """Raises InputError where the columns `named` by a header line contradict the names by index."""
    listed = enumerate(wanted.chosen, 1) if isinstance(wanted.chosen, list) else ()
    indices = {column: index for index, column in listed} or {
        column: int(index) for column, index in wanted.by_name.items() if index
    }
    for column, index in indices.items():
        if column in named and 1 <= index <= len(names) and named[column] != names[index - 1]:
            raise InputError(
                f"{file.name}: the first line names {named[column]!r} as {column}, and by index it is "
                f"{names[index - 1]!r}. Leave {wanted.option} out, or give names instead of indices."
            )


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
