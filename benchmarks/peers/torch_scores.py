"""Scores of a torch model into top-10 lists and validation NDCG@10, for rivals that leave either to their user."""

from __future__ import annotations

import torch
from torch import Tensor

K = 10


def without_seen(scores: Tensor, seen: list[list[int]]) -> Tensor:
    """The scores [history, item] with the columns of each history's items at −∞; changed in place."""
    row = torch.tensor([place for place, items in enumerate(seen) for _ in items])
    column = torch.tensor([item for items in seen for item in items])
    scores[row, column] = -torch.inf
    return scores


def sum_of_ndcg(scores: Tensor, target: Tensor) -> float:
    """NDCG@10 summed over histories with one target each; ties count against the model, as in `variseq.evaluation`."""
    rank = (scores >= scores.gather(1, target[:, None])).sum(1)
    return float(torch.where(rank <= K, 1 / torch.log2(rank + 1.0), 0.0).sum())


def padded(histories: list[list[int]], max_seq_len: int, padding: int, at_end: bool) -> Tensor:
    """The latest events of each history [history, max_seq_len], with the padding after them or before them."""
    table = torch.full((len(histories), max_seq_len), padding)
    for row, history in enumerate(histories):
        latest = history[-max_seq_len:]
        place = slice(0, len(latest)) if at_end else slice(max_seq_len - len(latest), max_seq_len)
        table[row, place] = torch.tensor(latest, dtype=torch.long)
    return table
