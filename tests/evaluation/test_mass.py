from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.model.some_networks import NUM_ITEMS, small_network
from variseq.evaluation.evaluate import EvaluationOptions, evaluate
from variseq.evaluation.splits import leave_one_out
from variseq.ranking.calibration import Calibration, repeat_share
from variseq.ranking.selection import Constraints, Selector
from variseq.recommend.network_model import ModelRecommender, count_events, mixture_model
from variseq.sequences.histories import Histories

LISTS = st.lists(st.lists(st.integers(0, NUM_ITEMS - 1), min_size=3, max_size=8), min_size=2, max_size=6)


class Given:
    """The same scores for everybody."""

    name = "given"
    gives_probabilities = True

    def __init__(self, scores: list[float]) -> None:
        self.of_items = torch.tensor(scores)

    def scores(self, histories: Histories) -> torch.Tensor:
        return self.of_items.repeat(len(histories), 1)


def by_hand(scores: np.ndarray, seen: set[int], share: float) -> np.ndarray:
    """The hurdle model, item by item."""
    mass = np.exp(scores)
    is_seen = np.array([item in seen for item in range(len(scores))])
    if is_seen.all() or not is_seen.any():
        return mass / mass.sum()
    return np.where(is_seen, share * mass / mass[is_seen].sum(), (1 - share) * mass / mass[~is_seen].sum())


@settings(max_examples=30, deadline=None)
@given(
    histories=LISTS,
    scores=st.lists(st.floats(-4, 4), min_size=NUM_ITEMS, max_size=NUM_ITEMS),
    share=st.floats(0.01, 0.6),
)
def test_forecasts_are_those_of_the_hurdle_model(histories: list[list[int]], scores: list[float], share: float) -> None:
    part = leave_one_out(Histories.of_items(histories), NUM_ITEMS)[2]
    options = EvaluationOptions(k=3, targets="last", repeat_share=share)
    result = evaluate(Given(scores), part, options)
    found = result.forecasts
    assert found is not None
    values = np.array(scores, dtype=np.float32).astype(np.float64)
    for query, history in enumerate(histories):
        p, target = by_hand(values, set(history[:-1]), share), history[-1]
        assert found.nll[query] == pytest.approx(-np.log(p[target]), abs=1e-4)
        assert found.entropy[query] == pytest.approx(-(p * np.log(p)).sum(), abs=1e-4)
        assert found.brier[query] == pytest.approx((p**2).sum() - 2 * p[target] + 1, abs=1e-4)
        shown = result.top_item[query][result.top_item[query] >= 0]
        np.testing.assert_allclose(found.top_probability[query][: len(shown)], p[shown], atol=1e-5)
        if target in history[:-1]:
            assert found.mass_before[query] == 1
        else:
            ahead = [
                i for i in range(NUM_ITEMS) if i not in history[:-1] and i != target and values[i] >= values[target]
            ]
            assert found.mass_before[query] == pytest.approx(p[ahead].sum(), abs=1e-4)


@settings(max_examples=30, deadline=None)
@given(histories=LISTS, share=st.floats(0.01, 0.6))
def test_recommended_probabilities_are_those_of_the_evaluation(histories: list[list[int]], share: float) -> None:
    part = leave_one_out(Histories.of_items(histories), NUM_ITEMS)[2]
    model = mixture_model(small_network(), count_events(NUM_ITEMS, part.history()), Calibration(2))
    options = EvaluationOptions(k=4, targets="last", repeat_share=share)
    evaluation = evaluate(ModelRecommender(model), part, options)
    p = model.distribution(model.encode(part.history()), part.history()).probabilities()
    constraints = [Constraints(NUM_ITEMS, 4, repeat_share=share)] * len(histories)
    selector = Selector.of(part.history(), constraints, model.everything)
    item, score = selector.best(p, 0.0, model.tables.vectors)
    assert evaluation.forecasts is not None
    np.testing.assert_array_equal(item, evaluation.top_item)
    probability = np.exp(score + selector.log_weight(p)[:, None])
    np.testing.assert_allclose(probability, evaluation.forecasts.top_probability, atol=1e-5)


def test_repeat_share_is_counted_after_the_first_event_and_never_zero() -> None:
    assert repeat_share(Histories.of_items([[1, 2, 3], [4, 5]])) == pytest.approx(0.5 / 4)
    assert repeat_share(Histories.of_items([[1, 1, 1], [], [4]])) == pytest.approx(2.5 / 3)
