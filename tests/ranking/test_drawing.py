from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from variseq.estimator import VariationalAttention
from variseq.ranking.plackett_luce import at_rank, draw_lists, in_list, random_key, softmax_weights, uniform_numbers

seeds = st.integers(0, 10_000)


def some_weights(seed: int, num_items: int, spread: float = 2.0, uniform_share: float = 0.01, k: int = 3) -> np.ndarray:
    score = -np.sort(np.random.default_rng(seed).normal(0, spread, (1, num_items)))
    return softmax_weights(score, 1.0, uniform_share, np.array([k]))


def probability_of(weight: np.ndarray, order: tuple[int, ...]) -> float:
    """The plain product over ranks."""
    product = 1.0
    for place, item in enumerate(order):
        product *= weight[item] / sum(weight[other] for other in range(len(weight)) if other not in order[:place])
    return product


@given(seeds, st.sampled_from([0.3, 2.0, 8.0]))
def test_probabilities_of_all_ordered_lists_sum_to_one(seed: int, spread: float) -> None:
    weight = some_weights(seed, 6, spread)
    orders = np.array(list(permutations(range(6), 3)))
    product = at_rank(np.repeat(weight, len(orders), axis=0), orders).prod(axis=1)
    assert product.sum() == pytest.approx(1, abs=1e-12)
    assert product[7] == pytest.approx(probability_of(weight[0], tuple(orders[7])), rel=1e-12)


@given(seeds, st.integers(2, 7), st.integers(1, 7), st.sampled_from([0.3, 2.0, 8.0]))
def test_propensity_in_a_list_is_that_of_enumeration(seed: int, num_items: int, k: int, spread: float) -> None:
    k, weight = min(k, num_items), some_weights(seed, num_items, spread)
    expected = np.zeros(num_items)
    for order in permutations(range(num_items), k):
        expected[list(order)] += probability_of(weight[0], order)
    found = in_list(weight, np.arange(num_items)[None], np.array([k]))[0]
    np.testing.assert_allclose(found, expected, atol=1e-10)


@given(seeds, st.sampled_from([0.0, 0.1, 1.0, 30.0]), st.sampled_from([1, 10, 50]))
def test_propensities_of_a_pool_sum_to_the_length_of_the_list(seed: int, spread: float, k: int) -> None:
    weight = some_weights(seed, 100, spread, k=k)
    found = in_list(weight, np.arange(100)[None], np.array([k]))
    assert found.sum() == pytest.approx(k, abs=1e-7)
    assert (np.diff(found[0]) <= 1e-9).all(), "the better item is in the list more often"


@given(seeds, st.integers(1, 6), st.floats(0.01, 0.99))
def test_uniform_share_is_that_of_the_last_place_and_keeps_the_order(seed: int, k: int, uniform_share: float) -> None:
    score = -np.sort(np.random.default_rng(seed).normal(0, 4, (1, 6)))
    weight = softmax_weights(score, 0.5, uniform_share, np.array([k]))[0]
    plain = np.exp((score[0] - score[0, 0]) / 0.5)
    left = plain[k - 1 :] / plain[k - 1 :].sum()
    expected = (1 - uniform_share) * left + uniform_share / len(left)
    np.testing.assert_allclose(weight[k - 1 :] / weight[k - 1 :].sum(), expected, rtol=1e-9)
    assert (np.diff(weight) <= 0).all()


def test_propensity_of_some_items_is_that_among_all() -> None:
    weight = np.concatenate([some_weights(seed, 30) for seed in range(3)])
    index, k = np.array([[4, 9, -1], [29, 0, 3], [1, -1, -1]]), np.array([3, 3, 1])
    every = in_list(weight, np.tile(np.arange(30), (3, 1)), k)
    found = in_list(weight, index, k)
    np.testing.assert_allclose(found, np.where(index >= 0, np.take_along_axis(every, np.maximum(index, 0), 1), 0))


def test_lists_are_drawn_as_often_as_their_propensities_promise() -> None:
    num_draws, weight = 20_000, some_weights(3, 8, uniform_share=0.05)
    many = np.repeat(weight, num_draws, axis=0)
    item = np.tile(np.arange(8), (num_draws, 1))
    drawn = draw_lists(item, many, np.full(num_draws, 3), [random_key(seed, None) for seed in range(num_draws)])
    expected = in_list(weight, np.arange(8)[None], np.array([3]))[0]
    share = np.bincount(drawn.index.ravel(), minlength=8) / num_draws
    assert (np.abs(share - expected) < 4.5 * np.sqrt(expected * (1 - expected) / num_draws)).all()
    first = np.bincount(drawn.index[:, 0], minlength=8) / num_draws
    assert (np.abs(first - weight[0]) < 4.5 * np.sqrt(weight[0] * (1 - weight[0]) / num_draws)).all()
    np.testing.assert_allclose(drawn.at_rank[:, 0], weight[0, drawn.index[:, 0]], rtol=1e-12)


