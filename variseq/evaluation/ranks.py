"""The catalog ranked for a few queries, in blocks of columns that fit a core's cache."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from variseq.ranking.selection import top_k

BLOCK_CELLS = 1 << 18
"""1 MB. Larger blocks leave the cache."""
LOWEST = -1000.0
"""A log p that is lower, relative to the highest of its block, adds nothing; 0 · −inf would be no number."""
Cells = tuple[Int[np.ndarray, " _"], Int[np.ndarray, " _"]]
"""Rows and items, in ascending order."""
Top = tuple[Int[np.ndarray, "query k"], Float[np.ndarray, "query k"]]
"""Items, best first, and their scores."""


def ranks(
    scores: Float[Tensor, "query item"],
    target: Int[np.ndarray, " query"],
    k: int,
    left_out: Cells,
    seen: Cells | None = None,
    repeat_share: float | None = None,
) -> dict[str, np.ndarray]:
    """What is said of each query by scores, in which equal ones count against the target.

    Args:
        scores: Finite numbers.
        target: The item that came next.
        k: Length of the lists.
        left_out: Cells that are no candidates.
        seen: The items of each history. The rank of each target among all other items is added for them.
        repeat_share: The probability of `left_out` together. What the scores say as log-probabilities is added for it.

    Returns:
        An array by name, with a value for each query. `top_item` is −1 where candidates run out.
    """
    ranked = _Ranked(scores, target, k, left_out, repeat_share is not None)
    results = ranked.lists()
    if seen is not None:
        results |= ranked.among_new(seen)
    if repeat_share is not None:
        results |= ranked.probabilities(repeat_share)
    return results


class _Ranked:
    """Sums over the catalog for a few queries; the cells (row, item) are no candidates.

    A block is some whole rows, or a part of one. Probabilities are sums relative to the highest score of each block, as
    in `Softmaxes`.
    """

    def __init__(
        self, scores: Float[Tensor, "query item"], target: Int[np.ndarray, " query"], k: int, cells: Cells, sums: bool
    ) -> None:
        device, (num_rows, num_items) = scores.device, scores.shape
        self.scores, self.target = scores, torch.from_numpy(target).to(device)
        self.row, self.item = (torch.from_numpy(one).to(device) for one in cells)
        self.at_target, self.at_cells = scores.gather(1, self.target[:, None]), scores[self.row, self.item]
        self.is_miss = self._is_one_of(self.row, self.item)
        height, width = max(1, BLOCK_CELLS // num_items), min(num_items, BLOCK_CELLS)
        if scores.is_cuda:
            height, width = num_rows, num_items
        num_blocks, key = -(-num_items // width), cells[0] * num_items + cells[1]
        self.num_at_least = torch.zeros(num_rows, dtype=torch.float64, device=device)
        self.shift = torch.zeros(num_rows, num_blocks, device=device)
        self.sums = torch.zeros(4, num_rows, num_blocks, device=device)
        item, value = np.zeros((num_rows, num_blocks, k), np.int64), np.full((num_rows, num_blocks, k), -np.inf, "f4")
        buffer = torch.empty(3, min(height, num_rows), width, device=device)
        for first, column in product(range(0, num_rows, height), range(0, num_items, width)):
            block, number = scores[first : first + height, column : column + width], column // width
            rows = slice(first, first + len(block))
            # Cells ascend, so those of a block are together.
            begin, last = first * num_items + column, (rows.stop - 1) * num_items + column + block.shape[1]
            inside = slice(*np.searchsorted(key, [begin, last]))
            p, log_p, at_least = some = buffer[:, : len(block), : block.shape[1]]
            # As numbers, 0 and 1: they are added (exactly up to 2^24) several times as fast as booleans.
            self.num_at_least[rows] += torch.ge(block, self.at_target[rows], out=at_least).sum(dim=1)
            log_p.copy_(block)[self.row[inside] - first, self.item[inside] - column] = -torch.inf
            of_block = slice(min(k, block.shape[1]))
            item[rows, number, of_block], value[rows, number, of_block] = _top(log_p, k)
            item[rows, number] += column
            if sums:
                shift = torch.from_numpy(value[rows, number, :1]).to(device)
                shift = shift.masked_fill(shift == -torch.inf, 0.0)
                torch.exp(log_p.sub_(shift).clamp_(min=LOWEST), out=p)
                self.shift[rows, number] = shift[:, 0]
                self.sums[:3, rows, number], self.sums[3, rows, number] = _inner_products(some, p), p.sum(dim=1)
        best = np.argsort(-value.reshape(num_rows, -1), axis=1, kind="stable")[:, :k]
        self.top_item, self.top_value = (
            np.take_along_axis(one.reshape(num_rows, -1), best, axis=1) for one in (item, value)
        )

    def _is_one_of(self, row: Int[Tensor, " cell"], item: Int[Tensor, " cell"]) -> Bool[Tensor, " query"]:
        """Whether the target of each query is one of some cells."""
        found = torch.zeros(len(self.target), dtype=torch.bool, device=row.device)
        found[row[item == self.target[row]]] = True
        return found

    def _minus(self, row: Int[Tensor, " cell"], score: Float[Tensor, " cell"]) -> Float[Tensor, " query"]:
        """How many items but some cells score at least as much as the target."""
        return self.num_at_least.index_add(0, row, -(score >= self.at_target[row, 0]).double())

    def lists(self) -> dict[str, np.ndarray]:
        """The rank of each target, inf for one that is no candidate, and the top list, -1 where candidates run out."""
        rank = self._minus(self.row, self.at_cells).masked_fill(self.is_miss, torch.inf)
        return {
            "rank": rank.cpu().numpy(),
            "target_was_seen": self.is_miss.cpu().numpy(),
            "top_item": np.where(self.top_value > -np.inf, self.top_item, -1),
        }

    def among_new(self, seen: Cells) -> dict[str, np.ndarray]:
        """Whether each target is one of the seen cells; its rank among all other items, inf where it is seen."""
        row, item = (torch.from_numpy(one).to(self.scores.device) for one in seen)
        is_repeat = self._is_one_of(row, item)
        rank = self._minus(row, self.scores[row, item]).masked_fill(is_repeat, torch.inf)
        return {"is_repeat": is_repeat.cpu().numpy(), "rank_among_new": rank.cpu().numpy()}

    def probabilities(self, repeat_share: float) -> dict[str, np.ndarray]:
        """What the scores say as probabilities; `mass_before` is that of the candidates above the target.

        A model that was asked for new items only says nothing of how often people come back, so that is counted: with
        probability `repeat_share` the next event is one of the cells, and inside both sets the scores decide (a hurdle
        model, Mullahy 1986). Where one of the sets is empty the other has it all.
        """
        shift, (square, entropy, before, mass) = self.shift.double(), self.sums.double()
        new, at_cells = (shift + mass.log()).logsumexp(dim=1), self.at_cells.double()
        highest = torch.full_like(new, -torch.inf).scatter_reduce(0, self.row, at_cells, "amax")
        of_cells = torch.zeros_like(new).index_add(0, self.row, (at_cells - highest[self.row]).exp())
        has_new, has_seen = new > -torch.inf, highest > -torch.inf
        log_new = torch.where(has_new, torch.where(has_seen, math.log1p(-repeat_share), 0.0) - new, 0.0)
        log_repeat = math.log(repeat_share) if repeat_share else -math.inf
        log_seen = torch.where(has_new, log_repeat, 0.0) - highest - of_cells.log()
        # Sums over the candidates, relative to their block, and over the cells.
        log_scale = shift + log_new[:, None]
        scale = log_scale.exp()
        log_p = (at_cells + log_seen[self.row]).clamp(min=LOWEST)
        p = log_p.exp()
        at_target = self.at_target[:, 0].double() + torch.where(self.is_miss, log_seen, log_new)
        top = torch.from_numpy(self.top_value).to(shift) + log_new[:, None]
        values = {
            "target_log_probability": at_target,
            "top_probability": top.exp(),
            "mass_before": ((scale * before).sum(dim=1) - at_target.exp()).clamp(0, 1).masked_fill(self.is_miss, 1.0),
            "sum_of_squares": (scale.square() * square).sum(dim=1).index_add(0, self.row, p.square()),
            "entropy": -(scale * (entropy + log_scale * mass)).sum(dim=1).index_add(0, self.row, p * log_p),
        }
        return {name: value.cpu().numpy() for name, value in values.items()}


def _top(scores: Float[Tensor, "query item"], k: int) -> Top:
    if scores.is_cuda:  # to sort them there takes less time than to move them
        in_order = scores.sort(dim=1, descending=True, stable=True)
        value, item = (one[:, :k].cpu().numpy() for one in in_order)
        return item, value
    return top_k(scores.numpy(), k)


def _inner_products(
    left: Float[Tensor, "*part query item"], right: Float[Tensor, "query item"]
) -> Float[Tensor, "*part query"]:
    if right.is_cuda:
        return torch.linalg.vecdot(left, right)
    return torch.from_numpy(np.vecdot(left.numpy(), right.numpy()))  # takes a fourth of the time
