"""Items with like public content: they stand beside the released pairs, with a weight that is given or paid for."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int

from variseq.content.item_content import ItemContent
from variseq.events.items import ItemTable
from variseq.events.vocabulary import Vocabulary
from variseq.privacy.release import PairCounts
from variseq.ranking.content_table import ContentTable
from variseq.ranking.counts import PRIOR_EVENTS

SHARPNESS = 4
"""Two items are alike as the fourth power of their cosine: few items are much alike."""
POPULARITY_POWER = 0.5
"""Of two items that are equally alike, one with four times the popularity counts twice."""
MOST_ALIKE = 100
"""So many items are kept for each item."""
CELLS_AT_ONCE = 1 << 24


@dataclass(frozen=True, eq=False)
class AlikeItems:
    """The items whose public content is most like that of each item.

    Args:
        item: Which they are.
        share: How alike, times the root of their popularity; a row sums to 1, or to 0 where nothing is alike.
    """

    item: Int[np.ndarray, "item alike"]
    share: Float[np.ndarray, "item alike"]

    @classmethod
    def of(cls, content: ContentTable, popularity: Float[np.ndarray, " item"]) -> AlikeItems:
        """By the content of each item and its released popularity."""
        num_items, directions = len(popularity), content.directions(slice(None))
        size, number = max(1, CELLS_AT_ONCE // num_items), min(MOST_ALIKE, num_items - 1)
        factor = popularity.astype(np.float32) ** POPULARITY_POWER
        item = np.zeros((num_items, number), dtype=np.int64)
        share = np.zeros((num_items, number))
        for first in range(0, num_items, size):
            rows = np.arange(first, min(first + size, num_items))
            likeness = np.maximum(directions[rows] @ directions.T, 0) ** SHARPNESS * factor
            likeness[np.arange(len(rows)), rows] = 0
            item[rows] = np.argpartition(-likeness, number - 1, axis=1)[:, :number]
            share[rows] = np.take_along_axis(likeness, item[rows], axis=1)
        return cls(item, share / np.maximum(share.sum(axis=1, keepdims=True), 1e-30))


def public_content(items: ItemTable, vocabulary: Vocabulary) -> ContentTable | None:
    """The content of a public catalog, by an encoder that is fitted to it alone; None for one without content."""
    ids = vocabulary.items.to_pylist()
    encoder = ItemContent.fit(items.table, np.ones(len(ids), dtype=bool), ids=ids)
    return None if encoder is None else ContentTable.of(encoder.encode(items.table, ids))


def with_content(counts: PairCounts, alike: AlikeItems, weight: float) -> PairCounts:
    """The released pairs of each item and the items most like it, with a weight for the latter.

    An item without released pairs has the likeness alone; the popularity then has the rest of the weight.

    Args:
        counts: What was released.
        alike: The items with like public content.
        weight: Of content, from 0 to below 1.
    """
    if not weight:
        return counts
    num_items = len(counts.share)
    row = np.repeat(np.arange(num_items), np.diff(counts.offsets))
    total = np.bincount(row, weights=counts.count, minlength=num_items)
    # As probabilities, (1 − weight) · pairs + weight · content; where there are no pairs they are the popularity.
    of_content = np.where(total > 0, total, PRIOR_EVENTS) * weight / (1 - weight)
    kept = alike.share > 0
    added = np.repeat(np.arange(num_items), kept.sum(axis=1))
    pair = np.concatenate([row * num_items + counts.neighbor, added * num_items + alike.item[kept]])
    count = np.concatenate([counts.count, (alike.share * of_content[:, None])[kept]])
    pair, cell = np.unique(pair, return_inverse=True)
    return replace(
        counts,
        offsets=np.searchsorted(pair, np.arange(num_items + 1) * num_items),
        neighbor=(pair % num_items).astype(np.int32),
        count=np.bincount(cell, weights=count, minlength=len(pair)).astype(np.float32),
        chosen_share=weight + (1 - weight) * counts.chosen_share,
    )