def test_draw_does_not_depend_on_the_order_of_the_pool_or_on_others() -> None:
    weight, item = some_weights(1, 12), np.arange(12)[None] + 5
    keys = [random_key(2, "u1")]
    order = np.random.default_rng(0).permutation(12)
    first = draw_lists(item, weight, np.array([4]), keys)
    other = draw_lists(item[:, order], weight[:, order], np.array([4]), keys)
    assert item[0, first.index].tolist() == item[0, order][other.index].tolist()
    both = draw_lists(np.repeat(item, 2, 0), np.repeat(weight, 2, 0), np.array([2, 4]), [random_key(9, 1), *keys])
    assert both.index[1].tolist() == first.index[0].tolist()
    assert both.index[0, 2:].tolist() == [-1, -1]
    np.testing.assert_allclose(both.in_list[1], first.in_list[0], rtol=1e-9)


def test_random_numbers_are_uniform_and_apart() -> None:
    numbers = uniform_numbers([random_key(seed, "u1") for seed in range(300)], np.tile(np.arange(300), (300, 1)))
    assert len(np.unique(numbers)) == numbers.size
    share = np.histogram(numbers, bins=20, range=(0, 1))[0] / numbers.size
    assert np.abs(share - 0.05).max() < 5 * np.sqrt(0.05 * 0.95 / numbers.size)
    assert abs(np.corrcoef(numbers[:, 0], numbers[:, 1])[0, 1]) < 0.3
    assert abs(np.corrcoef(numbers[0], numbers[1])[0, 1]) < 0.3


def test_small_temperature_is_nearly_greedy_and_no_probability_changes(fitted: VariationalAttention) -> None:
    users = fitted.vocabulary.user_ids(range(20))
    greedy = fitted.recommend(users=users, k=5).to_pandas()
    in_greedy = set(zip(greedy["user_id"], greedy["item_id"], strict=True))
    shares = []
    for temperature in (0.05, 0.3, 3.0):
        drawn = fitted.recommend(
            users=users, k=5, strategy="softmax", temperature=temperature, uniform_share=1e-4, seed=0
        )
        shares.append(len(in_greedy & set(zip(drawn.user_id, drawn.item_id, strict=True))) / len(in_greedy))
    assert shares[0] > 0.8 > shares[1] > shares[2]
    warm = fitted.recommend(users=users, k=40, pool=40, strategy="softmax", temperature=3.0, seed=1).to_pandas()
    everything = fitted.recommend(users=users, k=40).to_pandas()
    both = warm.merge(everything, on=["user_id", "item_id"], suffixes=("", "_greedy"))
    assert len(both) == len(warm)
    np.testing.assert_allclose(both["probability"], both["probability_greedy"], rtol=1e-4)
    assert "propensity_at_rank" not in greedy.columns


def test_people_and_seeds_are_drawn_apart_and_no_seed_is_another_each_time(fitted: VariationalAttention) -> None:
    same = ["somebody", "somebody else", "a third person"]  # all with an empty history
    options = {"k": 5, "strategy": "softmax", "temperature": 2.0}
    table = fitted.recommend(users=same, seed=1, **options).to_pandas()
    lists = [rows["item_id"].tolist() for _, rows in table.groupby("user_id", sort=False)]
    assert lists[0] != lists[1] != lists[2]
    alone = fitted.recommend(users=same[1:2], seed=1, **options).to_pandas()
    assert alone["item_id"].tolist() == lists[1]
    drawn = {tuple(fitted.recommend(users=same[:1], **options).to_pandas()["item_id"]) for _ in range(6)}
    assert len(drawn) > 1


def test_pinned_items_keep_their_ranks_and_others_are_drawn_without_them(fitted: VariationalAttention) -> None:
    items = fitted.vocabulary.item_ids(range(40))
    options = {"k": 4, "strategy": "softmax", "seed": 3, "exclude_seen": False, "pool": 10}
    table = fitted.recommend(history=[items[0]], pin={2: items[7], 9: items[8]} | {2: items[7]}, **options | {"k": 9})
    found = table.to_pandas()
    assert found["item_id"][1] == items[7]
    assert found["item_id"][8] == items[8]
    assert found.loc[[1, 8], ["propensity_at_rank", "propensity_in_list"]].eq(1).all(axis=None)
    assert found["item_id"].is_unique
    drawn = found.drop([1, 8])
    assert drawn["propensity_in_list"].between(0, 1, inclusive="neither").all()


def test_items_that_may_not_be_recommended_are_never_drawn(fitted: VariationalAttention) -> None:
    items = fitted.vocabulary.item_ids(range(40))
    for seed in range(5):
        drawn = fitted.recommend(
            history=items[:3],
            candidates=items[:6],
            k=5,
            strategy="softmax",
            uniform_share=0.9,
            seed=seed,
            exclude_seen=True,
        ).to_pandas()
        assert set(drawn["item_id"]) == set(items[3:6])
        assert drawn["propensity_in_list"].tolist() == [1, 1, 1]
