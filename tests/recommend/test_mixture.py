from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.contracts.recommender import check_recommender, some_histories
from tests.model.some_networks import NUM_ITEMS, small_network
from variseq.estimator import VariationalAttention
from variseq.evaluation.evaluate import EvaluationOptions
from variseq.evaluation.splits import leave_one_out
from variseq.model.scorer import NetworkScorer
from variseq.recommend.baselines import LastItemTransitions
from variseq.recommend.mixture import SHARES, Mixture, best_share
from variseq.sequences.histories import Histories

HISTORIES = some_histories(NUM_ITEMS)


def memory() -> LastItemTransitions:
    return LastItemTransitions(NUM_ITEMS).fit(HISTORIES)


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_mixture_keeps_the_recommender_contract(share: float) -> None:
    check_recommender(Mixture(NetworkScorer(small_network()), memory(), share), NUM_ITEMS)


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_mixture_is_the_weighted_mean_of_both_probabilities(share: float) -> None:
    scorer, counts = NetworkScorer(small_network()), memory()
    mixture = Mixture(scorer, counts, share)
    mixed = mixture.scores(mixture.query(HISTORIES), 0, NUM_ITEMS).exp()
    neural = torch.softmax(scorer.scores(scorer.query(HISTORIES), 0, NUM_ITEMS), dim=1)
    counted = torch.softmax(counts.scores(counts.query(HISTORIES), 0, NUM_ITEMS), dim=1)
    torch.testing.assert_close(mixed, (1 - share) * neural + share * counted)
    torch.testing.assert_close(mixed.sum(dim=1), torch.ones(len(HISTORIES)))


def test_share_goes_to_the_memory_where_only_the_memory_knows_what_comes_next() -> None:
    # Item i is always followed by i + 1; the network is untrained.
    cycle = Histories.of_items([[(start + step) % NUM_ITEMS for step in range(6)] for start in range(NUM_ITEMS)])
    _, valid, _ = leave_one_out(cycle, NUM_ITEMS)
    often = Histories.of_items([cycle.item[begin : begin + 6].tolist() for begin in cycle.offsets[:-1]] * 100)
    counts = LastItemTransitions(NUM_ITEMS).fit(often)
    options = EvaluationOptions(k=1, targets="last")
    assert best_share(NetworkScorer(small_network()), counts, valid, options) > 0


def test_share_is_zero_where_the_memory_adds_nothing() -> None:
    _, valid, _ = leave_one_out(HISTORIES, NUM_ITEMS)
    options = EvaluationOptions(k=NUM_ITEMS, targets="last", exclude_seen=False)
    scorer = NetworkScorer(small_network())
    flat = LastItemTransitions(NUM_ITEMS)  # nothing counted: every item alike
    assert best_share(scorer, flat, valid, options) == 0.0


def test_fitted_model_keeps_its_memory_and_share(fitted: VariationalAttention) -> None:
    checkpoint = fitted.checkpoint
    assert checkpoint is not None
    assert checkpoint.manifest["memory_share"] in SHARES
    counted = LastItemTransitions.from_state(checkpoint.memory).followers.value.sum()
    assert checkpoint.bounds is not None
    train_events = int((checkpoint.bounds[0] - checkpoint.histories.offsets[:-1]).sum())
    num_users = int((checkpoint.bounds[0] > checkpoint.histories.offsets[:-1]).sum())
    np.testing.assert_equal(float(counted), train_events - num_users)
