"""Estimators against plain loops and against enumerations of all lists."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.off_policy.lists import EveryList, TablePolicy, exposures_of, random_log
from variseq.off_policy.cascade import cascade_doubly_robust, fit_rewards_to_go, with_least_variance
from variseq.off_policy.estimators import doubly_robust, sums_of
from variseq.off_policy.evaluation import OffPolicyEvaluation, evaluate_policies
from variseq.off_policy.logged import logged_lists
from variseq.off_policy.policies import ExpectedNext, LoggingPolicy, TargetProbabilities, UniformPolicy
from variseq.off_policy.reward_model import RewardModel, fit_reward_model
from variseq.off_policy.weights import importance_weights

seeds = st.integers(0, 10_000)


def values(found: OffPolicyEvaluation) -> dict[str, float | None]:
    return {one.estimator: one.value for one in found.policies[0].estimates}


@given(seed=seeds)
def test_logging_policy_has_weights_of_exactly_1_and_its_own_mean(seed: int) -> None:
    exposures, _ = random_log(seed)
    lists = logged_lists(exposures)
    target = LoggingPolicy().probabilities(lists)
    for one in importance_weights(lists, target):
        assert np.array_equal(one.row, np.ones(len(exposures.item)))
    mean = exposures.reward.sum() / exposures.num_exposures
    found = evaluate_policies(exposures, [LoggingPolicy()], show_refused=True, num_resamples=20)
    for one in found.policies[0].estimates:
        assert one.value == pytest.approx(mean, rel=1e-12, abs=1e-12)
        assert one.difference == pytest.approx(0, abs=1e-12)
        assert one.difference_interval == pytest.approx((0, 0), abs=1e-12)


@given(seed=seeds)
def test_weighted_means_equal_plain_loops(seed: int) -> None:
    exposures, policy = random_log(seed)
    ips = rips = whole_list = 0.0
    for number in range(exposures.num_exposures):
        down_to_here, reward = 1.0, 0.0
        for row in range(exposures.offsets[number], exposures.offsets[number + 1]):
            item_weight = policy.target.in_list[row] / exposures.propensity_in_list[row]
            if exposures.is_pinned[row]:
                item_weight = 1.0
            else:
                down_to_here *= policy.target.at_rank[row] / exposures.propensity_at_rank[row]
            ips += item_weight * exposures.reward[row]
            rips += down_to_here * exposures.reward[row]
            reward += exposures.reward[row]
        whole_list += down_to_here * reward
    found = values(evaluate_policies(exposures, [policy], show_refused=True, num_resamples=20))
    for name, total in (("IPS", ips), ("RIPS", rips), ("whole-list IPS", whole_list)):
        assert found[name] == pytest.approx(total / exposures.num_exposures)


@given(seed=seeds)
def test_order_of_exposures_changes_no_estimate(seed: int) -> None:
    exposures, policy = random_log(seed)
    order = np.random.default_rng(seed).permutation(exposures.num_exposures)
    rows = np.concatenate([np.arange(exposures.offsets[one], exposures.offsets[one + 1]) for one in order])
    moved = TargetProbabilities(
        policy.target.at_rank[rows], policy.target.in_list[rows], policy.target.expected,
        lambda predicted, index: policy.target.expected_next(predicted, index)[order],
    )  # fmt: skip
    found = values(evaluate_policies(exposures, [policy], show_refused=True, num_resamples=20))
    again = values(
        evaluate_policies(exposures.exposures(order), [TablePolicy(moved)], show_refused=True, num_resamples=20)
    )
    assert again == pytest.approx(found)


@settings(max_examples=15)
@given(seed=seeds)
def test_expectation_over_all_lists_is_the_value_of_the_target(seed: int) -> None:
    random = np.random.default_rng(seed)
    logging, target = (EveryList(random.uniform(0.1, 1, 5), 3) for _ in range(2))
    of_item = random.uniform(0, 1, 5)
    # Rewards that add up, that depend on what stands above, and that depend on the whole list.
    adds_up = np.array([of_item[list(one)] for one in logging.lists])
    of_lists = random.uniform(0, 1, len(logging.lists))
    above = np.array([[hash(one[: rank + 1]) % 97 / 97 for rank in range(3)] for one in logging.lists])
    whole = of_lists[:, None] * adds_up
    for name, reward in (
        ("ips", adds_up), ("doubly robust", adds_up), ("mean_weight", adds_up), ("rips", above),
        ("cascade doubly robust", above), ("whole_list", whole),
    ):  # fmt: skip
        found = logging.probability @ added(logging, target, reward, random.uniform(0, 1, (3, 1, 5)))[name]
        truth = 1.0 if name == "mean_weight" else target.probability @ reward.sum(axis=1)
        assert found == pytest.approx(truth, abs=1e-12)


def added(logging: EveryList, target: EveryList, reward: np.ndarray, predicted: np.ndarray) -> dict[str, np.ndarray]:
    """What each list adds to the sums, in the order of the lists; each is of a person of its own.

    Doubly robust estimators have the predicted rewards of each rank; that of items has those of the first rank.
    """
    index = np.array(logging.lists)
    exposures = exposures_of(
        index.tolist(), logging.at_rank.tolist(), logging.in_list[index].tolist(), reward.tolist(), num_items=5
    )
    lists, fold = logged_lists(exposures), np.zeros(len(index), dtype=np.int64)
    rewards = [RewardModel(fold, one) for one in predicted]
    expected = lambda predicted, fold: (predicted @ target.in_list)[fold]  # noqa: E731
    probabilities = TargetProbabilities(
        target.at_rank.ravel(), target.in_list[index].ravel(), expected, next_of(target.weight, index)
    )
    weights = importance_weights(lists, probabilities)
    found = {name: column[lists.user] for name, column in sums_of(lists, probabilities, weights).items()}
    to_go = cascade_doubly_robust(lists, next_of(target.weight, index), weights[1].row, rewards)
    return found | {
        "doubly robust": doubly_robust(lists, expected, weights[0].row, rewards[0]), "cascade doubly robust": to_go
    }  # fmt: skip


def next_of(weight: np.ndarray, lists: np.ndarray) -> ExpectedNext:
    """What a policy of Plackett and Luce expects at a rank, item by item."""

    def expected_next(predicted: np.ndarray, index: int) -> np.ndarray:
        left = np.tile(weight, (len(lists), 1))
        np.put_along_axis(left, lists[:, :index], 0.0, axis=1)
        return np.asarray(left @ predicted.T / left.sum(axis=1, keepdims=True))

    return expected_next


@settings(max_examples=15)
@given(seed=seeds)
def test_cascade_doubly_robust_has_the_mean_of_the_log_where_policies_are_equal(seed: int) -> None:
    random = np.random.default_rng(seed)
    logging = EveryList(random.uniform(0.1, 1, 5), 3)
    reward = random.uniform(0, 1, (len(logging.lists), 3))
    columns = added(logging, logging, reward, np.zeros((3, 1, 5)))
    assert columns["cascade doubly robust"] == pytest.approx(reward.sum(axis=1))
    fitted = added(logging, logging, reward, random.uniform(0, 1, (3, 1, 5)))
    mean = logging.probability @ reward.sum(axis=1)
    assert logging.probability @ fitted["cascade doubly robust"] == pytest.approx(mean)


@given(seed=seeds)
def test_cascade_doubly_robust_is_rips_where_no_reward_is_predicted(seed: int) -> None:
    exposures, policy = random_log(seed)
    lists = logged_lists(exposures)
    weight = importance_weights(lists, policy.target)[1].row
    expected_next = policy.target.expected_next
    assert expected_next is not None
    to_go = fit_rewards_to_go(lists, expected_next)
    nothing = [replace(one, predicted=np.zeros_like(one.predicted)) for one in to_go]
    zero = lambda predicted, index: np.zeros((60, len(predicted)))  # noqa: E731
    found = cascade_doubly_robust(lists, zero, weight, nothing)
    assert found == pytest.approx(lists.per_exposure(weight * exposures.reward))


@given(seed=seeds)
def test_doubly_robust_counts_only_as_far_as_it_lowers_the_variance(seed: int) -> None:
    exposures, _ = random_log(seed)
    lists, random = logged_lists(exposures), np.random.default_rng(seed)
    plain = random.normal(1, 1, lists.exposures.num_exposures)

    def variance(one: np.ndarray) -> float:
        of_people = np.bincount(lists.user, weights=one - one.mean(), minlength=lists.num_users)
        return float((of_people**2).sum())

    for other in (random.normal(1, 5, len(plain)), 0.3 * plain + random.normal(0.7, 0.2, len(plain)), plain):
        found = with_least_variance(lists, plain, other)
        shares = np.linspace(0, 1, 21)
        least = min(variance(plain + share * (other - plain)) for share in shares)
        assert variance(found) <= least + 1e-9
        is_between = (found - plain) * (other - found) >= -1e-9
        assert is_between.all()


def test_rewards_to_go_are_those_of_an_item_and_of_what_the_target_puts_below_it() -> None:
    random, num_lists = np.random.default_rng(9), 20_000
    target, rate = np.array([4.0, 3.0, 2.0, 1.0]), np.array([0.9, 0.1, 0.5, 0.3])
    index = np.argsort(random.random((num_lists, 4)), axis=1)[:, :2]
    reward = random.random(index.shape) < rate[index]
    uniform = np.tile([1 / 4, 1 / 3], (num_lists, 1))
    exposures = exposures_of(
        index.tolist(), uniform.tolist(), np.full(index.shape, 0.5).tolist(), reward.tolist(), num_items=4
    )
    first, second = fit_rewards_to_go(logged_lists(exposures), next_of(target, index))
    assert second.predicted == pytest.approx(np.tile(rate, (5, 1)), abs=0.05)
    below = [np.delete(rate * target, item).sum() / np.delete(target, item).sum() for item in range(4)]
    assert first.predicted == pytest.approx(np.tile(rate + below, (5, 1)), abs=0.05)


def test_uniform_policy_has_the_probabilities_of_equal_weights() -> None:
    uniform = EveryList(np.ones(5), 3)
    index = np.array(uniform.lists)
    exposures = exposures_of(
        index.tolist(), uniform.at_rank.tolist(), uniform.in_list[index].tolist(), np.zeros(index.shape).tolist(),
        num_items=5,
    )  # fmt: skip
    found = UniformPolicy().probabilities(logged_lists(exposures))
    assert found.at_rank == pytest.approx(uniform.at_rank.ravel())
    assert found.in_list == pytest.approx(uniform.in_list[index].ravel())
    predicted = np.array([[0.1, 0.2, 0.3, 0.4, 0.5]])
    assert found.expected is not None
    assert found.expected_next is not None
    for rank in range(3):
        assert found.expected_next(predicted, rank) == pytest.approx(next_of(np.ones(5), index)(predicted, rank))
    assert found.expected(predicted, np.zeros(60, dtype=np.int64)) == pytest.approx(
        float(uniform.in_list @ predicted[0])
    )


def test_uniform_policy_draws_no_pinned_item() -> None:
    exposures = exposures_of(
        [[3, 0, 1]], [[1, 0.5, 0.5]], [[1, 0.5, 0.5]], [[0, 0, 0]], [[True, False, False]], num_items=5
    )
    found = UniformPolicy().probabilities(logged_lists(exposures))
    assert found.at_rank[1:] == pytest.approx([1 / 4, 1 / 3])
    assert found.in_list[1:] == pytest.approx([0.5, 0.5])
    assert found.expected is not None
    expected = found.expected(np.array([[0.1, 0.1, 0.1, 1.0, 0.1]]), np.zeros(1, dtype=np.int64))
    assert expected == pytest.approx(1.0 + 0.5 * 0.4)


def test_difference_of_two_policies_is_that_of_their_estimates() -> None:
    exposures, policy = random_log(3, 200)
    _, other = random_log(4, 200)
    other = TablePolicy(TargetProbabilities(policy.target.at_rank * 0.5, policy.target.in_list * 0.5), "other")
    found = evaluate_policies(exposures, [policy, other], show_refused=True, num_resamples=50)
    first, second = found.policies
    for one in found.differences[0].estimates:
        assert one.value == pytest.approx(first.estimate(one.estimator).value - second.estimate(one.estimator).value)
        assert one.interval is not None
        assert one.interval[0] <= one.value <= one.interval[1]


def test_exposures_that_a_policy_does_not_know_are_left_out_for_all() -> None:
    exposures, policy = random_log(5)
    known = np.arange(60) % 2 == 0
    rows = known[exposures.row_exposure]
    in_list = np.where(rows, policy.target.in_list, np.nan)
    partly = TablePolicy(replace(policy.target, in_list=in_list, left_out={"no history": 30}), "partly")
    found = evaluate_policies(exposures, [LoggingPolicy(), partly], show_refused=True, num_resamples=20)
    free = ~exposures.is_pinned & ~rows
    lost = np.bincount(exposures.row_exposure, weights=free, minlength=60) > 0
    kept = exposures.exposures(np.flatnonzero(~lost))
    assert found.num_exposures == kept.num_exposures
    assert found.on_policy.value == pytest.approx(kept.reward.sum() / kept.num_exposures)
    assert found.policies[1].left_out == {"no history": 30}


def test_predicted_reward_is_learned_from_other_people() -> None:
    exposures, _ = random_log(7)
    lists = logged_lists(exposures)
    weight = np.ones(len(exposures.item))
    found = fit_reward_model(lists, weight)
    of_fold = found.fold == 0
    changed = np.where(of_fold[exposures.row_exposure], 100.0, exposures.reward)
    again = fit_reward_model(replace(lists, exposures=replace(exposures, reward=changed)), weight)
    assert again.predicted[0] == pytest.approx(found.predicted[0])
    assert again.predicted[1] != pytest.approx(found.predicted[1])


def test_predicted_rewards_approach_the_means_of_items_that_have_many_rows() -> None:
    random = np.random.default_rng(8)
    item, rate = random.integers(4, size=20_000), np.array([0.1, 0.3, 0.5, 0.9])
    reward = (random.random(20_000) < rate[item]).astype(float)
    exposures = exposures_of(
        item[:, None].tolist(), [[0.25]] * 20_000, [[0.25]] * 20_000, reward[:, None].tolist(), num_items=4
    )
    found = fit_reward_model(logged_lists(exposures), np.ones(20_000))
    assert found.predicted == pytest.approx(np.tile(rate, (5, 1)), abs=0.05)
