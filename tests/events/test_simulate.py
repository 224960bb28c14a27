"""Simulated shoppers obey the rules that are written down, and the stated probabilities are the true ones."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow.csv
import pyarrow.parquet
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.oracle import Oracle
from variseq.errors import InputError
from variseq.evaluation.recommender import Recommender
from variseq.events.simulate import (
    BEHAVIORS,
    CART,
    PURCHASE,
    SHORTEST_BREAK_SECONDS,
    VIEW,
    Simulation,
    SimulationOptions,
    simulate,
)
from variseq.sequences.histories import Histories

SHARES = st.floats(0, 1)
OPTIONS = SimulationOptions(num_users=2_000, num_items=60, num_categories=4, mean_events=20, seed=3)


@pytest.fixture(scope="module")
def shop() -> Simulation:
    return simulate(OPTIONS)


@dataclass(frozen=True)
class Following:
    """Positions that have a next event, its item, and what the simulation says of it."""

    positions: np.ndarray
    item: np.ndarray
    probability: np.ndarray


@pytest.fixture(scope="module")
def following(shop: Simulation) -> Following:
    positions = np.setdiff1d(np.arange(len(shop.item)), shop.offsets[1:] - 1)
    return Following(positions, shop.item[positions + 1], shop.next_item_distribution(positions))


def histories_of(simulation: Simulation) -> Histories:
    return Histories(
        simulation.offsets,
        simulation.item.astype(np.int32),
        simulation.behavior.astype(np.uint8),
        simulation.timestamp,
        simulation.value.astype(np.float32),
    )


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 5), st.integers(0, 20), st.integers(0, 1_000), st.floats(0.01, 0.5), st.floats(0, 0.5), SHARES)
def test_true_probabilities_are_positive_and_sum_to_one_in_any_shop(
    num_categories: int, extra_items: int, seed: int, noise: float, transition: float, end: float
) -> None:
    sizes = {"num_users": 3, "num_items": 2 * num_categories + extra_items, "num_categories": num_categories}
    shares = {"noise_share": noise, "transition_share": transition, "session_end_probability": end}
    simulation = simulate(SimulationOptions(**sizes, **shares, mean_events=6, seed=seed))  # type: ignore[arg-type]
    probability = simulation.next_item_distribution(np.arange(len(simulation.item)))
    assert probability.min() > 0
    np.testing.assert_allclose(probability.sum(axis=1), 1, atol=1e-12)


def test_frequency_of_each_item_agrees_with_the_stated_probability(following: Following) -> None:
    came = np.bincount(following.item, minlength=OPTIONS.num_items)
    variance = (following.probability * (1 - following.probability)).sum(axis=0)
    z = (came - following.probability.sum(axis=0)) / np.sqrt(variance)
    # Chi-square with 60 degrees of freedom (the sum is given, so a little less): mean 60, deviation 11.
    assert (z**2).sum() < 60 + 4 * 11
    assert np.abs(z).max() < 4


def test_stated_probabilities_are_calibrated_at_every_level(following: Following) -> None:
    probability = following.probability
    came = following.item[:, None] == np.arange(OPTIONS.num_items)
    for low, high in [(0, 0.005), (0.005, 0.02), (0.02, 0.05), (0.05, 0.15), (0.15, 0.3), (0.3, 0.45), (0.45, 1)]:
        within = (probability >= low) & (probability < high)
        deviation = np.sqrt((probability * (1 - probability))[within].sum())
        assert within.sum() > 500
        assert abs(came[within].sum() - probability[within].sum()) < 4 * deviation


def test_mean_surprise_equals_the_entropy_that_is_stated(following: Following) -> None:
    log_probability = np.log(following.probability)
    entropy = -(following.probability * log_probability).sum(axis=1)
    variance = (following.probability * log_probability**2).sum(axis=1) - entropy**2
    surprise = -log_probability[np.arange(len(following.item)), following.item]
    assert abs((surprise - entropy).sum()) < 4 * np.sqrt(variance.sum())


def test_first_item_agrees_with_the_distribution_of_an_empty_history(shop: Simulation) -> None:
    nothing = np.zeros(0, dtype=np.int64)
    probability = np.exp(shop.log_probabilities(np.array([0, 0]), nothing, nothing, nothing))[0]
    came = np.bincount(shop.item[shop.offsets[:-1]], minlength=OPTIONS.num_items)
    expected = OPTIONS.num_users * probability
    assert ((came - expected) ** 2 / expected).sum() < 60 + 4 * 11


def test_cart_follows_a_view_and_purchase_a_cart_of_the_same_item(shop: Simulation) -> None:
    for behavior, before in [(CART, VIEW), (PURCHASE, CART)]:
        event = np.flatnonzero(shop.behavior == behavior)
        assert not np.isin(event, shop.offsets).any()
        assert (shop.behavior[event - 1] == before).all()
        assert (shop.item[event - 1] == shop.item[event]).all()
        gap_seconds = (shop.timestamp[event] - shop.timestamp[event - 1]) / 1e6
        assert gap_seconds.max() < SHORTEST_BREAK_SECONDS


def test_funnel_goes_on_as_often_as_stated(shop: Simulation, following: Following) -> None:
    positions = following.positions
    for behavior, stated in [(VIEW, OPTIONS.cart_probability), (CART, OPTIONS.purchase_probability)]:
        after = positions[shop.behavior[positions] == behavior] + 1
        deviation = np.sqrt(stated * (1 - stated) / len(after))
        assert abs((shop.behavior[after] == behavior + 1).mean() - stated) < 4 * deviation


def test_gaps_are_minutes_inside_a_session_and_hours_between(shop: Simulation, following: Following) -> None:
    gap_seconds = np.diff(shop.timestamp)[following.positions] / 1e6
    inside, between = gap_seconds[gap_seconds < SHORTEST_BREAK_SECONDS], gap_seconds[gap_seconds >= 3_600]
    assert inside.min() >= 10
    assert inside.max() <= 900
    assert between.min() >= 8 * 3_600
    assert len(between) > 1_000


def test_taste_follows_what_was_seen_and_drifts(shop: Simulation) -> None:
    user = int(np.argmax(np.diff(shop.offsets)))
    first = int(shop.offsets[user])
    category = int(shop.catalog.category[shop.item[first]])
    offsets, day = np.array([0, 1, 2]), 86_400 * 1_000_000
    item = np.array([shop.item[first], np.flatnonzero(shop.catalog.category != category)[0]])
    probability = np.exp(shop.log_probabilities(offsets, item, np.array([0, day]), np.array([PURCHASE, PURCHASE])))
    in_category = probability[:, shop.catalog.category == category].sum(axis=1)
    assert in_category[0] > in_category[1] + 0.2


def test_order_matters_to_the_next_item(shop: Simulation) -> None:
    forth = shop.log_probabilities(np.array([0, 2]), np.array([5, 9]), np.array([0, 60_000_000]), np.array([0, 0]))
    back = shop.log_probabilities(np.array([0, 2]), np.array([9, 5]), np.array([0, 60_000_000]), np.array([0, 0]))
    assert np.abs(np.exp(forth) - np.exp(back)).max() > 0.1


def test_distribution_at_a_position_is_that_of_the_history_up_to_it(shop: Simulation) -> None:
    first, last = int(shop.offsets[4]), int(shop.offsets[5])
    whole = shop.log_probabilities(
        np.array([0, last - first]), shop.item[first:last], shop.timestamp[first:last], shop.behavior[first:last]
    )
    np.testing.assert_allclose(np.exp(whole), shop.next_item_distribution(np.array([last - 1])))


def test_same_seed_gives_the_same_log_and_another_seed_another() -> None:
    options = SimulationOptions(num_users=50, num_items=30, num_categories=3, mean_events=8)
    assert simulate(options).events().equals(simulate(options).events())
    assert not simulate(options).events().equals(simulate(replace(options, seed=1)).events())


def test_mean_history_length_is_as_asked(shop: Simulation) -> None:
    lengths = np.diff(shop.offsets)
    assert lengths.min() >= 3
    assert abs(lengths.mean() - OPTIONS.mean_events) < 4 * lengths.std() / np.sqrt(len(lengths))


def ndcg_at_10(scores: np.ndarray, target: np.ndarray) -> float:
    rank = (scores >= scores[np.arange(len(target)), target][:, None]).sum(axis=1)
    return float(np.where(rank <= 10, 1 / np.log2(rank + 1), 0).mean())


def test_oracle_ranks_far_better_than_popularity(shop: Simulation) -> None:
    before_last = shop.offsets[1:] - 2
    target = shop.item[shop.offsets[1:] - 1]
    popularity = np.bincount(shop.item, minlength=OPTIONS.num_items) + np.arange(OPTIONS.num_items) * 1e-6
    popular = ndcg_at_10(np.tile(popularity, (OPTIONS.num_users, 1)), target)
    assert ndcg_at_10(shop.next_item_distribution(before_last), target) > 2 * popular


def test_oracle_scores_do_not_depend_on_the_order_of_the_vocabulary(shop: Simulation) -> None:
    histories = histories_of(shop).select(shop.offsets[:5], shop.offsets[1:6])
    oracle: Recommender = Oracle(shop, shop.item_ids(), BEHAVIORS)
    state = oracle.scores(histories)
    backwards = Oracle(shop, shop.item_ids()[::-1], BEHAVIORS[::-1])
    mirrored = replace(
        histories, item=OPTIONS.num_items - 1 - histories.item, behavior=np.uint8(2) - histories.behavior
    )
    torch.testing.assert_close(backwards.scores(mirrored).flip(1), state)
    torch.testing.assert_close(state.exp().sum(1), torch.ones(5))


@pytest.mark.parametrize("name", ["shop.parquet", "shop.csv"])
def test_written_files_hold_the_log_in_the_order_of_time(tmp_path: Path, name: str) -> None:
    simulation = simulate(SimulationOptions(num_users=20, num_items=30, num_categories=12, mean_events=6))
    events_path, items_path = simulation.write(tmp_path / name)
    read = pyarrow.csv.read_csv if name.endswith("csv") else pyarrow.parquet.read_table
    events, items = read(events_path), read(items_path)
    assert events.column_names == ["user_id", "item_id", "timestamp", "event", "value"]
    assert events["item_id"].to_pylist() == simulation.events()["item_id"].to_pylist()
    times = events["timestamp"].to_pylist()
    assert times == sorted(times)
    assert items.column_names == ["item_id", "title", "category"]
    assert items["item_id"].to_pylist() == simulation.item_ids() == sorted(simulation.item_ids())
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([events_path.name, items_path.name])


def test_write_refuses_another_ending_or_a_missing_folder(tmp_path: Path, shop: Simulation) -> None:
    with pytest.raises(InputError, match=r"ends in \.parquet or \.csv"):
        shop.write(tmp_path / "shop.xlsx")
    with pytest.raises(InputError, match="does not exist"):
        shop.write(tmp_path / "nowhere" / "shop.csv")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("num_users", 0),
        ("num_items", 3),
        ("num_categories", 0),
        ("mean_events", 3.0),
        ("mean_events", float("nan")),
        ("seed", -1),
        ("noise_share", 0.0),
        ("transition_share", 0.99),
        ("cart_probability", 1.5),
        ("taste_prior_events", 0.0),
    ],
)
def test_option_outside_its_range_is_named(field: str, value: float) -> None:
    with pytest.raises(InputError, match=f"^{field} is .*; allowed is "):
        SimulationOptions(**{field: value})  # type: ignore[arg-type]  # the field varies
