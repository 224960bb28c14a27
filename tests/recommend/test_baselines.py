from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.contracts.recommender import check_recommender, with_times
from variseq.errors import InputError
from variseq.evaluation.baselines import (
    LastItemTransitions,
    OwnFrequency,
    OwnTransitions,
    Popular,
    RecentPopular,
)
from variseq.evaluation.evaluate import evaluate
from variseq.evaluation.item_knn import ItemKNN
from variseq.evaluation.splits import leave_one_out
from variseq.ranking.counts import PRIOR_EVENTS
from variseq.sequences.histories import Histories

NUM_ITEMS = 30
BASELINES = [Popular, RecentPopular, LastItemTransitions, ItemKNN, OwnFrequency, OwnTransitions]
lists_of_histories = st.lists(st.lists(st.integers(0, 7), max_size=12), min_size=1, max_size=12)


def training_histories(num_users: int = 60, seed: int = 1) -> Histories:
    generator = np.random.default_rng(seed)
    weight = 1 / np.arange(1, NUM_ITEMS + 1)
    sizes = generator.integers(0, 15, size=num_users)
    return Histories.of_items(
        [generator.choice(NUM_ITEMS, size=size, p=weight / weight.sum()).tolist() for size in sizes]
    )


@pytest.mark.parametrize("make", BASELINES)
def test_baseline_keeps_the_recommender_contract(make: Callable[[int], Any]) -> None:
    for known in (training_histories(), Histories.of_items([[], []])):
        check_recommender(make(NUM_ITEMS).fit(known), NUM_ITEMS)


@pytest.mark.parametrize("make", BASELINES)
def test_item_outside_the_catalog_is_refused(make: Callable[[int], Any]) -> None:
    with pytest.raises(InputError, match="catalog has 3 items"):
        make(3).fit(Histories.of_items([[0, 5]]))


def test_popular_scores_are_the_logarithm_of_the_smoothed_share() -> None:
    popular = Popular(3).fit(Histories.of_items([[0, 1], [1]]))
    expected = torch.tensor([[2.0, 3.0, 1.0]]).div(6).log()
    torch.testing.assert_close(popular.scores(Histories.of_items([[]])), expected)


def recent_scores(items: list[int]) -> torch.Tensor:
    return RecentPopular(3).fit(with_times(Histories.of_items([items]))).scores(Histories.of_items([[]]))[0]


def test_recent_popular_is_popular_where_events_have_an_order_and_no_times() -> None:
    histories = Histories.of_items([[0] * 80 + [1] * 20, [2]])
    assert torch.equal(RecentPopular(3).fit(histories).log_share, Popular(3).fit(histories).log_share)
    assert not torch.equal(RecentPopular(3).fit(with_times(histories)).log_share, Popular(3).fit(histories).log_share)


def test_recent_popular_looks_at_few_events_where_taste_has_just_changed() -> None:
    scores = recent_scores([0] * 80 + [1] * 20)
    assert scores[1] > scores[0] > scores[2]
    assert scores.exp().sum().item() == pytest.approx(1)
    assert scores[1].exp() > 0.9


def test_recent_popular_looks_far_back_where_taste_stays() -> None:
    scores = recent_scores([0, 0, 1] * 30)
    # The last event alone would put item 1 first.
    assert scores[:2].exp().tolist() == pytest.approx([2 / 3, 1 / 3], abs=0.03)


def test_recent_popular_learns_its_window_from_nothing_but_what_is_known() -> None:
    assert torch.equal(recent_scores([1]), recent_scores([1]))
    assert recent_scores([1])[1] > recent_scores([1])[0]
    at_one_time = Histories(
        np.array([0, 3]), np.array([2, 2, 0], np.int32), np.zeros(3, np.uint8), np.full(3, 7), np.full(3, np.nan)
    )
    scores = RecentPopular(3).fit(at_one_time).log_share
    assert scores[2] > scores[0] > scores[1]


def test_transitions_are_counts_backed_off_to_popularity() -> None:
    histories = Histories.of_items([[0, 1, 0, 1], [0, 2]])
    transitions = LastItemTransitions(4).fit(histories)
    share = np.array([4, 3, 2, 1]) / 10
    followed = np.array([0, 2, 1, 0])
    m = PRIOR_EVENTS
    probability = transitions.scores(Histories.of_items([[3, 0], [], [2]])).exp().numpy()
    np.testing.assert_allclose(probability[0], (followed + m * share) / (3 + m), rtol=1e-5)
    np.testing.assert_allclose(probability[1], share, rtol=1e-5)
    np.testing.assert_allclose(probability[2], share, rtol=1e-5)  # nothing followed item 2: histories do not mix


