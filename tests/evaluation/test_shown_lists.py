"""Ranking of shown lists: metrics against a plain form, unknown items, and differences of two models."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from jaxtyping import Float
from torch import Tensor

from variseq.evaluation.shown_lists import ShownLists, lines_of, list_metrics, scores_in_lists, summarize_lists
from variseq.sequences.histories import Histories


def plain(score: list[float], taken: list[bool]) -> list[float]:
    """NDCG@10, NDCG@5, MRR and AUC of one list, without ties."""
    ranked = [is_taken for _, is_taken in sorted(zip(score, taken, strict=True), reverse=True)]
    found = []
    for k in (10, 5):
        gain = sum(1 / math.log2(rank + 2) for rank, one in enumerate(ranked[:k]) if one)
        found.append(gain / sum(1 / math.log2(rank + 2) for rank in range(min(k, sum(taken)))))
    found.append(sum(1 / (rank + 1) for rank, one in enumerate(ranked) if one) / sum(taken))
    pairs = [
        (a, b) for a, one in zip(score, taken, strict=True) if one for b, n in zip(score, taken, strict=True) if not n
    ]
    return [*found, sum(a > b for a, b in pairs) / len(pairs)]


@given(st.lists(st.tuples(st.integers(2, 15), st.integers(0, 99)), min_size=1, max_size=5))
def test_metrics_equal_the_plain_form(lists: list[tuple[int, int]]) -> None:
    scores, taken = [], []
    for length, seed in lists:
        random = np.random.default_rng(seed)
        scores.append(random.permutation(length).astype(float))
        taken.append(np.arange(length) < random.integers(1, length))
    offsets = np.concatenate([[0], np.cumsum([len(one) for one in scores])])
    found = list_metrics(np.concatenate(scores), np.concatenate(taken), offsets)
    wanted = [plain(one.tolist(), of.tolist()) for one, of in zip(scores, taken, strict=True)]
    np.testing.assert_allclose(found, wanted)


def test_equal_scores_rank_as_chance_does() -> None:
    offsets = np.arange(0, 40_001, 4)
    is_taken = np.tile([True, False, False, False], 10_000)
    found = list_metrics(np.zeros(40_000), is_taken, offsets).mean(axis=0)
    assert found[3] == pytest.approx(0.5, abs=0.02)
    assert found[2] == pytest.approx((1 + 1 / 2 + 1 / 3 + 1 / 4) / 4, abs=0.02)


class ByItem:
    """Scores the items of the catalog by their numbers, or the other way round."""

    gives_probabilities = False

    def __init__(self, name: str, sign: float) -> None:
        self.name, self.sign = name, sign

    def scores(self, histories: Histories) -> Float[Tensor, "history item"]:
        return self.sign * torch.arange(5.0).expand(len(histories), -1)


def test_unknown_items_stand_last_and_models_are_compared_list_by_list() -> None:
    histories = Histories.of_items([[1], [], [2, 3]])
    item = np.array([4, 0, -1, 3, 0, -1])
    is_taken = np.array([True, False, True, False, True, False])
    lists = ShownLists(np.array([7, 7, 8]), np.array([0, 2, 4, 6]), item, is_taken)
    models = (ByItem("up", 1.0), ByItem("down", -1.0))
    scores = {one.name: scores_in_lists(one, lists, histories) for one in models}
    aucs = [list_metrics(score, lists.is_taken, lists.offsets)[:, 3].tolist() for score in scores.values()]
    assert aucs == [[1.0, 0.0, 1.0], [0.0, 0.0, 1.0]]
    rows = summarize_lists(lists, scores)
    assert rows[1]["auc_difference"] == pytest.approx(-1 / 3)
    low, high = rows[1]["auc_difference_interval"]
    assert low <= -1 / 3 <= high
    assert rows[0]["auc_difference"] == 0.0
    assert "up" in lines_of(rows)
