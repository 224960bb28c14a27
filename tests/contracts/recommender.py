"""What every Recommender must hold; each function takes one that is ready to answer and raises AssertionError."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from variseq.evaluation.recommender import Recommender
from variseq.sequences.histories import Histories

TOLERANCE = 1e-4


def check_recommender(recommender: Recommender, num_items: int) -> None:
    """All of the contract, on histories of several lengths (an empty one and a long one among them)."""
    histories = some_histories(num_items)
    with torch.inference_mode():
        gives_one_finite_score_per_item(recommender, histories, num_items)
        does_not_depend_on_the_other_histories(recommender, histories)
        answers_the_same_twice_and_leaves_the_histories_alone(recommender, histories)
        probabilities_are_a_distribution(recommender, histories)


def with_times(histories: Histories) -> Histories:
    """The same order, with gaps of many sizes between the events, in place of one gap for all."""
    return replace(histories, timestamp=histories.timestamp + np.arange(histories.num_events) ** 2 % 7)


def some_histories(num_items: int, seed: int = 0) -> Histories:
    generator = np.random.default_rng(seed)
    return Histories.of_items([generator.integers(num_items, size=size).tolist() for size in (3, 0, 1, 40, 7)])


def gives_one_finite_score_per_item(recommender: Recommender, histories: Histories, num_items: int) -> None:
    scores = recommender.scores(histories)
    assert scores.shape == (len(histories), num_items)
    assert scores.is_floating_point()
    assert bool(torch.isfinite(scores).all())
    assert recommender.name


def does_not_depend_on_the_other_histories(recommender: Recommender, histories: Histories) -> None:
    together = recommender.scores(histories)
    alone = [recommender.scores(histories.history(place)) for place in range(len(histories))]
    torch.testing.assert_close(torch.cat(alone), together, atol=TOLERANCE, rtol=TOLERANCE)


def answers_the_same_twice_and_leaves_the_histories_alone(recommender: Recommender, histories: Histories) -> None:
    before = histories.item.copy()
    first = recommender.scores(histories).clone()
    assert torch.equal(first, recommender.scores(histories))
    assert np.array_equal(before, histories.item)


def probabilities_are_a_distribution(recommender: Recommender, histories: Histories) -> None:
    if recommender.gives_probabilities:
        probability = recommender.scores(histories).double().softmax(dim=1)
        assert bool((probability > 0).all())
        torch.testing.assert_close(probability.sum(dim=1), torch.ones(len(histories), dtype=torch.float64))
