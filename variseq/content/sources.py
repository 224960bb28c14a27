"""What reads a part of the content from the columns of a table: texts, given vectors, numbers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float

from variseq.content.columns import ENCODER, Ids, joined_texts, number_lists, numbers, text_columns
from variseq.content.tfidf import TfidfMap
from variseq.errors import CheckpointError, InputError
from variseq.events.columns import plain_name
from variseq.events.table import Columns

TEXT, NUMBERS = "text", "numbers"
PART_OF = {"textvector": TEXT, "imagevector": "image", "audiovector": "audio"}
"""The part of a column that `variseq encode` writes; any other column of vectors is a part of its own name."""
MAX_KNOTS = 256
_ID_NAME = re.compile(r"(_id|Id|ID)$")
Rows = tuple[Float[np.ndarray, "row width"], Bool[np.ndarray, " row"]]
"""One row an item, and whether it has any content."""


@dataclass(frozen=True, eq=False)
class Texts:
    """Text columns, by a map that was fitted on them."""

    columns: tuple[str, ...]
    map: TfidfMap
    name = TEXT

    @property
    def width(self) -> int:
        return self.map.dim

    @property
    def shown(self) -> str:
        return f"text ({', '.join(self.columns)})"

    def rows(self, table: pa.Table, ids: Ids = None) -> Rows:
        found = self.map.encode(joined_texts(table, self.columns))
        return found, np.asarray(found.any(axis=1))

    def description(self) -> dict[str, Any]:
        return {"kind": "tfidf", "columns": self.columns}

    def tensors(self) -> dict[str, np.ndarray]:
        return self.map.tensors()


@dataclass(frozen=True, eq=False)
class GivenVectors:
    """A column of vectors. Where they were made of texts by `encoder`, new texts without one are encoded by it too."""

    name: str
    column: str
    width: int
    encoder: str | None = None
    texts: tuple[str, ...] = ()

    @property
    def shown(self) -> str:
        maker = f", by {self.encoder}" if self.encoder else ""
        return f"vector {self.column} ({self.width:,} numbers{maker})"

    def rows(self, table: pa.Table, ids: Ids = None) -> Rows:
        rows = np.zeros((len(table), self.width), np.float32)
        if self.column in table.column_names and table.column(self.column).null_count < len(table):
            lists = number_lists(table.column(self.column))
            if lists is None:
                raise InputError(f"Column {self.column!r} has to hold lists of {self.width:,} numbers, and does not.")
            rows = lists.matrix(self.column, ids, self.width)
        texts = joined_texts(table, self.texts)
        missing = [row for row, text in enumerate(texts) if text and not rows[row].any()]
        if missing and self.encoder:
            from variseq.content.encoders import encoder_named

            rows[missing] = encoder_named("text", self.encoder).encode([texts[row] for row in missing])
        return rows, np.asarray(rows.any(axis=1))

    def description(self) -> dict[str, Any]:
        own = {"name": self.name, "column": self.column, "width": self.width}
        return {"kind": "vectors", **own, "encoder": self.encoder, "texts": self.texts}

    def tensors(self) -> dict[str, np.ndarray]:
        return {}


@dataclass(frozen=True, eq=False)
class Numbers:
    """Columns of numbers as normal scores of their ranks, each with a flag for missing ones.

    Args:
        columns: Their names.
        knots: For each column, values in rising order, and their normal scores. Between them scores are interpolated.
    """

    columns: tuple[str, ...]
    knots: tuple[Float[np.ndarray, "two knot"], ...]
    name = NUMBERS

    @property
    def width(self) -> int:
        return 2 * len(self.columns)

    @property
    def shown(self) -> str:
        return f"numbers ({', '.join(self.columns)})"

    def rows(self, table: pa.Table, ids: Ids = None) -> Rows:
        rows = np.zeros((len(table), len(self.columns), 2), np.float32)
        rows[:, :, 1] = 1
        for index, (name, (value, score)) in enumerate(zip(self.columns, self.knots, strict=True)):
            found = numbers(table.column(name)) if name in table.column_names else None
            if found is None and name in table.column_names and table.column(name).null_count < len(table):
                raise InputError(f"Column {name!r} has to hold numbers, as those that the content was fitted on.")
            if found is not None:
                is_there = ~np.isnan(found)
                rows[is_there, index, 0] = np.interp(found[is_there], value, score)
                rows[is_there, index, 1] = 0
        return rows.reshape(len(table), self.width), np.asarray((rows[:, :, 1] == 0).any(axis=1))

    def description(self) -> dict[str, Any]:
        return {"kind": NUMBERS, "columns": self.columns}

    def tensors(self) -> dict[str, np.ndarray]:
        return {f"knots.{index}": knots for index, knots in enumerate(self.knots)}


Source = Texts | GivenVectors | Numbers
"""What reads a part: its `name`, its `width`, the columns in words, rows, and what is saved of it."""


def source_of_tensors(description: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Source:
    """The inverse of `description` and `tensors`. Raises CheckpointError, KeyError, TypeError and ValueError."""
    kind = description["kind"]
    if kind == "tfidf":
        of_map = (arrays[name] for name in ("vocabulary", "idf", "basis"))
        return Texts(_names(description["columns"]), TfidfMap.of_tensors(*of_map))
    if kind == "vectors":
        encoder = description["encoder"]
        name, column = _names([description["name"], description["column"]])
        texts = _names(description["texts"])
        return GivenVectors(name, column, int(description["width"]), encoder and str(encoder), texts)
    columns = _names(description["columns"])
    knots = tuple(arrays[f"knots.{index}"] for index in range(len(columns)))
    if kind != NUMBERS or any(one.ndim != 2 or len(one) != 2 or (np.diff(one[0]) <= 0).any() for one in knots):
        raise CheckpointError(f"a part of the kind {kind!r} cannot be read")
    return Numbers(columns, knots)


def _names(texts: Sequence[object]) -> tuple[str, ...]:
    if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
        raise CheckpointError("names of columns are no text")
    return tuple(map(str, texts))


def find_sources(table: pa.Table, max_dim: int, ids: Ids = None) -> tuple[list[Source], list[str]]:
    """The parts of the content of a table, in the order text, vectors, numbers, and notes on what was left out.

    Raises InputError for vectors of several lengths or with NaN or infinite numbers, and MissingDependencyError.
    """
    notes: list[str] = []
    texts = text_columns(table)
    vectors = _find_vectors(table, texts, ids, notes)
    sources: list[Source] = []
    if not any(source.name == TEXT for source in vectors):
        fitted = _fit_texts(table, texts, max_dim, notes)
        sources += [fitted] if fitted else []
    sources += sorted(vectors, key=lambda source: source.name != TEXT)
    taken = {*texts, Columns.CATEGORY, *(source.column for source in vectors)}
    found = _find_numbers(table, [name for name in table.column_names if name not in taken], notes)
    return [*sources, *([found] if found else [])], notes


def _fit_texts(table: pa.Table, columns: Sequence[str], max_dim: int, notes: list[str]) -> Texts | None:
    """The map of the texts, where two of them have a word in common."""
    columns = [name for name in columns if any(joined_texts(table, [name]))]
    texts = [text for text in joined_texts(table, columns) if text]
    fitted = TfidfMap.fit(texts, max_dim)
    if fitted is None and texts:
        notes.append("no word of the texts is in two of them, so the text is left out")
    return None if fitted is None else Texts(tuple(columns), fitted)


def _find_vectors(table: pa.Table, texts: Sequence[str], ids: Ids, notes: list[str]) -> list[GivenVectors]:
    found: dict[str, GivenVectors] = {}
    for name in table.column_names:
        lists = None if name in (Columns.TITLE, Columns.CATEGORY) else number_lists(table.column(name))
        if lists is None or not lists.length.any():
            continue
        if lists.are_integers and len(set(lists.length[lists.length > 0].tolist())) > 1:
            notes.append(f"column {name!r} holds lists of whole numbers of several lengths, and is no content")
            continue
        part = PART_OF.get(plain_name(name), name)
        if part in found or part == NUMBERS:
            raise InputError(f"Two parts of the content would be named {part!r}. Rename the column {name!r}.")
        encoder = (table.schema.field(name).metadata or {}).get(ENCODER, b"").decode() or None
        of_texts = tuple(texts) if encoder and part == TEXT else ()
        width = lists.matrix(name, ids).shape[1]
        found[part] = GivenVectors(part, name, width, encoder, of_texts)
    return list(found.values())


def _find_numbers(table: pa.Table, names: Sequence[str], notes: list[str]) -> Numbers | None:
    columns, knots = [], []
    for name in names:
        found = numbers(table.column(name))
        if found is None or np.isnan(found).all():
            continue
        values, count = np.unique(found[~np.isnan(found)], return_counts=True)
        is_id = bool((values == np.rint(values)).all()) and (count.max() == 1 or bool(_ID_NAME.search(name)))
        if is_id and len(values) > 1:
            notes.append(f"column {name!r} looks like an id, and is no content")
        elif len(values) > 1:
            columns.append(name)
            knots.append(_normal_scores(values, count))
    return Numbers(tuple(columns), tuple(knots)) if columns else None


def _normal_scores(values: Float[np.ndarray, " value"], count: Any) -> Float[np.ndarray, "two knot"]:
    """Values and Φ⁻¹ of the share of cells below them, ties by half; at most `MAX_KNOTS`."""
    share = (np.cumsum(count) - count / 2) / count.sum()
    kept = np.unique(np.linspace(0, len(values) - 1, MAX_KNOTS).round().astype(int))
    scores = [NormalDist().inv_cdf(one) for one in share[kept]]
    return np.array([values[kept], scores])
