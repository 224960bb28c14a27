"""The content of items as one vector an item: texts, vectors and numbers, each whitened, side by side."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float, Float32

from variseq.content.columns import Ids
from variseq.content.sources import Source, find_sources, source_of_tensors
from variseq.errors import CheckpointError

PREFIX = "content."
EXPONENT = 0.5
"""Of whitening: 0 is a principal component analysis alone, 1 makes all variances equal."""
MIN_UNIT_DIM = 16
"""From so many dimensions on the length of a row tells little, and all rows get the length 1."""
MAX_LENGTH = 3.0
"""Of a row, where the root of the mean square is 1; so a new item stays within what training saw."""
MAX_FITTED_ROWS = 100_000
"""Of more items a random sample is whitened."""
MAX_DIM = 256
"""Numbers of a part, at most."""
_DESCRIPTION = "description"


@dataclass(frozen=True, eq=False)
class Whitening:
    """A fitted linear map: rows minus the mean, turned to the principal axes, each scaled by variance^(-EXPONENT / 2).

    With `MIN_UNIT_DIM` dimensions a row then gets the length 1. With fewer the mean square length is 1.
    Source: Su et al. 2021, "Whitening sentence representations"; Zhang et al. 2024, "Are ID embeddings necessary?"
    """

    mean: Float32[np.ndarray, " width"]
    axes: Float32[np.ndarray, "width dim"]

    @classmethod
    def fit(cls, rows: Float[np.ndarray, "item width"], max_dim: int) -> Whitening | None:
        """The map of rows; None where they are all alike."""
        centered = rows.astype(np.float64)
        mean = centered.mean(axis=0)
        centered -= mean
        variance, axes = np.linalg.eigh(centered.T @ centered / len(rows))
        order = np.argsort(-variance, kind="stable")[:max_dim]
        order = order[variance[order] > max(1e-6 * variance.max(), 1e-12)]
        if not len(order):
            return None
        # An eigenvector has two directions; the one with a positive largest number is taken.
        kept = axes[:, order]
        kept = kept * np.sign(kept[np.abs(kept).argmax(axis=0), np.arange(len(order))])
        kept = kept * variance[order] ** (-EXPONENT / 2)
        scale = np.sqrt(np.square(centered @ kept).sum(axis=1).mean())
        return cls(mean.astype(np.float32), np.ascontiguousarray(kept / scale, np.float32))

    def apply(self, rows: Float[np.ndarray, "item width"]) -> Float32[np.ndarray, "item dim"]:
        found = (rows - self.mean) @ self.axes
        length = np.linalg.norm(found, axis=1, keepdims=True)
        divisor = np.maximum(length, 1e-6) if found.shape[1] >= MIN_UNIT_DIM else np.maximum(length / MAX_LENGTH, 1)
        whitened: Float32[np.ndarray, "item dim"] = (found / divisor).astype(np.float32)
        return whitened


@dataclass(frozen=True, eq=False)
class ItemContent:
    """The fitted map from columns of items to one vector an item: parts side by side.

    Args:
        parts: What reads the columns of each part, and the whitening of what it reads.
        notes: What is content and what was left out, in sentences.
    """

    parts: tuple[tuple[Source, Whitening], ...]
    notes: tuple[str, ...] = ()

    @classmethod
    def fit(
        cls,
        table: pa.Table,
        is_known: Bool[np.ndarray, " item"],
        ids: Ids = None,
    ) -> ItemContent | None:
        """The map that is fitted on the rows `is_known` alone; None where they have no content.

        Args:
            table: One row an item, as in `ItemTable.table`.
            is_known: Items with training events.
            ids: The id of each row, for messages.

        Raises:
            InputError: A column has vectors of several lengths, or with NaN or infinite numbers.
            MissingDependencyError: There is text, and scikit-learn is not installed.
        """
        rows = np.flatnonzero(is_known)
        known_ids = None if ids is None else [ids[row] for row in rows.tolist()]
        known = table.take(pa.array(rows, pa.int64()))
        sources, notes = find_sources(known, MAX_DIM, known_ids)
        if len(known) > MAX_FITTED_ROWS:
            known = known.take(np.sort(np.random.default_rng(0).choice(len(known), MAX_FITTED_ROWS, replace=False)))
        parts = []
        for source in sources:
            found, has_content = source.rows(known)
            whitening = Whitening.fit(found[has_content], MAX_DIM) if has_content.any() else None
            if whitening is None:
                notes.append(f"{source.shown} is the same for all items, and is left out")
            else:
                parts.append((source, whitening))
        if not parts:
            return None
        return cls(tuple(parts), (f"content: {', '.join(source.shown for source, _ in parts)}", *notes))

    @property
    def dim(self) -> int:
        """Numbers of a vector."""
        return sum(whitening.axes.shape[1] for _, whitening in self.parts)

    @property
    def spans(self) -> dict[str, slice]:
        """The columns of the vector that belong to each part: text, image, audio, a column's name, numbers."""
        ends = list(accumulate((whitening.axes.shape[1] for _, whitening in self.parts), initial=0))
        return {part[0].name: slice(*ends[index : index + 2]) for index, part in enumerate(self.parts)}

    def encode(self, table: pa.Table, ids: Ids = None) -> Float32[np.ndarray, "item dim"]:
        """The vectors of items, new ones too; zero in each part of which an item has nothing.

        Columns that the table lacks are empty. `ids` are for messages.

        Raises:
            InputError: A vector has another length than those of the fit, or NaN or infinite numbers.
            MissingDependencyError: The encoder of the text vectors is not installed, and new texts need it.
        """
        vectors = np.zeros((len(table), self.dim), np.float32)
        for span, (source, whitening) in zip(self.spans.values(), self.parts, strict=True):
            rows, has_content = source.rows(table, ids)
            vectors[has_content, span] = whitening.apply(rows[has_content])
        return vectors

    def tensors(self) -> dict[str, np.ndarray]:
        """The arrays of a file; names begin with `content.`."""
        description = {"parts": [source.description() for source, _ in self.parts], "notes": self.notes}
        text = json.dumps(description, ensure_ascii=False).encode()
        found = {PREFIX + _DESCRIPTION: np.frombuffer(text, np.uint8).copy()}
        for index, (source, whitening) in enumerate(self.parts):
            own = {"mean": whitening.mean, "axes": whitening.axes, **source.tensors()}
            # Safetensors writes bytes as they lie, so that another order of the axes would be read as other numbers.
            found |= {f"{PREFIX}{index}.{name}": np.ascontiguousarray(array) for name, array in own.items()}
        return found

    @classmethod
    def of_tensors(cls, tensors: Mapping[str, np.ndarray]) -> ItemContent | None:
        """The inverse of `tensors`; None where no name begins with `content.`. Raises CheckpointError."""
        own = {name.removeprefix(PREFIX): array for name, array in tensors.items() if name.startswith(PREFIX)}
        if not own:
            return None
        try:
            description = json.loads(own[_DESCRIPTION].tobytes().decode())
            parts = [_part(one, _below(own, f"{index}.")) for index, one in enumerate(description["parts"])]
            return cls(tuple(parts), tuple(map(str, description["notes"])))
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise CheckpointError(f"The content of items is damaged ({error}).") from error


def _below(arrays: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def _part(description: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> tuple[Source, Whitening]:
    source = source_of_tensors(description, arrays)
    whitening = Whitening(arrays["mean"], arrays["axes"])
    fits = whitening.mean.shape == (source.width,) and whitening.axes.ndim == 2 and len(whitening.axes) == source.width
    if not fits or not all(np.isfinite(array).all() for name, array in arrays.items() if array.dtype.kind == "f"):
        raise CheckpointError(f"the whitening of {source.name} does not fit its columns")
    return source, whitening