@given(lists_of_histories, lists_of_histories)
@settings(max_examples=50, deadline=None)
def test_transition_scores_are_normalized_log_probabilities(training: list[list[int]], asked: list[list[int]]) -> None:
    transitions = LastItemTransitions(8).fit(Histories.of_items(training))
    total = transitions.scores(Histories.of_items(asked)).exp().sum(dim=1)
    torch.testing.assert_close(total, torch.ones(len(asked)), atol=1e-5, rtol=0)


@given(
    lists_of_histories,
    lists_of_histories,
    st.sampled_from([0.5, 0.8, 1.0]),
    st.integers(1, 8),
    st.integers(1, 8),
    st.sampled_from([1, 10, 4_000_000]),
)
@settings(max_examples=100, deadline=None)
def test_item_knn_equals_the_cosines_of_a_dense_matrix(
    training: list[list[int]],
    asked: list[list[int]],
    decay: float,
    num_neighbors: int,
    max_user_items: int,
    pairs_at_once: int,
) -> None:
    binary = np.zeros((len(training), 8), dtype=np.float32)
    for user, history in enumerate(training):
        latest_first = list(dict.fromkeys(reversed(history)))
        binary[user, latest_first[:max_user_items]] = 1
    scale = (1 / np.sqrt(np.maximum(binary.sum(axis=0), 1))).astype(np.float32)
    cosine = (binary.T @ binary) * scale[:, None] * scale
    np.fill_diagonal(cosine, 0)
    for row in cosine:
        row[np.argsort(-row, kind="stable")[num_neighbors:]] = 0
    expected = np.zeros((len(asked), 8))
    for number, history in enumerate(asked):
        for age, item in enumerate(reversed(history)):
            expected[number] += decay**age * cosine[item]
    knn = ItemKNN(8, decay=decay)
    knn.NUM_CELLS, knn.NUM_NEIGHBORS, knn.MAX_USER_ITEMS = 0, num_neighbors, max_user_items
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("variseq.evaluation.item_knn.PAIRS_AT_ONCE", pairs_at_once)
        scores = knn.fit(Histories.of_items(training)).scores(Histories.of_items(asked)).numpy()
    np.testing.assert_allclose(scores, expected, atol=1e-5)


def test_small_catalog_keeps_all_neighbors_and_a_large_one_a_number_of_each() -> None:
    everything_together, knn = Histories.of_items([list(range(10))]), ItemKNN(10)
    assert knn.fit(everything_together).neighbors.nnz == 90
    knn.NUM_CELLS, knn.NUM_NEIGHBORS = 40, 3
    assert np.diff(knn.fit(everything_together).neighbors.indptr).tolist() == [4] * 10
    knn.NUM_CELLS = 20
    assert np.diff(knn.fit(everything_together).neighbors.indptr).tolist() == [3] * 10
    assert sorted(knn.neighbors[[0]].indices) == [1, 2, 3], "all neighbors are alike, so the first ones stay"


@pytest.mark.parametrize("decay", [0.0, -1.0, 1.5])
def test_decay_outside_its_range_is_refused(decay: float) -> None:
    with pytest.raises(InputError, match=r"decay=.*above 0 and at most 1"):
        ItemKNN(3, decay=decay)


def test_transitions_find_a_cycle_that_popularity_cannot_see() -> None:
    cycle = [[(start + step) % 6 for step in range(12)] for start in range(6)] * 5
    train, _, test = leave_one_out(Histories.of_items(cycle))
    known = train.history()
    transitions, popular = LastItemTransitions(6).fit(known), Popular(6).fit(known)
    first_hit = [
        float(model.scores(test.history()).argmax(dim=1).eq(torch.tensor(test.histories.item[11::12])).float().mean())
        for model in (transitions, popular)
    ]
    assert first_hit[0] == 1.0
    assert first_hit[1] < 0.5


def test_baselines_are_judged_by_the_evaluation_room() -> None:
    train, _, test = leave_one_out(training_histories(), num_items=NUM_ITEMS)
    for make in BASELINES:
        model: Any = make(NUM_ITEMS).fit(train.history())
        evaluation = evaluate(model, test)
        assert (evaluation.forecasts is not None) == model.gives_probabilities
        assert len(evaluation.rank) == len(test.queries())


def test_own_transitions_lead_to_what_followed_the_last_item_before() -> None:
    own = OwnTransitions(NUM_ITEMS).fit(training_histories())
    # Item 4 came oftenest and latest, but 9 always followed 3.
    scores = own.scores(Histories.of_items([[3, 9, 4, 3, 9, 4, 4, 3], []]))
    assert int(scores[0].argmax()) == 9
    torch.testing.assert_close(scores[1], own.log_share)
    assert (
        int(OwnFrequency(NUM_ITEMS).fit(training_histories()).scores(Histories.of_items([[9, 4, 4, 9, 4]]))[0].argmax())
        == 4
    )
