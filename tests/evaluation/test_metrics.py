from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import label_ranking_average_precision_score, ndcg_score, top_k_accuracy_score

from variseq.evaluation.metrics import ndcg, recall, reciprocal_rank

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
