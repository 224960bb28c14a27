from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from variseq.off_policy.improvement import value_of
from variseq.off_policy.score_offsets import (
    RankedPools,
    expected_gain,
    fit_offsets,
    log_reward_rates,
    smooth_inclusion,
)
from variseq.ranking.options import RecommendOptions
from variseq.ranking.plackett_luce import in_list, softmax_weights

NUM_ITEMS = 12


def some_pools(seed: int, num_lists: int = 40, size: int = 9, k: int = 3) -> RankedPools:
    random = np.random.default_rng(seed)
    item = np.stack([random.permutation(NUM_ITEMS)[:size] for _ in range(num_lists)])
    score = -np.sort(-random.normal(0, 1, (num_lists, size)), axis=1)
    item[0, -2:], score[0, -2:] = -1, -np.inf
    gain = (random.random((num_lists, size)) < 0.2) * random.uniform(0, 5, (num_lists, size)) * (item >= 0)
    return RankedPools(item, score, np.full(num_lists, k), (gain > 0).astype(int), gain, gain)


@given(st.integers(0, 10_000), st.sampled_from([0.1, 0.3, 1.0]), st.integers(1, 8))
def test_smooth_probabilities_sum_to_the_length_of_the_list_and_are_near_the_exact_ones(
    seed: int, temperature: float, k: int
) -> None:
    score = -np.sort(-np.random.default_rng(seed).normal(0, 1, (4, 30)), axis=1)
    length = np.full(4, k)
    found, slope = smooth_inclusion(score, temperature, length)
    np.testing.assert_allclose(found.sum(axis=1), k, atol=1e-3)
    exact = in_list(softmax_weights(score, temperature, 1e-9, length), np.tile(np.arange(30), (4, 1)), length)
    assert np.abs(found - exact).max() < 0.25
    assert np.abs(found - exact).mean() < 0.02
    assert (slope >= 0).all()


@given(st.integers(0, 10_000), st.sampled_from([0.2, 1.0]))
def test_gradient_is_that_of_differences(seed: int, temperature: float) -> None:
    pools, random = some_pools(seed), np.random.default_rng(seed + 1)
    offset = random.normal(0, 0.5, NUM_ITEMS)
    direction = random.normal(0, 1, NUM_ITEMS)
    step = 1e-5
    up, down = (expected_gain(pools, offset + sign * step * direction, temperature)[0] for sign in (1, -1))
    _, gradient = expected_gain(pools, offset, temperature)
    assert gradient @ direction == pytest.approx((up - down) / (2 * step), rel=1e-4, abs=1e-7)


def test_item_whose_reward_is_larger_moves_up_and_the_ridge_holds_it_back() -> None:
    pools = some_pools(0)
    is_better = pools.item == 4
    better = replace(pools, gain=np.where(is_better, 5.0, 0.1 * pools.gain))
    free, held = (fit_offsets(better, NUM_ITEMS, 0.3, strength, np.zeros(NUM_ITEMS)) for strength in (0.05, 5.0))
    assert free.argmax() == held.argmax() == 4
    assert free[4] > 1.5 * held[4] > 0
    before, _ = expected_gain(better, np.zeros(NUM_ITEMS), 0.3)
    assert expected_gain(better, free, 0.3)[0] > expected_gain(better, held, 0.3)[0] > before


def test_item_whose_reward_is_negative_moves_down_and_no_rate_is_below_0() -> None:
    pools = some_pools(0)
    worse = replace(pools, reward=np.where(pools.item == 4, -1.0, 0.1), gain=np.where(pools.item == 4, -5.0, 0.0))
    assert fit_offsets(worse, NUM_ITEMS, 0.3, 1.0, np.zeros(NUM_ITEMS)).argmin() == 4
    shown = replace(worse, num_shown=np.ones_like(worse.item) * (worse.item >= 0))
    rates = log_reward_rates(shown, NUM_ITEMS)
    assert np.isfinite(rates).all()
    assert rates.argmin() == 4


def test_value_of_lists_is_the_exact_probability_times_the_gain_of_either_sign() -> None:
    pools = some_pools(3)
    gain = np.where(pools.item >= 0, pools.gain - 0.5 * (pools.item % 2), 0.0)
    offset, options = np.linspace(-1, 1, NUM_ITEMS), RecommendOptions(k=3, temperature=0.5)
    found = value_of(replace(pools, gain=gain), offset, options)
    expected = 0.0
    for row in range(len(pools)):
        order = np.argsort(-np.where(pools.item[row] >= 0, pools.score[row] + offset[pools.item[row]], -np.inf))
        score = np.where(pools.item[row] >= 0, pools.score[row] + offset[pools.item[row]], -np.inf)[order]
        weight = softmax_weights(score[None], 0.5, options.uniform_share, np.array([3]))
        expected += float(in_list(weight, np.arange(9)[None], np.array([3]))[0] @ gain[row][order]) / len(pools)
    assert found == pytest.approx(expected)


def test_without_rewards_nothing_moves() -> None:
    pools = some_pools(1)
    none = replace(pools, gain=np.zeros_like(pools.gain))
    assert not fit_offsets(none, NUM_ITEMS, 0.3, 0.1, np.zeros(NUM_ITEMS)).any()
