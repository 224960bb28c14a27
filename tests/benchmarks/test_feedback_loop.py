"""The benchmarks of the loop know the truth of their shops, and read back all that a server logged."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from benchmarks.feedback_loop import Client, Visitors, is_measured, options_of, read_back
from benchmarks.improvement import World, improve
from benchmarks.list_improvement import DWELL, RETURN, ListWorld
from benchmarks.list_improvement import improve as improve_lists
from benchmarks.serving import server
from measurement.records import record_of
from variseq.events.simulate import Simulation


@pytest.fixture(scope="module")
def world() -> World:
    """People who want what a noisy forecast says, of items that are bought with very different rates."""
    random = np.random.default_rng(1)
    taste = random.normal(0, 1.5, (60, 120))
    wanted = np.exp(taste) / np.exp(taste).sum(axis=1, keepdims=True)
    forecast = taste + random.normal(0, 0.5, taste.shape)
    score = forecast - np.log(np.exp(forecast).sum(axis=1, keepdims=True))
    return World(score, wanted, random.beta(1.2, 3, 120))


def test_true_purchases_of_a_policy_are_the_mean_of_its_log(world: World) -> None:
    listed = world.in_list(np.zeros(120))
    np.testing.assert_allclose(listed.sum(axis=1), 10, atol=1e-6)
    person, item, bought = world.serve(20_000, seed=1)
    assert bought.sum() / 20_000 == pytest.approx(world.purchases(listed, person), abs=5 * np.sqrt(0.25 / 20_000))
    assert len(np.unique(item[0])) == 10


def test_offsets_of_many_lists_earn_more_in_truth(world: World) -> None:
    metrics = improve(world, 20_000, seed=1)
    assert metrics["learned drawn"] > 1
    assert metrics["true drawn"] > 1
    low, high = metrics["learned held out_interval"]
    assert low < metrics["learned held out"] < high


@pytest.mark.parametrize("reward", [RETURN, DWELL])
def test_true_reward_of_lists_is_the_mean_of_their_log(world: World, reward: str) -> None:
    random, people = np.random.default_rng(2), np.arange(60)
    shop = ListWorld.of(world, random.integers(5, size=120), 1, reward)
    person = np.repeat(people, 300)
    item = shop.draw(np.zeros(120), person, random)
    logged = shop.rewards(person, item, random)
    error = 5 * logged.std() / np.sqrt(len(logged))
    assert shop.mean_reward(person, item) == pytest.approx(logged.mean(), abs=error)
    assert shop.value(np.zeros(120), people) == pytest.approx(logged.mean(), abs=error)


def test_offsets_of_whole_lists_earn_more_in_truth(world: World) -> None:
    shop = ListWorld.of(world, np.random.default_rng(2).integers(5, size=120), 1, DWELL)
    metrics = improve_lists(shop, 5_000, seed=1)
    assert metrics["drawn"] > 0
    assert 0.4 < metrics["effective_share"] < 0.6
    low, high = metrics["whole-list SNIPS_interval"]
    assert low < metrics["whole-list SNIPS"] < high


def test_what_was_measured_is_left_out() -> None:
    records = [record_of("improvement", {"num_lists": 10}, {}, seed=1)]
    assert is_measured(records, "improvement", {"num_lists": 10}, 1)
    assert not is_measured(records, "improvement", {"num_lists": 10}, 2)
    assert not is_measured(records, "feedback_loop", {"num_lists": 10}, 1)


@pytest.mark.slow
def test_all_lists_and_events_of_visitors_are_read_back(shop: Simulation, exported_run: Path, tmp_path: Path) -> None:
    visitors = Visitors(shop, seed=1)
    with (
        server(exported_run, None, options=options_of(tmp_path / "served")) as port,
        closing(Client(port)) as client,
    ):
        num_events = visitors.visit(client) + visitors.visit(client)
    found = read_back(exported_run, tmp_path / "served", visitors)
    assert found["num_lists"] == found["num_answered"] == found["num_rebuilt"] == 300
    assert found["num_joined"] == num_events > 0
    assert 0 < found["truth"] < 1
