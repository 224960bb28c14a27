"""Scores of a catalog, block after block, into the k best items; the same for any cut into blocks."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

GROUP = 16
"""Scores of a group, of which first only the highest is looked at."""


class TopK:
    """The k best so far. Of equal scores the smaller item comes first.

    >>> top = TopK(2)
    >>> top.add(torch.tensor([[1.0, 3.0]]), first=0)
    >>> top.add(torch.tensor([[3.0, float("-inf")]]), first=2)
    >>> top.result()
    (tensor([[1, 2]]), tensor([[3., 3.]]))
    """

    def __init__(self, k: int) -> None:
        self.k = k
        self.key: Tensor | None = None

    def add(self, scores: Float[Tensor, "row item"], first: int) -> None:
        """Take in the scores of the items `first`, `first` + 1, …; −inf is no candidate."""
        key = _best_keys(scores, min(self.k, scores.shape[1]), first)
        key = key if self.key is None else torch.cat([self.key, key], dim=1)
        self.key = key.topk(min(self.k, key.shape[1]), dim=1).values

    def result(self) -> tuple[Int[Tensor, "row k"], Float[Tensor, "row k"]]:
        """Items and scores, best first; item −1 and score −inf where candidates ran out."""
        assert self.key is not None
        item, score = _unsorted(self.key)
        return item.masked_fill(score == -torch.inf, -1), score


def best_scores(scores: Float[Tensor, "row item"], k: int) -> tuple[Float[Tensor, "row k"], Int[Tensor, "row k"]]:
    """What `scores.topk(k, dim=1)` gives, in less time where rows are long (`benchmarks/kernels.py`).

    A row is cut into groups. The k best scores are in the k groups with the highest maxima: any other group has at
    least k scores above its own. So only the maxima, and the members of those groups, are sorted. Where scores are
    equal the items may be others than those of `topk`.
    """
    num_groups = scores.shape[1] // GROUP
    if num_groups < 4 * k:
        return scores.topk(k, dim=1)
    whole = num_groups * GROUP
    # Members of a group stand `num_groups` apart, so that the maxima are found column by column.
    group = scores[:, :whole].reshape(-1, GROUP, num_groups).amax(dim=1).topk(k, dim=1, sorted=False).indices
    member = torch.arange(GROUP, device=scores.device) * num_groups
    rest = torch.arange(whole, scores.shape[1], device=scores.device).expand(len(scores), -1)
    column = torch.cat([(group.unsqueeze(2) + member).flatten(1), rest], dim=1)
    best, place = scores.gather(1, column).topk(k, dim=1)
    return best, column.gather(1, place)


def _best_keys(scores: Float[Tensor, "row item"], k: int, first: int) -> Int[Tensor, "row k"]:
    """The k largest keys of each row, in any order.

    Keys are wide and slow to sort, so scores choose the items; only a row in which the next best score equals the k-th
    has a choice that scores cannot make, and is sorted by its keys.
    """
    best, column = best_scores(scores, min(k + 1, scores.shape[1]))
    key = _sortable(best[:, :k], column[:, :k] + first)
    if best.shape[1] > k:
        tied = torch.nonzero(best[:, k] == best[:, k - 1])[:, 0]
        if len(tied):
            item = torch.arange(first, first + scores.shape[1], device=scores.device)
            key[tied] = _sortable(scores[tied], item).topk(k, dim=1).values
    return key


def _sortable(scores: Float[Tensor, "row item"], item: Int[Tensor, "*row item"]) -> Int[Tensor, "row item"]:
    """One integer a cell that orders by (score, then smaller item first), so that a top-k has no ties.

    The high half is the float's bits, made monotone by flipping the magnitude of negative numbers.
    """
    bits = (scores + 0.0).view(torch.int32)  # + 0.0 makes -0.0 equal to 0.0
    ordered = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    return ordered.long().bitwise_left_shift_(32).bitwise_or_(0xFFFFFFFF - item)


def _unsorted(key: Int[Tensor, "query k"]) -> tuple[Int[Tensor, "query k"], Float[Tensor, "query k"]]:
    """The items and scores that `_sortable` packed."""
    ordered = (key >> 32).to(torch.int32)
    bits = ordered ^ ((ordered >> 31) & 0x7FFFFFFF)
    return 0xFFFFFFFF - (key & 0xFFFFFFFF), bits.view(torch.float32)
