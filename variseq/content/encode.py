"""A table of items with the vectors of its texts, pictures and sounds, and with vectors from other files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
from jaxtyping import Float

from variseq.content.columns import ENCODER, first_of, joined_texts, refuse_rows, text_columns
from variseq.content.encoders import ContentEncoder
from variseq.content.media import read_file
from variseq.content.paths import PATH_NAMES, path_below, path_columns, path_of
from variseq.content.vector_cache import VectorCache
from variseq.errors import InputError
from variseq.events.table import Columns

TEXTS_AT_ONCE = 64
Progress = Callable[[str, int, int], None]
"""Gets the kind of content, the number of vectors that are there, and how many there will be."""


@dataclass(frozen=True, eq=False)
class ItemRows:
    """A table of items, its column of ids, and its column of titles if there is one."""

    table: pa.Table
    id_column: str
    title_column: str | None = None

    @property
    def ids(self) -> list[object]:
        ids: list[object] = self.table.column(self.id_column).to_pylist()
        return ids

    def path_column(self, kind: str) -> str | None:
        """The column of paths of pictures or sounds. Raises InputError where several could be it."""
        named = path_columns(self.table, kind)
        if len(named) > 1:
            raise InputError(f"Several columns could be the {kind}: {', '.join(named)}. Leave one of them.")
        return named[0] if named else None

    def texts(self) -> list[str | None]:
        """The texts of each item in one; None where it has none."""
        names = [Columns.TITLE if name == self.title_column else name for name in self.table.column_names]
        renamed = self.table.rename_columns(names)
        return joined_texts(renamed, text_columns(renamed))

    def with_vectors(
        self, name: str, vectors: Sequence[Float[np.ndarray, " dim"] | None], encoder: str | None = None
    ) -> ItemRows:
        """The same with a column of lists of float32, null without a vector; a column of this name is replaced."""
        kept = self.table.select([one for one in self.table.column_names if one != name])
        field = pa.field(name, pa.list_(pa.float32()), metadata={ENCODER: encoder.encode()} if encoder else None)
        return replace(self, table=kept.append_column(field, pa.array(vectors, field.type)))


def encode_texts(items: ItemRows, encoder: ContentEncoder, cache: VectorCache, progress: Progress) -> ItemRows:
    """The items with a column `text_vector`. Raises InputError where there is no text."""
    texts = items.texts()
    distinct = list(dict.fromkeys(text for text in texts if text))
    if not distinct:
        raise InputError("There is no text to encode: no title, text, description, abstract, summary or body.")
    found: dict[str, Float[np.ndarray, " dim"]] = {}
    for first in range(0, len(distinct), TEXTS_AT_ONCE):
        batch = distinct[first : first + TEXTS_AT_ONCE]
        found |= _encoded(batch, [text.encode(errors="replace") for text in batch], encoder, cache)
        progress("text", len(found), len(distinct))
    return items.with_vectors("text_vector", [found.get(text or "") for text in texts], encoder.name)


def _encoded(
    values: Sequence[str], contents: Sequence[bytes], encoder: ContentEncoder, cache: VectorCache
) -> dict[str, Float[np.ndarray, " dim"]]:
    """The vector of each value, from the cache where its content was encoded before."""
    key_of = {value: VectorCache.key(encoder.name, content) for value, content in zip(values, contents, strict=True)}
    cached = {value: cache.get(key, encoder.dim) for value, key in key_of.items()}
    found = {value: vector for value, vector in cached.items() if vector is not None}
    if wanted := [value for value in values if value not in found]:
        computed = dict(zip(wanted, encoder.encode(wanted), strict=True))
        cache.put((key_of[value], vector) for value, vector in computed.items())
        found |= computed
    return found


def encode_files(
    items: ItemRows, kind: str, encoder: ContentEncoder, folder: Path, cache: VectorCache, progress: Progress
) -> tuple[ItemRows, list[str]]:
    """The items with a column `image_vector` or `audio_vector`, and notes on missing files.

    Args:
        items: The table.
        kind: `image` or `audio`.
        encoder: What encodes one file.
        folder: Paths lead to files below it, and to no others.
        cache: Vectors that were computed before.
        progress: Called after each file.

    Raises:
        InputError: There is no column of paths, or files cannot be used; all files are tried before.
    """
    column = items.path_column(kind)
    if column is None:
        raise InputError(f"There is no column with the paths of the {kind}: {', '.join(PATH_NAMES[kind])}.")
    ids, cells = items.ids, [path_of(cell) for cell in items.table.column(column).to_pylist()]
    num_files = len({cell for cell in cells if cell})
    problems: dict[str, str] = {}
    found: dict[str, Float[np.ndarray, " dim"]] = {}
    for cell in dict.fromkeys(cell for cell in cells if cell):
        try:
            path = path_below(folder, cell)
            if path is not None:
                found[cell] = _encoded([str(path)], [read_file(path)], encoder, cache)[str(path)]
        except InputError as error:
            problems[cell] = str(error)
        progress(kind, len(found) + len(problems), num_files)
    if problems:
        bad = [f"{ids[row]!r} ({cell[:100]}) {problems[cell]}" for row, cell in enumerate(cells) if cell in problems]
        raise InputError(
            f"{len(bad):,} items have a file in the column {column!r} that cannot be used: {first_of(bad, '; ')}"
            f". Replace these files or empty the cells; finished vectors are kept for the next run."
        )
    missing = [ids[row] for row, cell in enumerate(cells) if cell and cell not in found]
    notes = []
    if missing:
        shown = first_of([repr(one) for one in missing])
        notes.append(
            f"{len(missing):,} items have no file where the column {column!r} says, and get no vector: {shown}"
        )
    return items.with_vectors(f"{kind}_vector", [found.get(cell or "") for cell in cells], encoder.name), notes


def given_vectors(items: ItemRows, name: str, file: Path, ids_file: Path) -> tuple[ItemRows, list[str]]:
    """The items with the rows of a `.npy` file as a column; the other file has the item id of each row, one a line.

    Raises InputError for files that do not fit together, ids that are there twice, and NaN or infinite numbers.
    """
    if name in items.table.column_names:
        raise InputError(f"The table has a column {name!r} already. Give the vectors another name.")
    try:
        vectors = np.load(file, mmap_mode="r", allow_pickle=False)
        ids = ids_file.read_text(encoding="utf-8").split("\n")
    except (OSError, ValueError, EOFError) as error:
        raise InputError(
            f"{file} and {ids_file} have to be a .npy file of numbers and a text file ({error})."
        ) from error
    ids = [line.strip() for line in (ids[:-1] if not ids[-1].strip() else ids)]
    if not isinstance(vectors, np.ndarray) or vectors.ndim != 2 or vectors.dtype.kind not in "fiu":
        raise InputError(f"{file} has to hold one table of numbers, a row an item.")
    row_of = {identifier: row for row, identifier in enumerate(ids)}
    if len(row_of) != len(ids) or len(ids) != len(vectors):
        doubled = len(ids) - len(row_of)
        raise InputError(
            f"{ids_file} has {len(ids):,} ids ({doubled:,} of them again), and {file} has {len(vectors):,} rows. "
            "Every row needs one id, and every id one row."
        )
    with np.errstate(over="ignore"):
        rows = np.asarray(vectors, np.float32)
    refuse_rows(
        np.asarray(~np.isfinite(rows).all(axis=1)), ids, f"{file} has NaN or infinite numbers", "Leave them out"
    )
    found = [row_of.get(str(identifier)) for identifier in items.ids]
    if all(row is None for row in found):
        raise InputError(f"No id of {ids_file} is in the table, which has ids like {str(items.ids[0])!r}.")
    num_others = len(ids) - len(set(found) - {None})
    notes = [f"{num_others:,} vectors of {file.name} belong to no item of the table"] if num_others else []
    return items.with_vectors(name, [None if row is None else rows[row] for row in found]), notes
