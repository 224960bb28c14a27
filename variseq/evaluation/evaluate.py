"""Evaluation of a recommender on a part of a split: the whole catalog is ranked for every query."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from variseq.errors import InputError
from variseq.evaluation.calibration import brier
from variseq.evaluation.evaluation import Evaluation, Forecasts
from variseq.evaluation.mass import Mass, Pairs, log_weights, seen_pairs
from variseq.evaluation.metrics import diversity, novelty
from variseq.evaluation.recommender import Recommender
from variseq.evaluation.splits import Part, Queries
from variseq.evaluation.top_k import TopK
from variseq.ranking.calibration import repeat_share
from variseq.sequences.histories import Histories


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
        repeats = repeat_share(part.history())
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


@dataclass(frozen=True, eq=False)
class QueryBatch:
    """A few queries: the full history and the target of each."""

    histories: Histories
    target: Int[np.ndarray, " query"]


@dataclass(frozen=True)
class Ranking:
    """The candidates of a batch: the catalog, in blocks of `tile_items`.

    With `exclude_seen` the items of the user's own history are no candidates, and `repeat_share` is the probability
    that the next event is one of them all the same.
    """

    num_items: int
    k: int
    exclude_seen: bool
    tile_items: int
    repeat_share: float = 0.0


@dataclass(frozen=True, eq=False)
class EvaluatedBatch:
    """Per query: the target's rank and the top list (-1 where candidates run out), then probabilities.

    Probabilities are those of `Mass`; NaN when the scores are not meant as probabilities. `mass_before` is the
    probability of the candidates that stand before the target in the list, 1 for a target that is no candidate.
    """

    rank: Float[np.ndarray, " query"]
    target_was_seen: Bool[np.ndarray, " query"]
    top_item: Int[np.ndarray, "query k"]
    top_probability: Float[np.ndarray, "query k"]
    target_log_probability: Float[np.ndarray, " query"]
    mass_before: Float[np.ndarray, " query"]
    sum_of_squares: Float[np.ndarray, " query"]
    entropy: Float[np.ndarray, " query"]

    @classmethod
    def empty(cls, num_queries: int, k: int) -> EvaluatedBatch:
        """Arrays for all queries, made once: many small results between large blocks would fragment the heap."""
        one = np.zeros(num_queries)
        return cls(
            rank=one,
            target_was_seen=np.zeros(num_queries, dtype=bool),
            top_item=np.zeros((num_queries, k), dtype=np.int64),
            top_probability=np.zeros((num_queries, k)),
            target_log_probability=one.copy(),
            mass_before=one.copy(),
            sum_of_squares=one.copy(),
            entropy=one.copy(),
        )

    def put(self, index: Int[np.ndarray, " query"], batch: EvaluatedBatch) -> None:
        """Writes the results of a batch at these indices."""
        for field in fields(self):
            getattr(self, field.name)[index] = getattr(batch, field.name)

    def put_misses(self, is_miss: Bool[np.ndarray, " query"]) -> None:
        """Makes misses of these queries, whose targets are in no catalog and have no probability."""
        self.rank[is_miss] = np.inf
        self.target_was_seen[is_miss] = False
        self.target_log_probability[is_miss] = -np.inf
        self.mass_before[is_miss] = 1.0


def evaluate_batch(recommender: Recommender, batch: QueryBatch, ranking: Ranking) -> EvaluatedBatch:
    """Ranks the target of each query among all candidates.

    Ties are broken against the recommender: the rank is 1 + the number of other candidates with a score at least
    the target's. A target in the user's own history is no candidate when seen items are excluded: its rank is inf.
    A catalog of more than one block is scored twice (once for the targets' scores, once to count), so that
    memory is bounded and the counts compare equal numbers.

    Raises InputError when the recommender's scores have a wrong shape or are not finite.
    """
    seen, target_was_seen = _seen_pairs(batch, ranking.num_items)

    def blocks() -> Iterator[Block]:
        return _blocks(recommender, batch, ranking, seen)

    kept = list(blocks()) if ranking.num_items <= ranking.tile_items else None
    extremes = Extremes.of(kept or blocks(), torch.from_numpy(batch.target.astype(np.int64)))
    counted = _Counted(extremes, ranking, recommender.gives_probabilities)
    for block in kept or blocks():
        counted.add(block)
    return counted.result(target_was_seen & ranking.exclude_seen)


@dataclass(frozen=True, eq=False)
class Block:
    """The scores of the items from `first` on; as `candidates` with −inf where an item may not be recommended.

    Those cells are in the rows `seen_row` and have the scores `seen_score`.
    """

    first: int
    scores: Float[Tensor, "query item"]
    candidates: Float[Tensor, "query item"]
    seen_row: Int[Tensor, " cell"]
    seen_score: Float[Tensor, " cell"]


def _blocks(recommender: Recommender, batch: QueryBatch, ranking: Ranking, seen: Pairs) -> Iterator[Block]:
    """The scores of the catalog, block after block."""
    histories = batch.histories
    query: Any = recommender.query(histories)
    for first in range(0, ranking.num_items, ranking.tile_items):
        last = min(first + ranking.tile_items, ranking.num_items)
        scores = recommender.scores(query, first, last)
        if tuple(scores.shape) != (len(histories), last - first):
            raise InputError(
                f"Recommender {recommender.name!r} gave scores of shape {tuple(scores.shape)} for {len(histories)} "
                f"histories and the items {first}:{last}. Allowed: one row a history, one column an item."
            )
        if not all(torch.isfinite(extreme) for extreme in scores.aminmax()):  # a NaN makes both NaN
            raise InputError(
                f"Recommender {recommender.name!r} gave scores that are NaN or infinite for the items {first}:{last}. "
                "Allowed: finite numbers. If it was trained, training has diverged; use a lower learning_rate."
            )
        yield _block(first, scores.float().contiguous(), seen.inside(first, last) if ranking.exclude_seen else None)


def _block(first: int, scores: Float[Tensor, "query item"], seen: Pairs | None) -> Block:
    if seen is None:
        nothing = torch.zeros(0, dtype=torch.int64, device=scores.device)
        return Block(first, scores, scores, nothing, scores.new_zeros(0))
    row, column = seen.row.to(scores.device), seen.item.to(scores.device) - first
    candidates = scores.clone()
    candidates[row, column] = -torch.inf
    return Block(first, scores, candidates, row, scores[row, column])


@dataclass(frozen=True, eq=False)
class Extremes:
    """Per query the score of the target, the highest score of a candidate and of a seen item (−inf without any)."""

    target: Float[Tensor, " query"]
    candidate: Float[Tensor, " query"]
    seen: Float[Tensor, " query"]

    @classmethod
    def of(cls, blocks: Iterable[Block], target: Int[Tensor, " query"]) -> Extremes:
        """One pass over the blocks."""
        at_target = candidate = seen = torch.empty(0)
        for block in blocks:
            scores = block.scores
            if block.first == 0:
                target = target.to(scores.device)
                at_target = scores.new_zeros(len(target))
                candidate, seen = scores.new_full((2, len(target)), -torch.inf)
            inside = torch.nonzero((target >= block.first) & (target < block.first + scores.shape[1]))[:, 0]
            at_target[inside] = scores[inside, target[inside] - block.first]
            candidate = torch.maximum(candidate, block.candidates.amax(dim=1))
            seen = seen.scatter_reduce(0, block.seen_row, block.seen_score, "amax")
        return cls(at_target, candidate, seen)


def _seen_pairs(batch: QueryBatch, num_items: int) -> tuple[Pairs, Bool[np.ndarray, " query"]]:
    """The pairs of a batch, and which targets are in the history of their user."""
    row = np.repeat(np.arange(len(batch.histories)), batch.histories.lengths)
    repeated = row[batch.histories.item.astype(np.int64) == batch.target[row]]
    target_was_seen = np.bincount(repeated, minlength=len(batch.target)) > 0
    return seen_pairs(batch.histories, num_items), target_was_seen


class _Counted:
    """Running counts over the blocks of the catalog."""

    def __init__(self, extremes: Extremes, ranking: Ranking, gives_probabilities: bool) -> None:
        self.extremes = extremes
        self.gives_probabilities = gives_probabilities
        self.ranking = ranking
        self.num_at_least = torch.zeros_like(extremes.target, dtype=torch.int64)
        self.top = TopK(ranking.k)
        self.unseen, self.seen = Mass.below(extremes.candidate), Mass.below(extremes.seen)
        self.mass_at_least = torch.zeros_like(self.unseen.total)

    def add(self, block: Block) -> None:
        """Count a block."""
        candidates = block.candidates
        # As numbers, 0 and 1: they are counted (exactly up to 2^24) and multiplied several times as fast as booleans.
        at_least = torch.ge(candidates, self.extremes.target[:, None], out=torch.empty_like(candidates))
        self.num_at_least += at_least.sum(dim=1).long()
        self.top.add(candidates, block.first)
        if self.gives_probabilities:
            self.seen.add_cells(block.seen_row, block.seen_score)
            mass = self.unseen.add_block(candidates)
            self.mass_at_least += torch.linalg.vecdot(mass, at_least)

    def result(self, target_is_miss: Bool[np.ndarray, " query"]) -> EvaluatedBatch:
        top_item, top_score = self.top.result()
        unseen, seen = self.unseen, self.seen
        log_weight, log_seen_weight = log_weights(unseen.total, seen.total, self.ranking.repeat_share)
        is_miss = torch.from_numpy(target_is_miss).to(log_weight.device)
        target = self.extremes.target.double()
        target_log_probability = torch.where(
            is_miss, target - seen.highest + log_seen_weight, target - unseen.highest + log_weight
        )
        before = (self.mass_at_least * log_weight.exp() - target_log_probability.exp()).clamp(0, 1)
        values = [
            (top_score.double() - unseen.highest[:, None] + log_weight[:, None]).exp(),
            target_log_probability,
            torch.where(is_miss, 1.0, before),
            unseen.sum_of_squares(log_weight) + seen.sum_of_squares(log_seen_weight),
            unseen.entropy(log_weight) + seen.entropy(log_seen_weight),
        ]
        if not self.gives_probabilities:
            values = [value.fill_(torch.nan) for value in values]
        rank = np.where(target_is_miss, np.inf, self.num_at_least.double().cpu().numpy())
        return EvaluatedBatch(rank, target_is_miss, top_item.cpu().numpy(), *(value.cpu().numpy() for value in values))
