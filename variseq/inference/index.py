"""A large catalogue into the few items worth looking at, by an inverted file; the rest is known from a sample of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from variseq.errors import CheckpointError, MissingExtra
from variseq.inference.softmaxes import Block, Catalogue

EXACT_ITEMS = 50_000
"""Catalogues up to this size are looked at whole, as in training; larger ones through an index."""
NUM_CANDIDATES = 256
NUM_SAMPLED = 2048
LISTS_PER_ROOT = 4
"""The file has so many lists times the square root of the number of items."""
PROBED_LISTS = 128
TRAINING_VECTORS_PER_LIST = 64


def build_index(vectors: Float[np.ndarray, "item width_plus_one"], path: Path) -> None:
    """Write an inverted file of item vectors (the bias as last column) for inner products.

    Source: Jégou, Douze and Schmid 2011, with whole vectors in the lists (IVF-Flat). Raises MissingExtra without faiss.
    """
    faiss = _faiss()
    num_items, width = vectors.shape
    num_lists = int(LISTS_PER_ROOT * np.sqrt(num_items))
    quantiser = faiss.IndexFlatIP(width)
    index = faiss.IndexIVFFlat(quantiser, width, num_lists, faiss.METRIC_INNER_PRODUCT)
    chosen = np.random.default_rng(0).permutation(num_items)[: TRAINING_VECTORS_PER_LIST * num_lists]
    index.train(vectors[np.sort(chosen)])
    index.add(vectors)
    faiss.write_index(index, str(path))


class ItemIndex:
    """For a preference the items with the highest logits, nearly always, and a catalogue that stands for all items.

    The sum over all items of exp(logit) is that over the candidates, which is exact, plus that over a fixed random
    sample of the others, each standing for as many as there are to one of it (Mussmann et al. 2017, section 3).
    """

    def __init__(self, path: Path, vectors: Float[np.ndarray, "item width_plus_one"]) -> None:
        """Raises CheckpointError for a file that cannot be read, and MissingExtra without faiss."""
        faiss = _faiss()
        try:
            self.index = faiss.read_index(str(path))
        except RuntimeError as error:
            raise CheckpointError(f"{path} is damaged. Export the run again: variseq export RUN") from error
        if self.index.ntotal != len(vectors) or self.index.d != vectors.shape[1]:
            raise CheckpointError(f"{path} is of another model. Export the run again: variseq export RUN")
        self.index.nprobe = PROBED_LISTS
        faiss.omp_set_num_threads(1)
        self.vectors = vectors
        self.sampled = np.sort(np.random.default_rng(0).permutation(len(vectors))[:NUM_SAMPLED])
        self._of_sample = np.ascontiguousarray(vectors[self.sampled].T)

    def best(self, query: Float[np.ndarray, "history width_plus_one"]) -> Int[np.ndarray, "history candidate"]:
        """The items with the highest inner products, nearly always; −1 where too few were found."""
        _, item = self.index.search(np.ascontiguousarray(query, dtype=np.float32), NUM_CANDIDATES)
        return item

    def catalogue(self, listed: Int[np.ndarray, " item"]) -> Catalogue:
        """Items that are looked at themselves, and the sample that stands for all others."""
        listed = np.unique(listed[listed >= 0])
        # What is listed stands for itself there, and for nothing in the sample.
        place = np.searchsorted(self.sampled, listed).clip(max=len(self.sampled) - 1)
        place = place[self.sampled[place] == listed]
        stands_for = (len(self.vectors) - len(listed)) / max(1, len(self.sampled) - len(place))
        counts = np.full(len(self.sampled), stands_for, dtype=np.float32)
        counts[place] = 0.0
        first = Block(slice(0, len(listed)), np.ascontiguousarray(self.vectors[listed].T))
        span = slice(len(listed), len(listed) + len(self.sampled))
        rest = Block(span, self._of_sample, counts)
        return Catalogue([first, rest], listed, self.sampled)


def _faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise MissingExtra("faiss-cpu", "index") from error
    return faiss
