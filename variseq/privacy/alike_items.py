"""Items that are alike, by the release itself or by public content: they stand beside the released pairs."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int

from variseq.content.item_content import ItemContent
from variseq.events.items import ItemTable
from variseq.events.vocabulary import Vocabulary
from variseq.privacy.contributions import Pairs
from variseq.privacy.release import PairCounts
from variseq.ranking.content_table import ContentTable
from variseq.ranking.counts import PRIOR_EVENTS

RELEASE_WEIGHT = 0.2
"""Of items with like neighbors in the release. It is public; docs/development/log.md has what others give."""
SHARPNESS = 4
"""Two items are alike as the fourth power of their cosine: few items are much alike."""
POPULARITY_POWER = 0.5
"""Of two items that are equally alike, one with four times the popularity counts twice."""
MOST_ALIKE = 100
"""So many items are kept for each item."""
CELLS_AT_ONCE = 1 << 24


@dataclass(frozen=True, eq=False)
class AlikeItems:
    """The items that are most like each item, as pairs by their first item.

    Args:
        row: The first item of each pair.
        item: The second one.
        share: How alike, times the root of the second one's popularity; those of a row sum to 1.
    """

    row: Int[np.ndarray, " pair"]
    item: Int[np.ndarray, " pair"]
    share: Float[np.ndarray, " pair"]

    @classmethod
    def of(cls, vectors: ContentTable, popularity: Float[np.ndarray, " item"]) -> AlikeItems:
        """By the directions of the items, such as those of their content, and the released popularity."""
        known = np.flatnonzero(vectors.codes.any(axis=1))
        directions, number = vectors.directions(known), min(MOST_ALIKE, max(len(known) - 1, 0))
        size, factor = max(1, CELLS_AT_ONCE // max(1, len(known))), popularity[known] ** POPULARITY_POWER
        parts = [(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64), np.zeros(0))]
        for first in range(0, len(known) if number else 0, size):
            of_part = np.arange(first, min(first + size, len(known)))
            likeness = np.maximum(directions[of_part] @ directions.T, 0) ** SHARPNESS * factor.astype(np.float32)
            likeness[np.arange(len(of_part)), of_part] = 0
            column = np.argpartition(-likeness, number - 1, axis=1)[:, :number]
            share = np.take_along_axis(likeness, column, axis=1).astype(np.float64)
            share /= np.maximum(share.sum(axis=1, keepdims=True), 1e-30)
            kept = share > 0
            parts.append((known[np.repeat(of_part, kept.sum(axis=1))], known[column[kept]], share[kept]))
        return cls(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def public_content(items: ItemTable, vocabulary: Vocabulary) -> ContentTable | None:
    """The content of a public catalog, by an encoder that is fitted to it alone; None for one without content."""
    ids = vocabulary.items.to_pylist()
    encoder = ItemContent.fit(items.table, np.ones(len(ids), dtype=bool), ids=ids)
    return None if encoder is None else ContentTable.of(encoder.encode(items.table, ids))


def with_alike(counts: PairCounts, alike: AlikeItems, weight: float) -> PairCounts:
    """The released pairs of each item and the items most like it, with a weight for the latter.

    An item without released pairs has the likeness alone; the popularity then has the rest of the weight. The weight is
    also taken from the uniform part of the mixture.

    Args:
        counts: What was released.
        alike: The items that are alike.
        weight: Of them, from 0 to below 1.
    """
    if not weight:
        return counts
    num_items = len(counts.share)
    row = np.repeat(np.arange(num_items), np.diff(counts.offsets))
    total = np.bincount(row, weights=counts.count, minlength=num_items)
    # As probabilities, (1 − weight) · pairs + weight · alike; where there are no pairs they are the popularity.
    of_alike = np.where(total > 0, total, PRIOR_EVENTS) * weight / (1 - weight)
    pair = np.concatenate([row * num_items + counts.neighbor, alike.row * num_items + alike.item])
    count = np.concatenate([counts.count, alike.share * of_alike[alike.row]])
    pair, cell = np.unique(pair, return_inverse=True)
    return replace(
        counts,
        offsets=np.searchsorted(pair, np.arange(num_items + 1) * num_items),
        neighbor=(pair % num_items).astype(np.int32),
        count=np.bincount(cell, weights=count, minlength=len(pair)).astype(np.float32),
        chosen_share=weight + (1 - weight) * counts.chosen_share,
    )


def smoothed_counts(counts: PairCounts, kind: Pairs) -> PairCounts:
    """Near pairs of a release beside those of items with like neighbors.

    It is made of the release alone, so it costs no privacy. Noise hides many pairs, and less of what items have in
    common. Pairs in a row keep their counts, as what follows an item may be all that there is to know.
    """
    if kind != "near":
        return counts
    directions = ContentTable.of(counts.vectors[:, :-1])
    return with_alike(counts, AlikeItems.of(directions, counts.share), RELEASE_WEIGHT)
