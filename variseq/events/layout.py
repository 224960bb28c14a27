"""The columns that a source has, over all its files: named by headers, by keys, by folders, or by their place."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import duckdb
import pyarrow.parquet as pq

from variseq.errors import InputError
from variseq.events.columns import EVENT_ALIASES, by_name, find_columns
from variseq.events.json_lines import Keys, exploded_list, find_keys, stage_lines
from variseq.events.options import ColumnNames, ReadOptions
from variseq.events.source import DataFile, Files, Frame
from variseq.events.table import Columns
from variseq.events.text_header import Header, read_header
from variseq.events.workspace import Workspace, literal_path


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


def find_layout(workspace: Workspace, source: Files | Frame, options: ReadOptions, wanted: Wanted) -> Layout:
    """The columns of all files of a source. JSON lines are read into the table `lines` for it."""
    if options.explode is not None and (isinstance(source, Frame) or source.format != "jsonl"):
        raise InputError(f"explode={options.explode!r} is for JSON lines (--explode). Leave it out.")
    if not isinstance(source, Frame) and source.format in ("csv", "tsv"):
        return _layout_of_text(source, options, wanted)
    if isinstance(wanted.chosen, list):
        raise InputError(
            f"{wanted.option} names columns by place, which is for text files without a header line. "
            "Give them by name: {'user_id': ...}."
        )
    if isinstance(source, Frame):
        return Layout(source.names, notes=list(source.notes))
    partitions = union(file.partition for file in source.files)
    if source.format == "parquet":
        names = union(list(parquet_types(workspace, file)) for file in source.files)
        return Layout(names, partitions, notes=list(source.notes))
    for table in ("lines", "records", "elements"):
        workspace.drop(table)
    stage_lines(workspace, source.files)
    keys = find_keys(workspace)
    if not keys.names:
        (line,) = workspace.row("SELECT coalesce(min_by(line, input_row), '') FROM lines")
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
    """The header line; or names by place, where the user says that the first line is data."""
    written = read_header(file, options)
    if isinstance(wanted.chosen, list):
        places = wanted.chosen
    else:
        chosen = [name for name in by_name(wanted.chosen).values() if name]
        if not chosen or not all(place.isdecimal() for place in chosen) or _are_numbered(written.names):
            return written
        places = [str(place) for place in range(1, len(written.names) + 1)]
    by_place = read_header(file, options, places)
    if not _has_required(written.names, wanted):
        return by_place
    _refuse_other_order(file, written.names, wanted)
    notes.append(f"{file.name}: the first line holds column names, and is left out")
    return replace(by_place, is_data=False, has_empty_end=written.has_empty_end)


def _are_numbered(names: Sequence[str]) -> bool:
    """Whether the names are 0, 1, 2, ... as a frame without names writes them."""
    return any(list(names) == [str(place) for place in range(start, start + len(names))] for start in (0, 1))


def _refuse_other_order(file: DataFile, names: Sequence[str], wanted: Wanted) -> None:
    """Raises InputError where a header line says otherwise than the names by place."""
    said = find_columns(names, {}, wanted.aliases, wanted.required)
    if isinstance(wanted.chosen, list):
        given = {column: names[place] for place, column in enumerate(wanted.chosen) if column in said}
    else:
        places = {column: int(place) for column, place in wanted.chosen.items() if column in said and place}
        given = {column: names[place - 1] for column, place in places.items() if 1 <= place <= len(names)}
    for column, name in given.items():
        if said[column] != name:
            raise InputError(
                f"{file.name}: the first line names {said[column]!r} as {column}, and by place it is {name!r}. "
                f"Leave {wanted.option} out, or give names in place of places."
            )


def _has_required(names: Sequence[str], wanted: Wanted) -> bool:
    try:
        find_columns(names, {}, wanted.aliases, wanted.required)
    except InputError:
        return False
    return True


def parquet_types(workspace: Workspace, file: DataFile) -> dict[str, str]:
    """Column name to type. Raises InputError when the file is no Parquet."""
    try:
        described = workspace.rows(
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
            f"{file.name} has columns that cannot be told apart: {', '.join(doubled) or 'file_row_number'}. "
            "Give every column a name of its own."
        )
    return {name: str(kind) for name, kind, *_ in described}
