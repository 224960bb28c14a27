"""Item vectors in a few bytes an item, decoded where they are read: 8 bits a number, or product quantization."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float, Int, Integer

Compression = Literal["none", "int8", "pq"]
COMPRESSIONS: tuple[Compression, ...] = get_args(Compression)
NUM_CENTROIDS = 256
"""As many as a byte can name."""
PART_WIDTH = 4
"""Dimensions that one byte stands for: 16 bytes in place of 65 numbers of 32 bits."""
RIDGE = 0.1
"""What is added to the mean square of preferences in every direction, as a share of its mean."""
ITEM_WEIGHT = 0.5
"""An item counts for its popularity to this power when centroids are chosen."""
MAX_ROUNDS = 12
TRAINING_ITEMS = 1 << 16
COMPARED_AT_ONCE = 4096
DECODED_AT_ONCE = 2048
"""So many items are decoded at once, so that they are still in the cache when they are multiplied."""


@dataclass(frozen=True, eq=False)
class ItemCodes:
    """Item vectors, the bias as last column, as an array that decodes the rows that are asked for.

    Without centroids a row is code @ basis; with centroids it is the centroid of each code, side by side, @ basis.
    Vectors that were `added` are the last rows, as they are.

    >>> vectors = np.random.default_rng(0).normal(size=(1000, 9)).astype(np.float32)
    >>> codes = int8_codes(vectors)
    >>> len(codes), codes.nbytes, bool(np.abs(codes[np.array([3, 1])] - vectors[[3, 1]]).max() < 0.03)
    (1000, 9324, True)
    """

    codes: Integer[np.ndarray, "item part"]
    basis: Float[np.ndarray, "coordinate hidden_plus_one"]
    centroids: Float[np.ndarray, "part centroid part_width"] | None = None
    added: Float[np.ndarray, "added hidden_plus_one"] | None = None

    def __len__(self) -> int:
        return len(self.codes) + self._num_added

    @property
    def _num_added(self) -> int:
        return 0 if self.added is None else len(self.added)

    def __getitem__(self, rows: slice | Int[np.ndarray, "*row"]) -> Float[np.ndarray, "*row hidden_plus_one"]:
        """The vectors of some items."""
        if self.added is None:
            vectors: Float[np.ndarray, "*row hidden_plus_one"] = self._coordinates(self.codes[rows]) @ self.basis
            return vectors
        row = np.arange(len(self))[rows] if isinstance(rows, slice) else rows
        vectors, index = replace(self, added=None)[np.minimum(row, len(self.codes) - 1)], row - len(self.codes)
        vectors[index >= 0] = self.added[index[index >= 0]]
        return vectors

    @property
    def shape(self) -> tuple[int, int]:
        """The number of items, and of the columns of a vector."""
        return len(self), self.basis.shape[1]

    @property
    def nbytes(self) -> int:
        """Bytes of memory."""
        return sum(table.nbytes for table in (*self.tensors().values(), self.added) if table is not None)

    def block(self, span: slice) -> ItemCodes:
        """The codes of some items, which stay where they are."""
        first, last = (max(0, one - len(self.codes)) for one in (span.start, span.stop))
        added = None if self.added is None or last == 0 else self.added[first:last]
        return replace(self, codes=self.codes[span], added=added)

    def logits(
        self, preference: Float[np.ndarray, "row hidden_plus_one"], out: Float[np.ndarray, "row item"]
    ) -> Float[np.ndarray, "row item"]:
        """The inner products with all items, written to `out`; the basis is applied to the preferences, once."""
        turned = preference @ self.basis.T
        num_codes = len(self.codes)
        for first in range(0, num_codes, DECODED_AT_ONCE):
            span = slice(first, min(first + DECODED_AT_ONCE, num_codes))
            np.matmul(turned, self._coordinates(self.codes[span]).T, out=out[:, span])
        if self.added is not None:
            np.matmul(preference, self.added.T, out=out[:, num_codes:])
        return out

    def _coordinates(self, codes: Integer[np.ndarray, "*row part"]) -> Float[np.ndarray, "*row coordinate"]:
        if self.centroids is None:
            return codes.astype(np.float32)
        num_parts, num_centroids, part_width = self.centroids.shape
        found = self.centroids.reshape(-1, part_width)[codes + num_centroids * np.arange(num_parts)]
        return found.reshape(*codes.shape[:-1], num_parts * part_width)

    def tensors(self) -> dict[str, np.ndarray]:
        """The tables of a file, by name."""
        centroids = {} if self.centroids is None else {"centroids": self.centroids}
        return {"codes": self.codes, "basis": self.basis, **centroids}

    @classmethod
    def of_tensors(cls, tensors: Mapping[str, np.ndarray]) -> ItemCodes:
        """The inverse of `tensors`. Raises ValueError for tables that do not fit together."""
        codes, basis, centroids = tensors["codes"], tensors["basis"], tensors.get("centroids")
        found, needed = codes.shape[1], len(basis)
        if centroids is not None:
            found, needed = len(centroids) * centroids.shape[2], needed if len(centroids) == codes.shape[1] else -1
            if codes.min(initial=0) < 0 or codes.max(initial=0) >= centroids.shape[1]:
                raise ValueError(f"codes name centroids beyond the {centroids.shape[1]} that there are")
        if found != needed or not all(np.isfinite(one).all() for one in (basis, centroids) if one is not None):
            raise ValueError("codes, centroids and basis of the item vectors do not fit together")
        return cls(codes, basis, centroids)


ItemVectors = Float[np.ndarray, "item width"] | ItemCodes


def without_bias(vectors: ItemVectors) -> Float[np.ndarray, "item hidden"] | ItemCodes:
    """The vectors without their last column."""
    if not isinstance(vectors, ItemCodes):
        return vectors[:, :-1]
    return replace(vectors, basis=vectors.basis[:, :-1], added=None if vectors.added is None else vectors.added[:, :-1])


def with_rows(
    vectors: ItemVectors, added: Float[np.ndarray, "added width"]
) -> Float[np.ndarray, "item_and_added width"] | ItemCodes:
    """The vectors with further ones behind them; codes stay codes."""
    return replace(vectors, added=added) if isinstance(vectors, ItemCodes) else np.concatenate([vectors, added])


def int8_codes(vectors: Float[np.ndarray, "item hidden_plus_one"]) -> ItemCodes:
    """Each column in 255 equal steps between its largest absolute value and the negative of it."""
    step = np.maximum(np.abs(vectors).max(axis=0), np.finfo(np.float32).tiny) / 127
    return ItemCodes(np.rint(vectors / step).astype(np.int8), np.diag(step).astype(np.float32))


def product_codes(
    vectors: Float[np.ndarray, "item hidden_plus_one"],
    mean_square: Float[np.ndarray, "hidden_plus_one hidden_plus_one"],
    popularity: Float[np.ndarray, " item"],
) -> ItemCodes:
    """One byte for each `PART_WIDTH` dimensions: the nearest of 256 centroids there.

    What an error e of an item vector costs is the mean square of the logits' error, eᵀ C e with C = E[p pᵀ] over
    preferences p. So vectors are turned and stretched until that is their squared length, and popular items count more.
    The directions are dealt out to the parts so that each part has about the same product of variances.
    Sources: Jégou, Douze and Schmid 2011 (product quantization); Ge et al. 2013, section 3.2 (the parts); Guo et al.
    2020 (errors of the inner product, not of the vector).

    Args:
        vectors: Item vectors, the bias as last column.
        mean_square: C, of preferences with what the bias is multiplied by as last number.
        popularity: The share of each item among the events.
    """
    weight = popularity**ITEM_WEIGHT
    weight /= weight.sum()
    square, turn = np.linalg.eigh(mean_square)
    stretch = np.sqrt(np.maximum(square, 0.0) + RIDGE * square.mean())
    coordinates = vectors @ (turn * stretch)
    mean = weight @ coordinates
    num_parts = -(-(vectors.shape[1] - 1) // PART_WIDTH)
    kept = np.argsort(-(weight @ np.square(coordinates)), kind="stable")[: num_parts * PART_WIDTH]
    parts = _balanced_parts(kept, weight @ np.square(coordinates - mean), num_parts)
    padded = np.concatenate([coordinates, np.zeros_like(coordinates[:, :1])], axis=1)
    found = [_clustered(padded[:, part].astype(np.float32), weight) for part in parts]
    back = np.concatenate([(turn / stretch).T, np.zeros_like(turn[:1])])
    centroids = np.stack([one for one, _ in found])
    return ItemCodes(np.stack([code for _, code in found], axis=1), back[parts.ravel()].astype(np.float32), centroids)


def _balanced_parts(
    dimensions: Int[np.ndarray, " kept"], variance: Float[np.ndarray, " dimension"], num_parts: int
) -> Int[np.ndarray, "part part_width"]:
    """Dimensions dealt out from the largest variance on, each to the part with the smallest product so far.

    −1 stands where there are too few.

    >>> _balanced_parts(np.arange(8), np.array([9.0, 8, 7, 6, 5, 4, 3, 2]), 2)
    array([[0, 3, 4, 7],
           [1, 2, 5, 6]])
    """
    log_variance = np.log(np.maximum(variance, np.finfo(np.float32).tiny))
    log_variance -= log_variance[dimensions].min()
    parts: list[list[int]] = [[] for _ in range(num_parts)]
    product = np.zeros(num_parts)
    for dimension in dimensions[np.argsort(-variance[dimensions], kind="stable")].tolist():
        is_open = np.array([len(part) < PART_WIDTH for part in parts])
        chosen = int(np.where(is_open, product, np.inf).argmin())
        parts[chosen].append(dimension)
        product[chosen] += log_variance[dimension]
    return np.array([part + [-1] * (PART_WIDTH - len(part)) for part in parts])


def _clustered(
    points: Float[np.ndarray, "item part_width"], weight: Float[np.ndarray, " item"]
) -> tuple[Float[np.ndarray, "centroid part_width"], Integer[np.ndarray, " item"]]:
    """Weighted k-means (Lloyd 1982) from random points: the centroids, and the nearest one of each point."""
    generator = np.random.default_rng(0)
    rows = np.sort(generator.permutation(len(points))[:TRAINING_ITEMS])
    trained, of_trained = points[rows], weight[rows]
    number = min(NUM_CENTROIDS, len(trained))
    first = generator.choice(len(trained), number, replace=False, p=of_trained / of_trained.sum())
    centroids = trained[first]
    for _ in range(MAX_ROUNDS):
        nearest = _nearest(trained, centroids)
        mass = np.bincount(nearest, of_trained, number)
        sums = np.stack([np.bincount(nearest, of_trained * column, number) for column in trained.T], axis=1)
        centroids = np.where(mass[:, None] > 0, sums / np.maximum(mass, 1e-30)[:, None], centroids).astype(np.float32)
    return centroids, _nearest(points, centroids)


def _nearest(
    points: Float[np.ndarray, "item part_width"], centroids: Float[np.ndarray, "centroid part_width"]
) -> Integer[np.ndarray, " item"]:
    half_square = np.square(centroids).sum(axis=1) / 2
    found = np.empty(len(points), dtype=np.uint8)
    for first in range(0, len(points), COMPARED_AT_ONCE):
        span = slice(first, first + COMPARED_AT_ONCE)
        found[span] = (half_square - points[span] @ centroids.T).argmin(axis=1)
    return found
