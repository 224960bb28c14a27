"""Offsets from rewards of whole lists go along the gradient of what tilted lists earn, as far as can be judged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.off_policy.lists import EveryList
from variseq.off_policy.list_gradient import (
    EFFECTIVE_SHARE,
    DrawnPools,
    effective_share,
    gradient_step,
    inclusion,
    largest_step,
    reward_gradient,
)
from variseq.ranking.options import RecommendOptions
from variseq.ranking.plackett_luce import softmax_weights

K, NUM_ITEMS = 2, 6
OPTIONS = RecommendOptions(k=K, strategy="softmax", temperature=0.5, uniform_share=1e-4)
COUNTS = {(0, 1): 20, (0, 2): 10, (1, 0): 15, (1, 2): 5, (2, 0): 6, (2, 1): 4}
"""Of 60 lists of two items with weights 3, 2 and 1: exactly as often as they are to be expected."""
ADDED = 5e-5 / (1 - 1e-4 + 5e-5)
"""What uniform_share adds to each weight, where the largest one is 1 before."""


def weights_of(score: np.ndarray) -> np.ndarray:
    """The weights of items, whatever the order of their scores."""
    order = np.argsort(-score)
    weight = softmax_weights(score[order][None], OPTIONS.temperature, OPTIONS.uniform_share, np.array([K]))[0]
    return weight[np.argsort(order)]


def pools_of(score: np.ndarray, lists: Sequence[tuple[int, ...]], reward: np.ndarray) -> DrawnPools:
    """Lists from one pool, whose items are numbered by their scores."""
    number = len(lists)
    item, scores = (np.tile(one, (number, 1)) for one in (np.arange(len(score)), score))
    return DrawnPools(item, scores, np.full(number, K), np.array(lists), reward)


def drawn(seed: int, number: int) -> tuple[EveryList, DrawnPools, np.ndarray]:
    """A policy, lists that it drew, and the mean reward of each of all lists, which is no sum over items."""
    random = np.random.default_rng(seed)
    score = -np.sort(-random.normal(0, 0.5, NUM_ITEMS))
    every = EveryList(weights_of(score), K)
    worth = random.normal(0, 1, NUM_ITEMS)
    truth = np.array([max(worth[list(one)]) - (one[0] % 3 == one[1] % 3) for one in every.lists])
    chosen = random.choice(len(truth), size=number, p=every.probability / every.probability.sum())
    reward = truth[chosen] + random.normal(0, 1, number)
    return every, pools_of(score, [every.lists[one] for one in chosen], reward), truth


@given(st.lists(st.floats(-5, 5), min_size=6, max_size=6))
def test_gradient_is_that_of_tilted_lists_for_any_reward(values: list[float]) -> None:
    reward_of = dict(zip(COUNTS, values, strict=True))
    lists = [one for one, count in COUNTS.items() for _ in range(count)]
    score = 0.5 * np.log(np.array([3.0, 2.0, 1.0]) / 3 * (1 + ADDED) - ADDED)
    pools = pools_of(score, lists, np.array([reward_of[one] for one in lists]))
    found = reward_gradient(pools, inclusion(pools, OPTIONS), num_items=4)

    def tilted(offset: np.ndarray) -> float:
        weight = {one: count * np.exp(offset[list(one)].sum()) for one, count in COUNTS.items()}
        return sum(weight[one] * reward_of[one] for one in COUNTS) / sum(weight.values())

    step = 1e-5
    for item in range(3):
        moved = np.eye(3)[item] * step
        assert found[item] == pytest.approx((tilted(moved) - tilted(-moved)) / (2 * step), abs=1e-6)
    assert found[3] == 0


def test_step_ends_where_half_of_the_effective_sample_is_left() -> None:
    every, pools, _ = drawn(1, 3000)
    direction = np.linspace(1, -1, NUM_ITEMS) ** 3
    offset = largest_step(pools, direction, OPTIONS)
    moved = EveryList(weights_of(pools.score[0] + offset), K)
    ratio = dict(zip(every.lists, moved.probability / every.probability, strict=True))
    weight = np.array([ratio[tuple(one)] for one in pools.index.tolist()])
    share = weight.sum() ** 2 / (weight**2).sum() / len(pools)
    before = pools.log_probability(OPTIONS)
    assert effective_share(pools, before, offset, OPTIONS) == pytest.approx(share)
    assert EFFECTIVE_SHARE <= share < EFFECTIVE_SHARE + 0.02
    assert effective_share(pools, before, np.zeros(NUM_ITEMS), OPTIONS) == pytest.approx(1)
    np.testing.assert_allclose(offset / offset[0], direction)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_drawn_lists_earn_more_after_a_step(seed: int) -> None:
    every, pools, truth = drawn(seed, 2000)
    offset = gradient_step(pools, NUM_ITEMS, OPTIONS)
    moved = EveryList(weights_of(pools.score[0] + offset), K)
    assert moved.probability @ truth > every.probability @ truth + 0.1


def test_smaller_pools_and_cut_lists_count_as_what_they_are() -> None:
    _, pools, _ = drawn(4, 50)
    wide = replace(
        pools,
        item=np.pad(pools.item, ((0, 0), (0, 2)), constant_values=-1),
        score=np.pad(pools.score, ((0, 0), (0, 2)), constant_values=-np.inf),
        index=np.pad(pools.index, ((0, 0), (0, 1)), constant_values=-1),
    )
    np.testing.assert_allclose(
        gradient_step(wide, NUM_ITEMS, OPTIONS), gradient_step(pools, NUM_ITEMS, OPTIONS), rtol=1e-9
    )
    cut = replace(pools, index=np.where(np.arange(K) < 1, pools.index, -1))
    np.testing.assert_allclose(inclusion(cut, OPTIONS).sum(axis=1), 1, atol=1e-9)


def test_equal_rewards_move_nothing() -> None:
    _, pools, _ = drawn(5, 40)
    assert not gradient_step(replace(pools, reward=np.ones(40)), NUM_ITEMS, OPTIONS).any()
