"""Reasons into a test of them: dropping what was named must lower the forecast more than dropping anything else.

The deletion test of explanations ("comprehensiveness" in DeYoung et al. 2020, ERASER), paired with two controls that
drop as much: items drawn at random from the history, and its latest items.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from variseq.errors import InputError
from variseq.evaluation.recommender import Recommender
from variseq.evaluation.significance import (
    Comparison,
    means_by_user,
    percentile_interval,
    resampled_sums,
    sign_flip_p_value,
)
from variseq.recommend.item_probabilities import log_probabilities
from variseq.sequences.histories import Histories, latest_items, without_items

NameItems = Callable[[Histories, Int[np.ndarray, "history k"]], Sequence[Sequence[Sequence[int]]]]
"""(histories, recommended items) to the items of the history named for each: by history, by rank, strongest first."""


@dataclass(frozen=True, eq=False)
class Deletions:
    """What log p of a recommended item falls by when items are dropped from the history, in nats, pair by pair.

    A pair is a history (`user`, its row) and an item recommended to it, for which `num_named` items were named; as many
    were dropped at random and from the end. `num_pairs` also counts those for which nothing was named.
    """

    user: Int[np.ndarray, " pair"]
    num_named: Int[np.ndarray, " pair"]
    named: Float[np.ndarray, " pair"]
    random: Float[np.ndarray, " pair"]
    latest: Float[np.ndarray, " pair"]
    num_pairs: int


@dataclass(frozen=True)
class Faithfulness:
    """Falls in nats, means over users; `share_named` and `share_lowered` are shares of pairs.

    `share_named` of all pairs had a name, and in `share_lowered` of these dropping the named lowered the probability.
    """

    named: float
    random: float
    latest: float
    mean_named: float
    share_named: float
    share_lowered: float
    over_random: Comparison
    over_latest: Comparison


def deletions(
    recommender: Recommender,
    num_items: int,
    histories: Histories,
    items: Int[np.ndarray, "history k"],
    name_items: NameItems,
    seed: int = 0,
) -> Deletions:
    """Drop the items named for each recommended one, and the same number at random and from the end.

    An item is dropped with all its events. Names that do not occur in the history drop nothing. Recommended items of −1
    are left out. Random items are drawn with `seed` from the different items of the history, the named ones included.
    """
    names = name_items(histories, items)
    has_names = np.array([[len(named) > 0 for named in of_history] for of_history in names]).reshape(items.shape)
    row, rank = np.nonzero(has_names & (items >= 0))
    named = _padded([names[user][place] for user, place in zip(row.tolist(), rank.tolist(), strict=True)])
    num_named = (named >= 0).sum(axis=1)
    latest = latest_items(histories, named.shape[1])[row]
    latest[np.arange(named.shape[1]) >= num_named[:, None]] = -1
    before = log_probabilities(recommender, num_items, histories, np.maximum(items, 0))[row, rank]
    wanted = items[row, rank][:, None]
    falls = [
        before - log_probabilities(recommender, num_items, without_items(histories, row, dropped), wanted)[:, 0]
        for dropped in (named, _random_items(histories, row, num_named, seed), latest)
    ]
    return Deletions(row, num_named, falls[0], falls[1], falls[2], num_pairs=int((items >= 0).sum()))


def deletion_test(found: Deletions, seed: int = 0) -> Faithfulness:
    """Means, and what the named fall by more than the controls: paired by user, with interval and sign-flip p-value.

    Raises InputError when nothing was named for any item.
    """
    if not len(found.user):
        raise InputError(
            "Nothing was named for any recommended item, so there is nothing to test. Give more or longer histories."
        )
    means = means_by_user(found.user, np.stack([found.named, found.random, found.latest], axis=1))
    named, random, latest = means.T
    return Faithfulness(
        float(named.mean()),
        float(random.mean()),
        float(latest.mean()),
        mean_named=float(found.num_named.mean()),
        share_named=len(found.user) / found.num_pairs,
        share_lowered=float((found.named > 0).mean()),
        over_random=_compare("random", named - random, seed),
        over_latest=_compare("latest", named - latest, seed),
    )


def _random_items(
    histories: Histories, row: Int[np.ndarray, " pair"], count: Int[np.ndarray, " pair"], seed: int
) -> Int[np.ndarray, "pair most"]:
    """So many different items of each pair's history, or all of them where it has fewer."""
    generator = np.random.default_rng(seed)
    bounds = zip(histories.offsets[:-1], histories.offsets[1:], strict=True)
    own = [np.unique(histories.item[start:end]) for start, end in bounds]
    return _padded([generator.permutation(own[user])[:number] for user, number in zip(row, count, strict=True)])


def _compare(second: str, difference: Float[np.ndarray, " user"], seed: int) -> Comparison:
    resampled = resampled_sums(difference[:, None], seed=seed)[:, 0] / len(difference)
    return Comparison(
        "fall of log p",
        "named",
        second,
        float(difference.mean()),
        percentile_interval(resampled),
        sign_flip_p_value(difference, seed=seed),
        len(difference),
    )


def _padded(rows: Sequence[Sequence[int] | Int[np.ndarray, " _"]]) -> Int[np.ndarray, "row longest"]:
    """Rows of different length into a rectangle, filled up with −1."""
    padded = np.full((len(rows), max(map(len, rows), default=0)), -1, dtype=np.int64)
    for row, values in enumerate(rows):
        padded[row, : len(values)] = values
    return padded
