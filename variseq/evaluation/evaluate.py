"""Turns a recommender and a part of a split into an `Evaluation`: what each query came to."""

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
from variseq.evaluation.tiles import Judged, Ranking, Tile, judge
from variseq.ranking.calibration import repeat_share


@dataclass(frozen=True)
class EvaluationOptions:
    """How to evaluate; the result does not depend on the tile sizes, only time and memory do.

    `repeat_share` is the probability that the next event is an item of the user's own history, where such items are not
    ranked; None counts it in what is known before the part. `item_categories` holds the categories of each item of the
    catalog, for intra-list diversity.
    """

    k: int = 10
    targets: str = "last"
    exclude_seen: bool = True
    repeat_share: float | None = None
    item_categories: Sequence[tuple[str, ...]] | None = None
    tile_histories: int = 128
    tile_items: int = 32_768


def evaluate(recommender: Recommender, part: Part, options: EvaluationOptions | None = None) -> Evaluation:
    """Ranks the whole catalog for every query of the part; never a sample of it.

    Targets never seen in training, targets outside the catalog, and (when seen items are excluded) targets in the
    user's own history are misses; all are counted. A target outside the catalog has no NLL. Memory is bounded by
    `tile_histories` x `tile_items` numbers.

    Raises InputError when the part has no query, k does not fit the catalog, or scores are not finite.
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
    judged = Judged.empty(len(queries), options.k)
    # Histories of like length together: a recommender that reads them side by side has little to pad.
    order = np.argsort(length, kind="stable")
    with torch.inference_mode():
        for first in range(0, len(queries), options.tile_histories):
            tile = order[first : first + options.tile_histories]
            histories = part.histories_before(Queries(queries.user[tile], queries.position[tile]))
            judged.put(tile, judge(recommender, Tile(histories, target[tile]), ranking))
    judged.put_misses(is_unknown)
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
        target_was_seen=judged.target_was_seen,
        rank=np.where(target_count > 0, judged.rank, np.inf),
        top_item=judged.top_item,
        top_item_count=np.where(judged.top_item >= 0, part.train_item_count[judged.top_item], 0),
        novelty=novelty(judged.top_item, part.train_item_count),
        diversity=None if categories is None else diversity(judged.top_item, categories),
        forecasts=_forecasts(judged, target) if recommender.gives_probabilities else None,
    )


def _forecasts(judged: Judged, target: Int[np.ndarray, " query"]) -> Forecasts:
    is_known = target >= 0
    return Forecasts(
        nll=np.where(is_known, -judged.target_log_probability, np.nan),
        brier=brier(np.exp(judged.target_log_probability), judged.sum_of_squares),
        entropy=judged.entropy,
        top_probability=judged.top_probability,
        top_is_target=(judged.top_item == target[:, None]) & is_known[:, None],
        mass_before=judged.mass_before,
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
