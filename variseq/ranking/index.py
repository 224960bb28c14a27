"""A large catalog into the few items worth looking at, by an inverted file; the rest is known from a sample of it."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from variseq.distinct import distinct
from variseq.errors import CheckpointError, MissingDependencyError
from variseq.ranking.item_codes import PART_WIDTH, Compression, ItemVectors
from variseq.ranking.softmax import Block, Columns

EXACT_ITEMS = 50_000
"""Catalogs up to this size are looked at whole, as in training; larger ones through an index."""
NUM_CANDIDATES = 256
NUM_TRENDING = 100
"""What was most popular of late is looked at for everybody, as many items as the longest list that is not exact."""
NUM_NEAR = 100
"""So many items that are nearest to the history on the map are looked at, where items have coordinates."""
NUM_SAMPLED = 2048
LISTS_PER_ROOT = 4
"""The file has so many lists times the square root of the number of items."""
PROBED_LISTS = 128
TRAINING_VECTORS_PER_LIST = 64


def build_index(vectors: Float[np.ndarray, "item hidden_plus_one"], path: Path, compress: Compression = "none") -> None:
    """Write an inverted file of item vectors (the bias as last column) for inner products.

    Source: Jégou, Douze and Schmid 2011; its lists hold whole vectors, 8 bits a number, or product codes of one byte
    for four numbers. Raises MissingDependencyError without faiss.
    """
    faiss = _faiss()
    if compress == "pq":
        vectors = _padded(vectors, -(-vectors.shape[1] // PART_WIDTH) * PART_WIDTH)
    num_items, width = vectors.shape
    num_lists = int(LISTS_PER_ROOT * np.sqrt(num_items))
    # "np": codes are not renumbered for a search by Hamming distance, which takes ten times as long and is not used.
    stored = {"none": "Flat", "int8": "SQ8", "pq": f"PQ{width // PART_WIDTH}np"}[compress]
    index = faiss.index_factory(width, f"IVF{num_lists},{stored}", faiss.METRIC_INNER_PRODUCT)
    chosen = np.random.default_rng(0).permutation(num_items)[: TRAINING_VECTORS_PER_LIST * num_lists]
    index.train(vectors[np.sort(chosen)])
    index.add(vectors)
    faiss.write_index(index, str(path))


class ItemIndex:
    """For a preference the items with the highest logits, nearly always, and a catalog that stands for all items.

    The sum over all items of exp(logit) is that over the candidates, which is exact, plus that over a fixed random
    sample of the others, each standing for as many as there are to one of it (Mussmann et al. 2017, section 3).
    """

    def __init__(self, path: Path, vectors: ItemVectors) -> None:
        """Raises CheckpointError for a file that cannot be read, and MissingDependencyError without faiss."""
        faiss = _faiss()
        try:
            self.index = faiss.read_index(str(path))
        except RuntimeError as error:
            raise CheckpointError(f"{path} is damaged. Export the run again: variseq export RUN") from error
        if self.index.ntotal != len(vectors) or not 0 <= self.index.d - vectors.shape[1] < PART_WIDTH:
            raise CheckpointError(f"{path} is of another model. Export the run again: variseq export RUN")
        self.index.nprobe, self._chosen = PROBED_LISTS, None
        faiss.omp_set_num_threads(1)
        self.num_trending = NUM_TRENDING
        self.sampled = np.sort(np.random.default_rng(0).permutation(len(vectors))[:NUM_SAMPLED])
        self._of_sample = np.ascontiguousarray(vectors[self.sampled].T)
        self._set(vectors)

    def _set(self, vectors: ItemVectors) -> None:
        self.vectors = vectors
        self._column_of = np.full(len(vectors), -1, dtype=np.int32)
        """The column of each item in the sample, −1 outside of it."""
        self._column_of[self.sampled] = np.arange(len(self.sampled))

    def best(self, query: Float[np.ndarray, "history hidden_plus_one"]) -> Int[np.ndarray, "history candidate"]:
        """The items with the highest inner products, nearly always; −1 where too few were found."""
        _, item = self.index.search(_padded(query, self.index.d), NUM_CANDIDATES, params=self._chosen)
        return item

    def changed(self, vectors: ItemVectors, removed: Int[np.ndarray, " removed"]) -> ItemIndex:
        """The same index for a catalog with items behind its own, which it does not find, and without removed ones."""
        index, faiss = copy.copy(self), _faiss()
        index._set(vectors)
        if len(removed):
            selector = faiss.IDSelectorNot(faiss.IDSelectorBatch(removed))
            index._chosen = faiss.SearchParametersIVF(sel=selector, nprobe=PROBED_LISTS)
        return index

    def columns(self, row: Int[np.ndarray, " cell"], item: Int[np.ndarray, " cell"], num_histories: int) -> Columns:
        """Columns of the items that are looked at themselves for each history, and of the sample for all others.

        Each history has at least one item.
        """
        listed, is_own = shortlists(row, item, num_histories)
        # What is listed stands for itself there, and for nothing in the sample.
        column = self._column_of[listed]
        row, cell = np.nonzero(is_own & (column >= 0))
        num_both = np.bincount(row, minlength=num_histories)
        stands_for = (len(self.vectors) - is_own.sum(axis=1)) / np.maximum(1, len(self.sampled) - num_both)
        counts = np.repeat(stands_for[:, None].astype(np.float32), len(self.sampled), axis=1)
        counts[row, column[row, cell]] = 0.0
        middle = listed.shape[1]
        own = Block(slice(0, middle), self.vectors[listed].swapaxes(1, 2), is_own.astype(np.float32))
        rest = Block(slice(middle, middle + len(self.sampled)), self._of_sample, counts)
        return Columns([own, rest], len(self.vectors), listed, self.sampled)


def _padded(vectors: Float[np.ndarray, "row hidden_plus_one"], width: int) -> Float[np.ndarray, "row width"]:
    return np.pad(vectors.astype(np.float32), ((0, 0), (0, width - vectors.shape[1])))


def shortlists(
    row: Int[np.ndarray, " cell"], item: Int[np.ndarray, " cell"], num_histories: int
) -> tuple[Int[np.ndarray, "history listed"], Bool[np.ndarray, "history listed"]]:
    """The items of each history, ascending, and which are its own: a shorter row repeats its last item.

    Pairs of a history and an item come in any order, repeats allowed; each history has at least one.

    >>> shortlists(np.array([1, 0, 1, 1]), np.array([7, 4, 2, 7]), 2)
    (array([[4, 4],
           [2, 7]]), array([[ True, False],
           [ True,  True]]))
    """
    num_items = int(item.max()) + 1
    row, item = np.divmod(distinct(row * num_items + item), num_items)
    lengths = np.bincount(row, minlength=num_histories)
    position, end = np.arange(lengths.max()), np.cumsum(lengths)
    source = np.minimum((end - lengths)[:, None] + position, end[:, None] - 1)
    return item[source], position < lengths[:, None]


def _faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise MissingDependencyError("faiss-cpu", "index") from error
    return faiss
