"""The closed loop, two rounds long: what the shop learns, what policies show, and how it is summed up."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.benchmarks import exploration_path  # noqa: F401

import exploration  # isort: skip
from closed_loop import LoopOptions, Shoppers  # isort: skip
from exploration_chart import write_chart  # isort: skip
from explorers import Explorer, Learner, Learning, Policy, item_vector_doubt, play  # isort: skip

WORLD = LoopOptions(num_shoppers=20, num_items=30, start_events=3, num_rounds=2, k=5)
SHORT = Learning(start_epochs=2, epochs_a_round=1)
EVERYTHING = np.tile(np.arange(30), (20, 1))


def test_who_is_shown_everything_takes_something_and_the_shop_sees_it() -> None:
    shoppers = Shoppers(WORLD, seed=1)
    before = shoppers.histories()
    assert shoppers.respond(0, EVERYTHING).all()
    after = shoppers.histories()
    assert (after.lengths == before.lengths + 1).all()
    for user in range(20):
        assert after.history(user).item[:3].tolist() == before.history(user).item.tolist()
        assert (np.diff(after.history(user).timestamp) > 0).all()


def test_who_finds_nothing_in_the_list_leaves_no_trace() -> None:
    shoppers = Shoppers(WORLD, seed=1)
    before = shoppers.histories()
    taken = shoppers.respond(0, EVERYTHING[:, :3])
    after = shoppers.histories()
    np.testing.assert_array_equal(after.lengths - before.lengths, taken)
    assert not taken.all()


def test_reward_is_as_frequent_as_the_true_probabilities_say() -> None:
    options = LoopOptions(num_shoppers=3_000, num_items=30, num_rounds=1, k=5)
    shoppers = Shoppers(options, seed=2)
    truth = shoppers.true_probabilities()
    best = np.argsort(-truth, axis=1)[:, :5]
    expected = np.take_along_axis(truth, best, axis=1).sum(axis=1).mean()
    assert shoppers.respond(0, best).mean() == pytest.approx(expected, abs=4 * np.sqrt(0.25 / 3_000))


def test_what_shoppers_want_does_not_depend_on_the_policy() -> None:
    first, second = (Shoppers(WORLD, seed=3) for _ in range(2))
    few, many = (shoppers.respond(0, EVERYTHING[:, :size]) for shoppers, size in ((first, 10), (second, 20)))
    assert (many >= few).all()


@pytest.mark.parametrize(
    "policy",
    [
        Policy("greedy"),
        Policy("posterior", posterior=1),
        Policy("item", item=1),
        Policy("vector", item_vector=1),
        Policy("score", score=1),
    ],
)
def test_list_holds_different_items_and_comes_again_with_the_same_seed(policy: Policy) -> None:
    histories = Shoppers(WORLD, seed=4).histories()
    network = Learner(30, SHORT, seed=4).network.eval()
    lists, again = (Explorer(policy, seed=5).lists(network, histories, k=5) for _ in range(2))
    np.testing.assert_array_equal(lists, again)
    assert all(len(set(shown)) == 5 for shown in lists.tolist())
    other = Explorer(policy, seed=6).lists(network, histories, k=5)
    assert (other == lists).all() == (policy.name == "greedy")


def test_doubt_about_an_item_falls_with_its_events() -> None:
    histories = Shoppers(LoopOptions(num_shoppers=100, num_items=30), seed=7).histories()
    network = Learner(30, SHORT, seed=7).network.eval()
    preference = network.item_vectors[:4].detach()
    doubt = item_vector_doubt(network, histories, preference).mean(dim=0).numpy()
    num_events = np.bincount(histories.item, minlength=30)
    assert np.corrcoef(doubt, num_events)[0, 1] < -0.5


def test_loop_played_twice_is_the_same_and_learns_only_what_was_taken() -> None:
    rewards, coverage = play(WORLD, SHORT, Policy("posterior", posterior=1), seed=8)
    assert (rewards, coverage) == play(WORLD, SHORT, Policy("posterior", posterior=1), seed=8)
    assert len(rewards) == 2
    assert 0 < coverage <= 1


def test_summary_pairs_policies_by_seed_and_is_drawn_the_same_twice(tmp_path: Path) -> None:
    start = exploration.Start(WORLD, (Policy("greedy"), Policy("Thompson", posterior=1)))
    loops = [exploration.play_loop(loop, start, SHORT) for loop in exploration.loops_to_play({"cold": start}, 2)]
    unfinished = [loop for loop in loops if (loop["policy"], loop["seed"]) != ("Thompson", 1)]
    rows = {row["policy"]: row for row in exploration.summary_of(loops, "cold")}
    assert exploration.summary_of(unfinished, "cold")[0]["num_seeds"] == 1
    assert set(rows) == {"greedy", "Thompson", "random", "oracle"}
    by_seed = [sum(loop["rewards"]) for loop in loops if loop["policy"] == "oracle"]
    assert rows["oracle"]["reward"] == pytest.approx(np.mean(by_seed))
    assert rows["oracle"]["gain_over_greedy"] == pytest.approx(rows["oracle"]["reward"] - rows["greedy"]["reward"])
    assert "gain_over_greedy" not in rows["greedy"]
    json.dumps(rows)
    for name in ("one.svg", "two.svg"):
        write_chart({"cold": list(rows.values())}, tmp_path / name)
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()


def test_loops_of_another_policy_are_kept_when_one_is_added_or_changed() -> None:
    greedy, bold, bolder = Policy("greedy"), Policy("bold", posterior=1), Policy("bold", posterior=2)
    earlier = {"cold": exploration.Start(WORLD, (greedy, bold))}
    before = {"settings": exploration.settings_of(earlier, SHORT), "loops": exploration.loops_to_play(earlier, 2)}
    for changed, kept in (
        ({"cold": exploration.Start(WORLD, (greedy, bold, Policy("new", item=1)))}, {"greedy", "bold"}),
        ({"cold": exploration.Start(WORLD, (greedy, bolder))}, {"greedy"}),
        ({"cold": exploration.Start(LoopOptions(), (greedy, bold))}, None),
        ({"warm": exploration.Start(WORLD, (greedy, bold))}, None),
    ):
        loops = exploration.kept_loops(before, exploration.settings_of(changed, SHORT))
        assert {loop["policy"] for loop in loops} == (set() if kept is None else kept | {"random", "oracle"})
    assert not exploration.kept_loops(before, exploration.settings_of(earlier, Learning()))
