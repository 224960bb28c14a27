"""The quick choice by scores against sorting every item by (score, smaller item first)."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from variseq.evaluation.top_k import TopK

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
