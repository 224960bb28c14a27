"""Evaluation of a recommender on a part of a split: the whole catalog is ranked for every query."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Int

from variseq.errors import InputError
from variseq.evaluation.calibration import brier
from variseq.evaluation.evaluation import Evaluation, Forecasts
from variseq.evaluation.metrics import diversity, novelty
from variseq.evaluation.recommender import Recommender
from variseq.evaluation.splits import Part, Queries
from variseq.evaluation.tiles import EvaluatedBatch, QueryBatch, Ranking, evaluate_batch
from variseq.ranking.calibration import repeat_share


@dataclass(frozen=True)
class EvaluationOptions:
    """How to evaluate.

    Attributes:
        k: Length of the lists.
        targets: "first", "last" or "all" targets of each user.
        exclude_seen: Whether items of the user's own history are not ranked.
        repeat_share: The probability that the next event is an item of the history, where such items are not ranked;
            None counts it in the events before the part.
        item_categories: The categories of each item of the catalog, for intra-list diversity.
        tile_histories: Histories at once; this and `tile_items` change time and memory, not the result.
        tile_items: Items at once.
    """

    k: int = 10
    targets: str = "last"
    exclude_seen: bool = True
    repeat_share: float | None = None
    item_categories: Sequence[tuple[str, ...]] | None = None
    tile_histories: int = 128
    tile_items: int = 32_768


def evaluate(recommender: Recommender, part: Part, options: EvaluationOptions | None = None) -> Evaluation:
    """Rank the whole catalog for every query of the part; never a sample of it.

    Targets never seen in training, targets outside the catalog, and (when seen items are excluded) targets in the
    user's own history are misses; all are counted. A target outside the catalog has no NLL. Memory is bounded by
    `tile_histories` x `tile_items` numbers.
    Source: Krichene and Rendle, "On sampled metrics for item recommendation" (2020), on why no sample is ranked.

    Args:
        recommender: Anything that scores items, see `Recommender`.
        part: A validation or test part.
        options: How to evaluate.

    Returns:
        The results for each query.

    Raises:
        InputError: The part has no query, k does not fit the catalog, or scores are not finite.
    """
    options = options or EvaluationOptions()
    _check(options, part)
    queries = part.queries(options.targets)
    if not len(queries):
        raise InputError(f"The {part.name!r} part has no event to predict. Evaluate on a validation or test part.")
    is_unknown, length = part.is_unknown_target(queries), part.history_lengths(queries)
    target = part.histories.item[queries.position].astype(np.int64)
    repeats = options.repeat_share
    if options.exclude_seen and repeats is None:
        repeats = repeat_share(part.known())
    ranking = Ranking(part.num_items, options.k, options.exclude_seen, options.tile_items, repeats or 0.0)
    evaluated = EvaluatedBatch.empty(len(queries), options.k)
    # Histories of similar length are in one batch, so that little padding is needed.
    order = np.argsort(length, kind="stable")
    with torch.inference_mode():
        for first in range(0, len(queries), options.tile_histories):
            tile = order[first : first + options.tile_histories]
            histories = part.histories_before(Queries(queries.user[tile], queries.position[tile]))
            evaluated.put(tile, evaluate_batch(recommender, QueryBatch(histories, target[tile]), ranking))
    evaluated.put_misses(is_unknown)
    target_count = np.where(is_unknown, 0, part.train_item_count[target])
    target[is_unknown] = -1
    categories = options.item_categories
    return Evaluation(
        model=recommender.name,
        protocol=_protocol(part, options),
        user=queries.user,
        target=target,
        history_length=length,
        target_count=target_count,
        target_was_seen=evaluated.target_was_seen,
        rank=np.where(target_count > 0, evaluated.rank, np.inf),
        top_item=evaluated.top_item,
        top_item_count=np.where(evaluated.top_item >= 0, part.train_item_count[evaluated.top_item], 0),
        novelty=novelty(evaluated.top_item, part.train_item_count),
        diversity=None if categories is None else diversity(evaluated.top_item, categories),
        forecasts=_forecasts(evaluated, target) if recommender.gives_probabilities else None,
    )


def _forecasts(evaluated: EvaluatedBatch, target: Int[np.ndarray, " query"]) -> Forecasts:
    is_known = target >= 0
    return Forecasts(
        nll=np.where(is_known, -evaluated.target_log_probability, np.nan),
        brier=brier(np.exp(evaluated.target_log_probability), evaluated.sum_of_squares),
        entropy=evaluated.entropy,
        top_probability=evaluated.top_probability,
        top_is_target=(evaluated.top_item == target[:, None]) & is_known[:, None],
        mass_before=evaluated.mass_before,
    )


def _check(options: EvaluationOptions, part: Part) -> None:
    if not 1 <= options.k <= part.num_items:
        raise InputError(
            f"k={options.k} does not fit a catalog of {part.num_items} items. Allowed: 1 to {part.num_items}."
        )
    for name in ("tile_histories", "tile_items"):
        value = getattr(options, name)
        if value < 1:
            raise InputError(f"{name}={value} is not allowed. Give a whole number of at least 1.")
    if options.item_categories is not None and len(options.item_categories) != part.num_items:
        raise InputError(
            f"item_categories has {len(options.item_categories)} entries for a catalog of {part.num_items} items. "
            "Give one tuple an item (empty where an item has no category)."
        )


def _protocol(part: Part, options: EvaluationOptions) -> dict[str, Any]:
    """Everything that has to be equal for two results to be compared."""
    return part.protocol | {
        "k": options.k,
        "targets": options.targets,
        "exclude_seen": options.exclude_seen,
        "candidates": "full catalog",
        "ties": "against the model",
    }
