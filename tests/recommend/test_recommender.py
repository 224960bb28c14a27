from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.contracts.recommender import check_recommender, some_histories
from tests.model.some_networks import NUM_ITEMS, small_network
from variseq.evaluation.baselines import ItemKNN, Popular
from variseq.model.posterior import NetworkScorer
from variseq.ranking.calibration import Calibration
from variseq.recommend import recommender as room
from variseq.recommend.forecast import Forecast
from variseq.recommend.memory import Memory
from variseq.recommend.recommender import rank_items
from variseq.recommend.wishes import Wish
from variseq.sequences.histories import Histories

HISTORIES = some_histories(NUM_ITEMS)


def test_network_keeps_the_recommender_contract() -> None:
    check_recommender(NetworkScorer(small_network()), NUM_ITEMS)


def test_temperature_changes_probabilities_and_not_the_order() -> None:
    network, nothing = small_network(), Memory(NUM_ITEMS)
    forecasts = [Forecast(network, nothing, Calibration(0, (t,) * 10)) for t in (1.0, 3.0)]
    cold, warm = (rank_items(forecast, HISTORIES, Wish(NUM_ITEMS, 5)) for forecast in forecasts)
    np.testing.assert_array_equal(cold.item, warm.item)
    somebody = cold.item[:, 0] >= 0  # the history of 40 events has seen everything
    assert (warm.probability[somebody, 0] < cold.probability[somebody, 0]).all()


@given(st.integers(1, NUM_ITEMS + 3), st.integers(1, NUM_ITEMS))
def test_ranking_does_not_depend_on_the_tiles(tile_items: int, k: int) -> None:
    scorer = NetworkScorer(small_network())
    whole = rank_items(scorer, HISTORIES, Wish(NUM_ITEMS, k))
    tiled = rank_items(scorer, HISTORIES, Wish(NUM_ITEMS, k), tile_items=tile_items)
    np.testing.assert_array_equal(tiled.item, whole.item)
    np.testing.assert_allclose(tiled.score, whole.score, atol=1e-5)
    np.testing.assert_allclose(tiled.probability, whole.probability, atol=1e-6)


def test_ranking_does_not_depend_on_how_many_histories_are_ranked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    scorer = NetworkScorer(small_network())
    whole = rank_items(scorer, HISTORIES, Wish(NUM_ITEMS, 5))
    monkeypatch.setattr(room, "TILE_HISTORIES", 2)
    np.testing.assert_array_equal(rank_items(scorer, HISTORIES, Wish(NUM_ITEMS, 5)).item, whole.item)


def test_ranking_is_by_falling_score_over_the_candidates_that_were_not_seen() -> None:
    scorer = NetworkScorer(small_network())
    candidates = np.arange(NUM_ITEMS) % 2 == 0
    ranked = rank_items(scorer, HISTORIES, Wish(NUM_ITEMS, 4, candidates=candidates))
    scores = scorer.scores(scorer.query(HISTORIES), 0, NUM_ITEMS).numpy()
    for row in range(len(HISTORIES)):
        seen = set(HISTORIES.history(row).item.tolist())
        allowed = [item for item in range(0, NUM_ITEMS, 2) if item not in seen]
        expected = sorted(allowed, key=lambda item: -scores[row, item])[:4]
        assert ranked.item[row].tolist() == expected + [-1] * (4 - len(expected))


def test_seen_items_come_back_when_that_is_wanted() -> None:
    scorer = NetworkScorer(small_network())
    ranked = rank_items(scorer, HISTORIES, Wish(NUM_ITEMS, NUM_ITEMS, exclude_seen=False))
    assert (np.sort(ranked.item, axis=1) == np.arange(NUM_ITEMS)).all()
    np.testing.assert_allclose(ranked.probability.sum(axis=1), 1.0, rtol=1e-5)


def test_probability_is_over_the_whole_catalog_whatever_may_be_recommended() -> None:
    scorer = NetworkScorer(small_network())
    all_items = rank_items(scorer, HISTORIES, Wish(NUM_ITEMS, NUM_ITEMS))
    some = rank_items(scorer, HISTORIES, Wish(NUM_ITEMS, 3, candidates=np.arange(NUM_ITEMS) < 6))
    for row in range(len(HISTORIES)):
        of_item = dict(zip(all_items.item[row].tolist(), all_items.probability[row].tolist(), strict=True))
        for item, probability in zip(some.item[row].tolist(), some.probability[row].tolist(), strict=True):
            if item >= 0:
                assert probability == pytest.approx(of_item[item], rel=1e-5)


def test_scores_that_are_no_probabilities_give_none() -> None:
    ranked = rank_items(ItemKNN(NUM_ITEMS).fit(HISTORIES), HISTORIES, Wish(NUM_ITEMS, 3))
    assert np.isnan(ranked.probability).all()


def test_ranking_leaves_the_memory_of_a_recommender_alone() -> None:
    popular = Popular(NUM_ITEMS).fit(HISTORIES)
    before = popular.log_share.clone()
    rank_items(popular, HISTORIES, Wish(NUM_ITEMS, 3, candidates=np.arange(NUM_ITEMS) < 4))
    assert torch.equal(popular.log_share, before)


def test_largest_block_of_scores_does_not_grow_with_users_or_items(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is bounded by how scoring is cut: no call is asked for more than one tile of histories and of items."""
    monkeypatch.setattr(room, "TILE_HISTORIES", 8)
    asked: list[tuple[int, int]] = []

    class Watched(Popular):
        def scores(self, query: int, first: int, last: int) -> torch.Tensor:
            asked.append((query, last - first))
            return super().scores(query, first, last)

    many = Histories.of_items([[place % 7] for place in range(50)])
    ranked = rank_items(Watched(1000).fit(many), many, Wish(1000, 5), tile_items=64)
    assert ranked.item.shape == (50, 5)
    assert max(rows for rows, _ in asked) == 8
    assert max(columns for _, columns in asked) == 64
