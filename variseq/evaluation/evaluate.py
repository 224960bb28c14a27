"""Evaluation of a recommender on a part of a split: the whole catalog is ranked for every query."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from variseq.distinct import distinct
from variseq.errors import InputError
from variseq.evaluation.calibration import brier
from variseq.evaluation.evaluation import Evaluation, Forecasts
from variseq.evaluation.metrics import diversity, novelty
from variseq.evaluation.ranks import ranks
from variseq.evaluation.recommender import Recommender
from variseq.evaluation.splits import Part, Queries
from variseq.evaluation.visits import VisitRanks
from variseq.ranking.calibration import repeat_share
from variseq.sequences.histories import Histories

REQUEST_TIME = "that of the target"
"""What protocols say of a known request time."""
HISTORIES_AT_ONCE, CELLS_AT_ONCE = 128, 1 << 22
"""Scores of 16 MB; larger arrays are fetched from the system anew each time, which takes longer than to fill them."""
NO_CELLS = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)


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
        request_time: Whether the time of the target is known when it is asked for.
    """

    k: int = 10
    targets: str = "last"
    exclude_seen: bool = True
    repeat_share: float | None = None
    item_categories: Sequence[tuple[str, ...]] | None = None
    request_time: bool = False


def evaluate(recommender: Recommender, part: Part, options: EvaluationOptions | None = None) -> Evaluation:
    """Rank the whole catalog for every query of the part; never a sample of it.

    Targets outside the catalog, and (when seen items are excluded) targets in the user's own history are misses; all
    are counted. A target without training events is ranked as all others. A target outside the catalog has no NLL. Ties
    are broken against the recommender: the rank is 1 + the number of other candidates with a score at least the
    target's. So many histories are scored at once that memory does not grow with their number.
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
        repeats = repeat_share(part.history())
    has_visits, begin = part.histories.visit_gap is not None, part.histories.begin_of_visits(queries.position)
    found: dict[str, np.ndarray] = {}
    # Histories of similar length are in one batch, so that little padding is needed.
    order = np.argsort(length, kind="stable")
    size = int(np.clip(CELLS_AT_ONCE // part.num_items, 1, HISTORIES_AT_ONCE))
    with torch.inference_mode():
        for first in range(0, len(queries), size):
            batch = order[first : first + size]
            of_batch = Queries(queries.user[batch], queries.position[batch])
            histories = part.histories_before(of_batch, options.request_time)
            if has_visits:
                scores = _scores_of_visits(recommender, histories, begin[batch], part.num_items)
            else:
                scores = _checked_scores(recommender, histories, part.num_items)
            seen = histories.distinct_items()
            results = ranks(
                scores,
                target[batch],
                options.k,
                seen if options.exclude_seen else NO_CELLS,
                seen if has_visits else None,
                (repeats or 0.0) if recommender.gives_probabilities else None,
            )
            for name, value in results.items():
                # Made once for all queries: many small results between large blocks would fragment the heap.
                found.setdefault(name, np.zeros((len(queries), *value.shape[1:]), value.dtype))[batch] = value
    top_item = found["top_item"]
    target_count = np.where(is_unknown, 0, part.train_item_count[target])
    categories = options.item_categories
    rank = np.where(is_unknown, np.inf, found["rank"])
    visits = None
    if has_visits:
        among_new = np.where(is_unknown, np.inf, found["rank_among_new"])
        visits = VisitRanks(begin, rank, found["is_repeat"] & ~is_unknown, among_new, length > 0)
    return Evaluation(
        model=recommender.name,
        protocol=_protocol(part, options, len(distinct(queries.user))),
        user=queries.user,
        target=np.where(is_unknown, -1, target),
        history_length=length,
        target_count=target_count,
        target_was_seen=found["target_was_seen"] & ~is_unknown,
        rank=rank,
        top_item=top_item,
        top_item_count=np.where(top_item >= 0, part.train_item_count[top_item], 0),
        novelty=novelty(top_item, part.train_item_count),
        diversity=None if categories is None else diversity(top_item, categories),
        forecasts=_forecasts(found, target, is_unknown) if recommender.gives_probabilities else None,
        visits=visits,
    )


def _forecasts(
    found: dict[str, np.ndarray], target: Int[np.ndarray, " query"], is_unknown: Bool[np.ndarray, " query"]
) -> Forecasts:
    """What the probabilities say of each query; a target outside the catalog has none."""
    log_probability = np.where(is_unknown, -np.inf, found["target_log_probability"])
    return Forecasts(
        nll=np.where(is_unknown, np.nan, -log_probability),
        brier=brier(np.exp(log_probability), found["sum_of_squares"]),
        entropy=found["entropy"],
        top_probability=found["top_probability"],
        top_is_target=(found["top_item"] == target[:, None]) & ~is_unknown[:, None],
        mass_before=np.where(is_unknown, 1.0, found["mass_before"]),
    )


def _scores_of_visits(
    recommender: Recommender, histories: Histories, visit: Int[np.ndarray, " query"], num_items: int
) -> Float[Tensor, "query item"]:
    """The scores of each query; the queries of a visit share their history, which is scored once."""
    _, chosen, index = np.unique(visit, return_index=True, return_inverse=True)
    return _checked_scores(recommender, histories.rows(chosen), num_items)[torch.from_numpy(index)]


def _check(options: EvaluationOptions, part: Part) -> None:
    if not 1 <= options.k <= part.num_items:
        raise InputError(
            f"k={options.k} does not fit a catalog of {part.num_items} items. Allowed: 1 to {part.num_items}."
        )
    if options.item_categories is not None and len(options.item_categories) != part.num_items:
        raise InputError(
            f"item_categories has {len(options.item_categories)} entries for a catalog of {part.num_items} items. "
            "Give one tuple an item (empty where an item has no category)."
        )


def _protocol(part: Part, options: EvaluationOptions, num_users: int) -> dict[str, Any]:
    """Everything that has to be equal for two results to be compared."""
    protocol = {"num_users_with_targets": num_users} | part.protocol
    return protocol | {
        "num_users_evaluated": num_users,
        "k": options.k,
        "targets": options.targets,
        "exclude_seen": options.exclude_seen,
        "candidates": "full catalog",
        "ties": "against the model",
        "request_time": REQUEST_TIME if options.request_time else "unknown",
    }


def _checked_scores(recommender: Recommender, histories: Histories, num_items: int) -> Float[Tensor, "query item"]:
    scores = recommender.scores(histories)
    if tuple(scores.shape) != (len(histories), num_items):
        raise InputError(
            f"Recommender {recommender.name!r} gave scores of shape {tuple(scores.shape)} for {len(histories)} "
            f"histories and {num_items} items. Allowed: one row a history, one column an item."
        )
    if not all(torch.isfinite(extreme) for extreme in scores.aminmax()):  # a NaN makes both NaN
        raise InputError(
            f"Recommender {recommender.name!r} gave scores that are NaN or infinite. Allowed: finite numbers. If it "
            "was trained, training has diverged; use a lower learning_rate."
        )
    return scores.float()
