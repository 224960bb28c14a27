"""An items file becomes columns in the order of the vocabulary: titles, categories and whatever else it has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Int

from variseq.errors import CheckpointError, InputError
from variseq.events.categories import split_categories
from variseq.events.columns import ITEM_ALIASES
from variseq.events.layout import Wanted, find_layout
from variseq.events.matched_rows import few_matches, first_outside_id, place_rows
from variseq.events.options import ReadOptions
from variseq.events.source import open_source
from variseq.events.stage import stage
from variseq.events.table import Columns
from variseq.events.text_cells import trimmed
from variseq.events.vocabulary import Vocabulary, write_parquet
from variseq.events.workspace import Workspace, text_in_sql

_TABLE = "The items file"
# What programs write for no title, in their own case of letters.
_NO_TITLE = ("", "\\N", "NaN", "nan", "NULL", "null", "<NA>", "#N/A", "(null)", "<null>", "#NULL!")


@dataclass(frozen=True, eq=False)
class CategoryLinks:
    """The categories of item i are `category[offsets[i]:offsets[i + 1]]`, numbered from 0."""

    offsets: Int[np.ndarray, " item_plus_one"]
    category: Int[np.ndarray, " link"]
    num_categories: int


@dataclass(frozen=True, eq=False)
class ItemTable:
    """One row an item of the vocabulary, in its order: title (text or null), category (list of text), further columns.

    `num_left_out` counts rows whose item is not in the log, `num_without_row` items of the log that have no row.
    """

    table: pa.Table
    num_left_out: int = 0
    num_without_row: int = 0
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

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

    def category_links(self) -> CategoryLinks:
        """Which categories each item has, of those that tell some items from others.

        A category of a single item says no more than the item itself, one of most items says nothing.
        """
        of_items = [sorted(set(categories)) for categories in self.categories(range(len(self)))]
        count = Counter(category for categories in of_items for category in categories)
        telling = sorted(name for name, num_items in count.items() if 2 <= num_items <= len(self) / 2)
        number = {name: place for place, name in enumerate(telling)}
        links = [[number[name] for name in categories if name in number] for categories in of_items]
        offsets = np.cumsum([0, *map(len, links)])
        return CategoryLinks(offsets, np.array([place for one in links for place in one], dtype=np.int64), len(number))

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


def read_items(workspace: Workspace, source: object, vocabulary: Vocabulary, options: ReadOptions) -> ItemTable:
    """Item columns aligned to the vocabulary. Raises InputError for doubled ids and when no id is one of the log's."""
    opened = open_source(source, workspace.folder)
    wanted = Wanted(options.item_columns, ITEM_ALIASES, (Columns.ITEM,), "item_columns")
    layout = find_layout(workspace, opened, options.for_items(), wanted)
    found = layout.find(wanted)
    others = [name for name in layout.names if name not in found.values()]
    staged_columns = found | {f"other_{index}": name for index, name in enumerate(others)}
    staged = stage(workspace, opened, staged_columns, layout, options.for_items())
    notes = place_rows(workspace, staged, Columns.ITEM, vocabulary.items, _TABLE)
    num_rows, num_known = workspace.row("SELECT count(*), count(position) FROM placed_rows")
    if num_known == 0:
        raise InputError(
            f"No id of the items file is an item of the log: the log has ids like {vocabulary.items[0].as_py()!r}, the "
            f"items file like {first_outside_id(workspace)!r}. Check which column is item_id: "
            "item_columns={'item_id': ...}."
        )
    table, category_notes = _aligned(workspace, found, others, vocabulary.num_items)
    num_broken = workspace.number("SELECT count(*) FROM malformed")
    num_left_out, num_without_row = num_rows - num_known, vocabulary.num_items - num_known
    notes += category_notes + _notes(num_left_out, num_without_row, num_broken)
    warnings = few_matches(workspace, vocabulary.items, _TABLE)
    return ItemTable(table, num_left_out, num_without_row, notes, warnings)


def _title() -> str:
    """SQL of a title. Fewer words than elsewhere stand for nothing, for an item may be called None or Nan."""
    text, words = f"CAST({Columns.TITLE} AS VARCHAR)", ", ".join(map(text_in_sql, _NO_TITLE))
    return f"CASE WHEN {trimmed(text)} NOT IN ({words}) THEN {text} END"


def _aligned(
    workspace: Workspace, found: dict[str, str], others: list[str], num_items: int
) -> tuple[pa.Table, list[str]]:
    title = _title() if Columns.TITLE in found else "CAST(NULL AS VARCHAR)"
    category = Columns.CATEGORY if Columns.CATEGORY in found else "CAST(NULL AS VARCHAR)"
    further = "".join(f", other_{index}" for index in range(len(others)))
    table = workspace.arrow(
        f"SELECT {title} AS title, {category} AS category{further} FROM "
        f"(SELECT CAST(range AS BIGINT) AS position FROM range({num_items})) "
        "LEFT JOIN placed_rows USING (position) LEFT JOIN raw USING (input_row) ORDER BY position"
    )
    categories, notes = split_categories(table.column("category").to_pylist())
    columns: dict[str, pa.ChunkedArray | pa.Array] = {
        Columns.TITLE: table.column("title").cast(pa.string()),
        Columns.CATEGORY: pa.array(categories, pa.list_(pa.string())),
    }
    columns |= {name: table.column(f"other_{index}") for index, name in enumerate(others)}
    return pa.table(columns), notes


def _notes(num_left_out: int, num_without_row: int, num_broken: int) -> list[str]:
    notes = []
    if num_left_out:
        notes.append(f"{num_left_out:,} rows of the items file belong to no item of the log and were left out")
    if num_without_row:
        notes.append(f"{num_without_row:,} items of the log have no row in the items file and so no title")
    if num_broken:
        notes.append(f"{num_broken:,} lines of the items file could not be read and were left out")
    return notes
