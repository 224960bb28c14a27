"""Ranking of shown lists: how high a recommender puts what people took, among all that each list had."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from variseq.evaluation.recommender import Recommender
from variseq.evaluation.significance import percentile_interval, resampled_sums, sums_by_user
from variseq.sequences.histories import Histories

METRICS = ("ndcg@10", "ndcg@5", "mrr", "auc")
HISTORIES_AT_ONCE, CELLS_AT_ONCE = 128, 1 << 22
TIES_SEED = 0


@dataclass(frozen=True, eq=False)
class ShownLists:
    """Lists, each with an item that was taken and one that was not.

    Args:
        user: The person of each list.
        offsets: Where the rows of each list begin, and where those of the last one end.
        item: Of each row; −1 for an item outside the catalog, which stands last.
        is_taken: Of each row.
    """

    user: Int[np.ndarray, " list"]
    offsets: Int[np.ndarray, " list_plus_one"]
    item: Int[np.ndarray, " row"]
    is_taken: Bool[np.ndarray, " row"]

    def __len__(self) -> int:
        return len(self.user)

    @property
    def of_row(self) -> Int[np.ndarray, " row"]:
        """The list of each row."""
        return np.repeat(np.arange(len(self)), np.diff(self.offsets))

    def with_rows(self, is_kept: Bool[np.ndarray, " row"]) -> ShownLists:
        """The same lists with some of their rows, without those that have no taken item left, or no other.

        >>> lists = ShownLists(np.array([7, 8]), np.array([0, 2, 4]), np.arange(4), np.array([True, False] * 2))
        >>> lists.with_rows(np.array([True, True, False, True])).item
        array([0, 1])
        """
        of_row, num_lists = self.of_row, len(self)
        taken, other = (np.bincount(of_row, is_kept & one, num_lists) for one in (self.is_taken, ~self.is_taken))
        is_whole = (taken > 0) & (other > 0)
        kept = is_kept & is_whole[of_row]
        lengths = np.bincount(of_row[kept], minlength=num_lists)[is_whole]
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        return ShownLists(self.user[is_whole], offsets, self.item[kept], self.is_taken[kept])


def list_metrics(
    score: Float[np.ndarray, " row"], is_taken: Bool[np.ndarray, " row"], offsets: Int[np.ndarray, " list_plus_one"]
) -> Float[np.ndarray, "list metric"]:
    """NDCG@10, NDCG@5, MRR and AUC of each list, as MIND has them; equal scores are ordered by chance.

    The MRR is the mean of 1 / rank over the taken items. Source: Wu et al. 2020, "MIND: a large-scale dataset for news
    recommendation", section 4.1.

    >>> score, is_taken = np.array([3.0, 1.0, 2.0]), np.array([False, False, True])
    >>> list_metrics(score, is_taken, np.array([0, 3])).round(4)
    array([[0.6309, 0.6309, 0.5   , 0.5   ]])
    """
    lengths, num_lists = np.diff(offsets), len(offsets) - 1
    of_row = np.repeat(np.arange(num_lists), lengths)
    chance = np.random.default_rng(TIES_SEED).random(len(score))
    order = np.lexsort((chance, -score, of_row))
    taken = is_taken[order]
    rank = np.arange(len(score)) - offsets[of_row] + 1
    num_taken = np.bincount(of_row, taken, num_lists)
    gain = np.where(taken, 1 / np.log2(rank + 1), 0.0)
    ideal = np.concatenate([[0.0], np.cumsum(1 / np.log2(np.arange(2, lengths.max() + 2)))])
    found = [
        np.bincount(of_row, gain * (rank <= k), num_lists) / ideal[np.minimum(num_taken, k).astype(np.int64)]
        for k in (10, 5)
    ]
    found.append(np.bincount(of_row, taken / rank, num_lists) / num_taken)
    # The sum of the ranks of taken items counts how many others stand above them (Mann and Whitney, 1947).
    above = np.bincount(of_row, taken * rank, num_lists) - num_taken * (num_taken + 1) / 2
    found.append(1 - above / (num_taken * (lengths - num_taken)))
    return np.stack(found, axis=1)


def scores_in_lists(recommender: Recommender, lists: ShownLists, histories: Histories) -> Float[np.ndarray, " row"]:
    """The score of each row, given the history before each list; −inf for an item outside the catalog."""
    score = np.full(len(lists.item), -np.inf)
    num_lists = len(lists)
    order = np.argsort(histories.lengths, kind="stable")
    size, first = 1, 0
    with torch.inference_mode():
        while first < num_lists:
            batch = np.sort(order[first : first + size])
            scores = recommender.scores(histories.rows(batch)).numpy()
            first, size = first + len(batch), int(np.clip(CELLS_AT_ONCE // scores.shape[1], 1, HISTORIES_AT_ONCE))
            for row, number in enumerate(batch.tolist()):
                rows = slice(lists.offsets[number], lists.offsets[number + 1])
                score[rows] = np.where(lists.item[rows] >= 0, scores[row, lists.item[rows]], -np.inf)
    return score


def summarize_lists(lists: ShownLists, scores: dict[str, Float[np.ndarray, " row"]]) -> list[dict[str, Any]]:
    """A row for each model: means over lists with 95 % bootstrap intervals over users, and differences to the first.

    Args:
        lists: The lists.
        scores: Of the rows, by model.
    """
    found = {name: list_metrics(score, lists.is_taken, lists.offsets) for name, score in scores.items()}
    first = next(iter(found.values()))
    num_lists = np.ones((len(lists), 1))
    rows = []
    for model, values in found.items():
        columns = sums_by_user(lists.user, np.concatenate([num_lists, values, values - first], axis=1))
        drawn = resampled_sums(columns)
        row: dict[str, Any] = {"model": model}
        for number, name in enumerate([*METRICS, *(f"{name}_difference" for name in METRICS)], 1):
            row[name] = float(columns[:, number].sum() / len(lists))
            row[f"{name}_interval"] = percentile_interval(drawn[:, number] / drawn[:, 0])
        rows.append(row)
    return rows


def lines_of(rows: Sequence[dict[str, Any]]) -> str:
    """A table to print; below each value its interval."""
    names = ["model", *METRICS]
    cells = [[row["model"], *(f"{row[name]:.4f}" for name in METRICS)] for row in rows]
    intervals = [["", *("{:.4f}–{:.4f}".format(*row[f"{name}_interval"]) for name in METRICS)] for row in rows]
    lines = [names, *(line for pair in zip(cells, intervals, strict=True) for line in pair)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(names))]
    return "\n".join(
        "  ".join(text.rjust(width) if number else text.ljust(width) for number, (text, width) in enumerate(pairs))
        for pairs in (list(zip(line, widths, strict=True)) for line in lines)
    )
