"""The simulated visitors are what they claim, and the lists of policies are the best by their own values."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from benchmarks.list_values import ChoiceModel, best_lists
from benchmarks.long_term import OFF, Protocol, results_of
from benchmarks.simulated_visitors import World, WorldOptions, choice_probabilities
from benchmarks.visitor_logs import SeenState, TrueState, simulate

SMALL = Protocol(num_logging=20, num_visitors=20, num_rounds=8, num_iterations=2)


def takes_after(options: WorldOptions, first_lists: slice) -> tuple[np.ndarray, np.ndarray]:
    """What visitors take from equal lists, and who comes back, after four rounds of some other lists."""
    world = World.draw(options, seed=5)
    generator = np.random.default_rng(6)
    visitors = world.newcomers(400, generator)
    by_worth = np.argsort(world.worth)[first_lists]
    for _ in range(4):
        _, comes_back = world.act(visitors, np.tile(by_worth, (400, 1)), generator)
    item, _ = world.act(visitors, np.tile(np.arange(5), (400, 1)), generator)
    return item, comes_back


def test_no_list_changes_a_later_round_where_all_effects_are_off() -> None:
    options = WorldOptions(**OFF)
    bad, good = takes_after(options, slice(0, 5)), takes_after(options, slice(-5, None))
    np.testing.assert_array_equal(bad[0], good[0])
    assert bad[1].all()
    assert good[1].all()


@pytest.mark.parametrize("effect", ["satiation", "churn", "cost"])
def test_each_effect_alone_changes_later_rounds(effect: str) -> None:
    options = WorldOptions(**{**OFF, effect: True})
    bad, good = takes_after(options, slice(0, 5)), takes_after(options, slice(-5, None))
    assert (bad[0] != good[0]).any() or (bad[1] != good[1]).any()
    if effect == "churn":
        assert bad[1].mean() < good[1].mean()
    if effect == "cost":
        assert (bad[0] >= 0).mean() < (good[0] >= 0).mean()


def test_choice_probabilities_and_that_of_nothing_sum_to_one() -> None:
    utility = np.random.default_rng(0).normal(scale=300, size=(50, 4))
    p = choice_probabilities(utility)
    shifted = choice_probabilities(np.column_stack([utility, np.zeros(50)]) + 2.0)
    nothing = 1 - p.sum(axis=1)
    assert (p >= 0).all()
    assert (nothing >= -1e-12).all()
    # Nothing is like an item of utility 0: the odds of two items do not depend on the others.
    np.testing.assert_allclose(shifted[:, 4] * p.sum(axis=1), nothing * shifted[:, :4].sum(axis=1), atol=1e-12)


def test_best_lists_are_those_of_enumeration() -> None:
    generator = np.random.default_rng(1)
    utility, value = generator.normal(size=(2, 20, 8))
    of_nothing = generator.normal(size=20)
    lists, _, mean = best_lists(utility, value, of_nothing, 3)
    for row in range(20):
        weight, weighted = np.exp(utility[row]), np.exp(utility[row]) * value[row]
        means = {
            subset: (of_nothing[row] + weighted[list(subset)].sum()) / (1 + weight[list(subset)].sum())
            for subset in combinations(range(8), 3)
        }
        assert tuple(sorted(lists[row].tolist())) == max(means, key=lambda subset: means[subset])
        assert mean[row] == pytest.approx(max(means.values()))


def test_true_choice_model_is_the_utility_of_the_world() -> None:
    world = World.draw(WorldOptions(), seed=2)
    generator = np.random.default_rng(3)
    visitors = world.newcomers(10, generator)
    world.act(visitors, np.tile(np.arange(5), (10, 1)), generator)
    state = TrueState(world, 10).state(visitors)
    np.testing.assert_allclose(ChoiceModel.of_world(world).utility(state), world.utility(visitors))


def test_choice_model_finds_what_makes_items_taken() -> None:
    world = World.draw(WorldOptions(**OFF), seed=4)
    log = simulate(world, SeenState, None, 50, 40, [4], temperature=0.5)
    found = ChoiceModel.fit(world, [log], ridge=1.0)
    assert np.corrcoef(found.of_item, world.appeal)[0, 1] > 0.8


def test_a_seed_repeats() -> None:
    options = WorldOptions(num_items=12, num_topics=3)
    assert results_of(options, SMALL, 1) == results_of(options, SMALL, 1)
    assert results_of(options, SMALL, 1) != results_of(options, SMALL, 2)
