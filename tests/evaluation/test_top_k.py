"""The quick choice by scores against sorting every item by (score, smaller item first)."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from variseq.evaluation import top_k
from variseq.evaluation.top_k import TopK, best_scores

VALUES = st.sampled_from([-float("inf"), -1.5, -0.0, 0.0, 0.25, 3.0])


def sorted_by_hand(scores: list[float], k: int) -> list[int]:
    order = sorted(range(len(scores)), key=lambda item: (-scores[item], item))[:k]
    return [item if scores[item] > -float("inf") else -1 for item in order]


@given(st.data(), st.integers(1, 6), st.integers(1, 12), st.integers(1, 5))
def test_best_items_are_those_of_a_full_sort_whatever_the_ties_and_blocks(
    data: st.DataObject, k: int, num_items: int, block: int
) -> None:
    rows = data.draw(st.lists(st.lists(VALUES, min_size=num_items, max_size=num_items), min_size=1, max_size=3))
    scores, top = torch.tensor(rows), TopK(k)
    for first in range(0, num_items, block):
        top.add(scores[:, first : first + block], first)
    items, _ = top.result()
    assert items.tolist() == [sorted_by_hand(row, min(k, num_items)) for row in rows]


@given(st.data(), st.integers(1, 3), st.integers(8, 40))
def test_best_scores_by_groups_are_those_of_a_full_sort(data: st.DataObject, k: int, num_items: int) -> None:
    rows = data.draw(st.lists(st.lists(VALUES, min_size=num_items, max_size=num_items), min_size=1, max_size=3))
    scores = torch.tensor(rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(top_k, "GROUP", 2)
        best, column = best_scores(scores, k)
        top = TopK(k)
        top.add(scores, 0)
    assert torch.equal(best, scores.topk(k, dim=1).values)
    assert torch.equal(scores.gather(1, column), best)
    assert all(len(set(row)) == k for row in column.tolist())
    items, _ = top.result()
    assert items.tolist() == [sorted_by_hand(row, k) for row in rows]


def test_best_scores_of_long_rows_are_those_of_torch() -> None:
    torch.manual_seed(0)
    scores = torch.randn(5, 12_101)
    for found, expected in zip(best_scores(scores, 11), scores.topk(11, dim=1), strict=True):
        assert torch.equal(found, expected)
