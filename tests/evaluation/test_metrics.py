"""Ranking metrics and what accuracy does not measure."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from variseq.evaluation.groups import SizeThirds
from variseq.evaluation.metrics import (
    auc,
    catalog_coverage,
    diversity,
    exposure,
    gini,
    ndcg,
    novelty,
    recall,
    reciprocal_rank,
)

ranks = st.lists(st.one_of(st.integers(1, 500).map(float), st.just(float("inf"))), min_size=1, max_size=30)


@given(ranks, st.integers(1, 50))
def test_metrics_lie_between_miss_and_perfect_and_fall_with_the_rank(rank: list[float], k: int) -> None:
    ordered = np.sort(np.array(rank))
    for values in (ndcg(ordered, k), recall(ordered, k), reciprocal_rank(ordered)):
        assert ((values >= 0) & (values <= 1)).all()
        assert (np.diff(values) <= 0).all()
    assert (ndcg(ordered, k)[ordered > k] == 0).all()
    assert (recall(ordered, k)[ordered <= k] == 1).all()


def test_rank_one_is_perfect_and_a_miss_is_nothing() -> None:
    rank = np.array([1.0, np.inf])
    for values in (ndcg(rank, 10), recall(rank, 10), reciprocal_rank(rank)):
        assert values.tolist() == [1.0, 0.0]


def test_metrics_equal_those_of_an_outside_library() -> None:
    from sklearn.metrics import label_ranking_average_precision_score, ndcg_score, top_k_accuracy_score

    generator = np.random.default_rng(3)
    num_queries, num_items, k = 60, 40, 10
    scores = generator.permuted(np.tile(np.arange(num_items, dtype=float), (num_queries, 1)), axis=1)
    target = generator.integers(num_items, size=num_queries)
    rank = 1.0 + (scores > scores[np.arange(num_queries), target][:, None]).sum(axis=1)
    is_target = np.arange(num_items) == target[:, None]
    assert ndcg(rank, k).mean() == pytest.approx(ndcg_score(is_target, scores, k=k))
    hits = top_k_accuracy_score(target, scores, k=k, labels=np.arange(num_items))
    assert recall(rank, k).mean() == pytest.approx(hits)
    # With one relevant item the average precision is the reciprocal rank.
    precision = label_ranking_average_precision_score(is_target, scores)
    assert reciprocal_rank(rank).mean() == pytest.approx(precision)


categories_of_items = st.lists(st.sets(st.sampled_from("abcd"), max_size=3).map(tuple), min_size=6, max_size=6)


@given(st.lists(st.integers(0, 50), min_size=1, max_size=20))
def test_gini_equals_the_mean_absolute_difference(counts: list[int]) -> None:
    count = np.array(counts)
    expected = np.abs(count[:, None] - count[None, :]).sum() / (2 * len(count) * max(count.sum(), 1))
    assert gini(count) == pytest.approx(expected)


def test_coverage_counts_items_shown_at_least_once() -> None:
    count = exposure(np.array([[0, 1], [1, -1]]), num_items=4)
    assert count.tolist() == [1, 2, 0, 0]
    assert catalog_coverage(count) == 0.5


def test_novelty_is_larger_for_rare_items_and_finite_for_unseen_ones() -> None:
    values = novelty(np.array([[0, -1], [1, -1], [2, -1], [0, 1], [-1, -1]]), np.array([7, 1, 0]))
    assert values[:3] == pytest.approx(-np.log2(np.array([8, 2, 1]) / 11))
    assert values[3] == pytest.approx((values[0] + values[1]) / 2)
    assert np.isnan(values[4])


@given(categories_of_items, st.lists(st.permutations(range(6)).map(lambda order: order[:4]), min_size=1, max_size=5))
def test_diversity_equals_one_minus_jaccard_over_pairs(
    categories: list[tuple[str, ...]], lists: list[list[int]]
) -> None:
    expected = []
    for items in lists:
        sets = [set(categories[item]) for item in items]
        pairs = [1 - len(a & b) / len(a | b) for place, a in enumerate(sets) for b in sets[place + 1 :] if a and b]
        expected.append(np.mean(pairs) if pairs else np.nan)
    np.testing.assert_allclose(diversity(np.array(lists), categories), expected)


def test_diversity_of_a_list_of_one_is_unknown() -> None:
    assert np.isnan(diversity(np.array([[0]]), [("drama",)])).all()


@given(st.lists(st.integers(0, 30), min_size=1, max_size=40))
def test_groups_are_ranges_of_sizes_that_do_not_overlap(sizes: list[int]) -> None:
    size = np.array(sizes)
    groups = SizeThirds.of(size, "none")
    index = groups.index(size)
    assert 1 <= len(groups.names) <= 4
    assert len(set(groups.names)) == len(groups.names)
    assert (groups.names[0] == "none") == (0 in sizes)
    order = np.argsort(size, kind="stable")
    assert (np.diff(index[order]) >= 0).all()
    for value in set(sizes):
        assert len(set(index[size == value].tolist())) == 1


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=1, max_size=40))
def test_auc_is_the_share_of_pairs_in_order_and_ties_count_half(rows: list[tuple[int, bool]]) -> None:
    score, positive = (np.array(column) for column in zip(*rows, strict=True))
    pairs = [1.0 if a > b else 0.5 if a == b else 0.0 for a in score[positive] for b in score[~positive]]
    found = auc(score.astype(float), positive)
    assert found == (pytest.approx(np.mean(pairs)) if pairs else None)
