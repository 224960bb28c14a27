"""Pairs of items whose public content is alike: they add to the released pairs and cost no privacy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import Float, Int

from variseq.content.item_content import ItemContent
from variseq.events.items import ItemTable
from variseq.events.vocabulary import Vocabulary
from variseq.privacy.release import PairCounts
from variseq.ranking.counts import PRIOR_EVENTS

SHARPNESS = 4
"""Two items are alike as the fourth power of their cosine: few items are much alike."""
POPULARITY_POWER = 0.5
"""Of two items that are equally alike, one with four times the popularity counts twice."""
MOST_ALIKE = 100
"""So many items are kept for each item."""
CELLS_AT_ONCE = 1 << 24


def content_directions(items: ItemTable, vocabulary: Vocabulary) -> Float[np.ndarray, "item content"] | None:
    """The content of each item of a public catalog as a vector of length 1, or 0 where nothing is known.

    The encoder is fitted to the catalog alone. None for a catalog without texts, categories and vectors.
    """
    ids = vocabulary.items.to_pylist()
    encoder = ItemContent.fit(items.table, np.ones(len(ids), dtype=bool), ids=ids)
    if encoder is None:
        return None
    vectors = encoder.encode(items.table, ids)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    directions: Float[np.ndarray, "item content"] = (vectors / np.maximum(lengths, 1e-9)).astype(np.float32)
    return directions


def with_content(counts: PairCounts, directions: Float[np.ndarray, "item content"], weight: float) -> PairCounts:
    """The released pairs of each item and the items most like it, with a weight for the latter.

    An item without released pairs has the likeness alone; the popularity then has the rest of the weight.

    Args:
        counts: What was released.
        directions: The public content of each item.
        weight: Of content, between 0 and 1.
    """
    num_items = len(counts.share)
    lengths = np.diff(counts.offsets)
    row = np.repeat(np.arange(num_items), lengths)
    total = np.bincount(row, weights=counts.count, minlength=num_items)
    # As probabilities, (1 − weight) · pairs + weight · content; where there are no pairs they are the popularity.
    of_content = np.where(total > 0, total, PRIOR_EVENTS) * weight / (1 - weight)
    alike, share = _most_alike(directions, counts.share)
    kept = share > 0
    added = np.repeat(np.arange(num_items), kept.sum(axis=1))
    pair = np.concatenate([row * num_items + counts.neighbor, added * num_items + alike[kept]])
    count = np.concatenate([counts.count, (share * of_content[:, None])[kept]])
    pair, cell = np.unique(pair, return_inverse=True)
    return replace(
        counts,
        offsets=np.searchsorted(pair, np.arange(num_items + 1) * num_items),
        neighbor=(pair % num_items).astype(np.int32),
        count=np.bincount(cell, weights=count, minlength=len(pair)).astype(np.float32),
        chosen_share=weight + (1 - weight) * counts.chosen_share,
    )


def _most_alike(
    directions: Float[np.ndarray, "item content"], popularity: Float[np.ndarray, " item"]
) -> tuple[Int[np.ndarray, "item alike"], Float[np.ndarray, "item alike"]]:
    """The items most like each item, and their shares, which sum to 1 where any item is alike."""
    num_items = len(popularity)
    size, number = max(1, CELLS_AT_ONCE // num_items), min(MOST_ALIKE, num_items - 1)
    factor = popularity.astype(np.float32) ** POPULARITY_POWER
    alike = np.zeros((num_items, number), dtype=np.int64)
    share = np.zeros((num_items, number))
    for first in range(0, num_items, size):
        rows = np.arange(first, min(first + size, num_items))
        likeness = np.maximum(directions[rows] @ directions.T, 0) ** SHARPNESS * factor
        likeness[np.arange(len(rows)), rows] = 0
        alike[rows] = np.argpartition(-likeness, number - 1, axis=1)[:, :number]
        share[rows] = np.take_along_axis(likeness, alike[rows], axis=1)
    share /= np.maximum(share.sum(axis=1, keepdims=True), 1e-30)
    return alike, share
