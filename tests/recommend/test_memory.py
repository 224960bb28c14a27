from __future__ import annotations

import torch

from variseq.evaluation.baselines import LastItemTransitions, RecentPopular
from variseq.recommend.memory import Memory
from variseq.sequences.histories import Histories

HISTORIES = Histories.of_items([[0, 1, 2], [2, 1], [3]])


def test_memory_counts_what_the_two_recommenders_count() -> None:
    memory = Memory(4).fit(HISTORIES)
    transitions, trend = LastItemTransitions(4).fit(HISTORIES), RecentPopular(4).fit(HISTORIES)
    query = transitions.query(HISTORIES)
    assert torch.equal(memory.trend.log_share, trend.log_share)
    assert torch.equal(memory.transitions.scores(query, 0, 4), transitions.scores(query, 0, 4))


def test_memory_comes_back_from_its_state() -> None:
    memory = Memory(4).fit(HISTORIES)
    again = Memory.from_state({name: tensor.clone() for name, tensor in memory.state().items()})
    assert again.state().keys() == memory.state().keys()
    assert all(torch.equal(again.state()[name], tensor) for name, tensor in memory.state().items())


def test_memory_that_is_fitted_again_forgets_what_it_counted_before() -> None:
    memory = Memory(4).fit(Histories.of_items([[3, 3, 3, 0]])).fit(HISTORIES)
    fresh = Memory(4).fit(HISTORIES)
    assert all(torch.equal(memory.state()[name], tensor) for name, tensor in fresh.state().items())
