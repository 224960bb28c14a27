"""Offsets of items from shown lists: the minimum of the plain loss, and what they are learned from."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from variseq.estimator import VariationalAttention
from variseq.evaluation.evaluate import EvaluationOptions
from variseq.evaluation.shown_lists import ShownLists
from variseq.log import LogPart
from variseq.recommend.list_offsets import choose_list_offsets, fit_list_offsets, of_known_items
from variseq.sequences.histories import Histories

NUM_ITEMS = 6


def lists_by(random: np.random.Generator, num_lists: int = 8) -> ShownLists:
    """Lists of two to five different items, of which one or two are taken."""
    lengths = random.integers(3, 6, num_lists)
    item = np.concatenate([random.permutation(NUM_ITEMS)[:length] for length in lengths])
    is_taken = np.concatenate([np.arange(length) < random.integers(1, 3) for length in lengths])
    return ShownLists(np.arange(num_lists), np.concatenate([[0], np.cumsum(lengths)]), item, is_taken)


def plain(offset: torch.Tensor, lists: ShownLists, strength: float) -> torch.Tensor:
    """List by list, and taken item by taken item."""
    total = strength * (offset**2).sum()
    for first, last in zip(lists.offsets[:-1], lists.offsets[1:], strict=True):
        score, taken = offset[lists.item[first:last]], torch.from_numpy(lists.is_taken[first:last])
        for one in score[taken]:
            total = total - torch.log_softmax(torch.cat([one[None], score[~taken]]), dim=0)[0]
    return total


@given(st.integers(0, 999), st.sampled_from([0.3, 1.0, 10.0]))
def test_offsets_are_where_the_plain_loss_has_no_slope(seed: int, strength: float) -> None:
    lists = lists_by(np.random.default_rng(seed))
    offset = torch.from_numpy(fit_list_offsets(lists, NUM_ITEMS, strength)).requires_grad_()
    plain(offset, lists, strength).backward()
    assert offset.grad is not None
    assert float(offset.grad.abs().max()) < 1e-3


def test_what_is_taken_more_than_its_neighbors_is_raised_and_what_was_not_shown_stays() -> None:
    item = np.tile([0, 1, 2], 20)
    lists = ShownLists(np.arange(20), np.arange(0, 61, 3), item, item == 0)
    offset = fit_list_offsets(lists, NUM_ITEMS, 1.0)
    assert offset[0] > 0 > offset[1] == pytest.approx(offset[2])
    assert offset[3:].tolist() == [0.0, 0.0, 0.0]


def test_items_without_events_are_no_negatives() -> None:
    item, is_taken = np.array([0, 1, -1, 2, 1, 3, 0, 3]), np.array([1, 0, 0, 0, 1, 0, 1, 0], dtype=bool)
    lists = ShownLists(np.arange(3), np.array([0, 4, 6, 8]), item, is_taken)
    found = of_known_items(lists, Histories.of_items([[0, 1], [2]]), NUM_ITEMS)
    assert found.item.tolist() == [0, 1, 2]
    assert found.user.tolist() == [0], "a list that has only a taken item left says nothing"


def test_offsets_are_chosen_only_where_lists_show_them_to_be_better_and_the_catalog_does_not_suffer(
    fitted: VariationalAttention, shop_parts: tuple[LogPart, LogPart, LogPart]
) -> None:
    model, part = fitted._engines()[0].trained.model, shop_parts[1].part
    options, random = EvaluationOptions(exclude_seen=False), np.random.default_rng(0)
    queries, half = part.queries(), len(part.queries()) // 2
    histories, target = part.histories_before(queries), part.histories.item[queries.position]
    offsets, is_taken = np.arange(0, 4 * half + 1, 4), np.tile([True, False, False, False], half)
    chosen = {}
    rare = np.argsort(np.bincount(target, minlength=part.num_items), kind="stable")[:8]
    for name, beside in (("chance", np.arange(part.num_items)), ("rare", rare)):
        items = np.stack([np.append(one, random.choice(beside, 3, replace=False)) for one in target])
        items = random.permuted(items, axis=1) if name == "chance" else items
        first, second = (
            ShownLists(np.arange(half), offsets, items[rows].ravel(), is_taken)
            for rows in (slice(half), slice(half, 2 * half))
        )
        valid = second, histories.rows(np.arange(half, 2 * half))
        chosen[name] = choose_list_offsets(model, first, valid, part, options)
    assert chosen["chance"].chosen is None
    assert "ranked without" in str(chosen["chance"])
    best = chosen["rare"].chosen
    assert best is not None
    assert best.interval[0] > 0
    assert best.catalog_ndcg is not None
    assert best.catalog_ndcg >= chosen["rare"].catalog_ndcg
    assert best.ndcg > chosen["rare"].ndcg
