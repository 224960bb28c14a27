"""Ranking metrics of one target per query, and what accuracy does not measure: exposure, novelty, diversity."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

_LISTS_AT_ONCE = 256


def ndcg(rank: Float[np.ndarray, " query"], k: int) -> Float[np.ndarray, " query"]:
    """Normalized discounted cumulative gain of one relevant item: 1 / log2(rank + 1), or 0 when rank > k.

    With one target the ideal gain is 1 (rank 1), so nothing is left to normalize.
    Source: Järvelin and Kekäläinen, "Cumulated gain-based evaluation of IR techniques" (2002).

    Args:
        rank: Rank of each target, from 1; inf is a miss.
        k: Length of the list.

    Returns:
        A value from 0 to 1 for each query.

    >>> ndcg(np.array([1.0, 3.0, 11.0, np.inf]), k=10)
    array([1. , 0.5, 0. , 0. ])
    """
    return np.where(rank <= k, 1 / np.log2(rank + 1), 0.0)


def recall(rank: Float[np.ndarray, " query"], k: int) -> Float[np.ndarray, " query"]:
    """Share of the relevant items that are in the top k. With one target this is the hit rate.

    Args:
        rank: Rank of each target, from 1; inf is a miss.
        k: Length of the list.

    Returns:
        0 or 1 for each query.

    >>> recall(np.array([1.0, 3.0, 11.0, np.inf]), k=10)
    array([1., 1., 0., 0.])
    """
    return (rank <= k).astype(np.float64)


def reciprocal_rank(rank: Float[np.ndarray, " query"]) -> Float[np.ndarray, " query"]:
    """1 / rank over the whole catalog, without a cut at k; its mean is the MRR.

    Source: Voorhees, "The TREC-8 question answering track report" (1999).

    Args:
        rank: Rank of each target, from 1; inf is a miss.

    Returns:
        A value from 0 to 1 for each query.

    >>> reciprocal_rank(np.array([1.0, 4.0, np.inf]))
    array([1.  , 0.25, 0.  ])
    """
    return 1 / rank


def auc(score: Float[np.ndarray, " query"], is_positive: Bool[np.ndarray, " query"]) -> float | None:
    """The probability that a random positive has a higher score than a random negative; ties count half.

    Source: Hanley and McNeil, "The meaning and use of the area under a ROC curve" (1982).

    Args:
        score: What the queries are ordered by.
        is_positive: Which of them are positive.

    Returns:
        A value from 0 to 1; None where all queries are of one kind.

    >>> auc(np.array([0.9, 0.4, 0.4, 0.1]), np.array([True, True, False, False]))
    0.875
    """
    num_positives = int(is_positive.sum())
    num_pairs = num_positives * (len(score) - num_positives)
    if not num_pairs:
        return None
    kind, count = np.unique(score, return_inverse=True, return_counts=True)[1:]
    mean_rank = np.cumsum(count) - (count - 1) / 2
    above = float(mean_rank[kind][is_positive].sum()) - num_positives * (num_positives + 1) / 2
    return above / num_pairs


def exposure(top_item: Int[np.ndarray, "query k"], num_items: int) -> Int[np.ndarray, " item"]:
    """The number of lists that hold each item; -1 in a list is an empty position."""
    return np.bincount(top_item[top_item >= 0], minlength=num_items)


def catalog_coverage(count: Int[np.ndarray, " item"]) -> float:
    """Share of the catalog that is in at least one list.

    Source: Ge, Delgado-Battenfeld and Jannach, "Beyond accuracy" (2010).

    Args:
        count: Exposure of each item of the catalog, see `exposure`.

    >>> catalog_coverage(np.array([3, 0, 1, 0]))
    0.5
    """
    return float((count > 0).mean())


def gini(count: Int[np.ndarray, " item"]) -> float:
    """Gini index of exposure over the whole catalog: 0 when all items are shown equally, near 1 when one has it all.

    sum_i (2 i - n - 1) x_i / (n sum x) over exposures x_1 <= ... <= x_n; 0 when nothing is shown.
    Source: Gini, "Variabilità e mutabilità" (1912).

    Args:
        count: Exposure of each item of the catalog, see `exposure`.

    >>> gini(np.array([5, 5, 5])), gini(np.array([0, 0, 0, 8]))
    (0.0, 0.75)
    """
    total = count.sum()
    if total == 0:
        return 0.0
    weight = 2 * np.arange(1, len(count) + 1) - len(count) - 1
    return float((weight * np.sort(count)).sum() / (len(count) * total))


def novelty(
    top_item: Int[np.ndarray, "query k"], train_item_count: Int[np.ndarray, " item"]
) -> Float[np.ndarray, " query"]:
    """Mean -log2 of the popularity share of the items of each list.

    The share is (count + 1) / (total + num_items), so that an item without a training event has a finite value.
    Source: Vargas and Castells, "Rank and relevance in novelty and diversity metrics" (2011), self-information.

    Args:
        top_item: The list of each query; -1 is an empty position.
        train_item_count: Training events of each item.

    Returns:
        Bits for each query; NaN for an empty list.
    """
    share = (train_item_count + 1) / (train_item_count.sum() + len(train_item_count))
    bits = np.where(top_item >= 0, -np.log2(share)[top_item], 0.0)
    num_filled = (top_item >= 0).sum(axis=1)
    return np.where(num_filled > 0, bits.sum(axis=1) / np.maximum(num_filled, 1), np.nan)


def diversity(
    top_item: Int[np.ndarray, "query k"], item_categories: Sequence[Sequence[str]]
) -> Float[np.ndarray, " query"]:
    """Intra-list diversity: the mean over pairs of 1 - Jaccard similarity of their category sets.

    Pairs in which an item has no category are left out.
    Source: Ziegler et al., "Improving recommendation lists through topic diversification" (2005).

    Args:
        top_item: The list of each query; -1 is an empty position.
        item_categories: The categories of each item of the catalog.

    Returns:
        A value from 0 to 1 for each query; NaN for a list without a pair.

    >>> diversity(np.array([[0, 1], [0, 2]]), [("drama", "war"), ("drama",), ("comedy",)])
    array([0.5, 1. ])
    """
    code, size = _category_codes(item_categories)
    left, right = np.triu_indices(top_item.shape[1], k=1)
    result = np.full(len(top_item), np.nan)
    for first in range(0, len(top_item), _LISTS_AT_ONCE):
        lists = top_item[first : first + _LISTS_AT_ONCE]
        a, b = lists[:, left], lists[:, right]
        same = (code[a][..., :, None] == code[b][..., None, :]) & (code[a][..., :, None] >= 0)
        shared = same.sum(axis=(-2, -1))
        valid = (a >= 0) & (b >= 0) & (size[a] > 0) & (size[b] > 0)
        distance = np.where(valid, 1 - shared / np.maximum(size[a] + size[b] - shared, 1), 0.0)
        num_pairs = valid.sum(axis=1)
        mean = distance.sum(axis=1) / np.maximum(num_pairs, 1)
        result[first : first + _LISTS_AT_ONCE] = np.where(num_pairs > 0, mean, np.nan)
    return result


def _category_codes(
    item_categories: Sequence[Sequence[str]],
) -> tuple[Int[np.ndarray, "item category"], Int[np.ndarray, " item"]]:
    """Categories as integers, a row an item, filled up with -1; and how many each item has."""
    sets = [sorted(set(categories)) for categories in item_categories]
    number: dict[str, int] = {}
    size = np.array([len(categories) for categories in sets], dtype=np.int64)
    code = np.full((len(sets), max(1, int(size.max(initial=0)))), -1, dtype=np.int64)
    for item, categories in enumerate(sets):
        for column, category in enumerate(categories):
            code[item, column] = number.setdefault(category, len(number))
    return code, size
