"""Arms are compared by users whose rewards are all known, and adjusted by what was known before only."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from variseq.events.report import DAY
from variseq.experiments.analysis import ExperimentAnalysis, analyze, difference
from variseq.experiments.experiment import Experiment
from variseq.experiments.users import DWELL, NUM_EVENTS, RETURN, REWARD, UNCERTAINTY, ExperimentUsers, users_of
from variseq.exposures.history import HistoryDigest
from variseq.exposures.rewards import RewardOptions
from variseq.exposures.table import Exposures

ARMS = ({"name": "control", "share": 0.5}, {"name": "drawn", "share": 0.5, "strategy": "softmax"})
EXPERIMENT = Experiment.model_validate({"name": "ranking", "arms": ARMS, "planned_users": 4000})
START = 1_764_504_000_000_000


def simulated(num_users: int, effect: float, correlation: float = 0.7, share: float = 0.5) -> ExperimentUsers:
    """Users over ten days, whose rewards of variance 1 depend on a covariate."""
    random = np.random.default_rng(7)
    arm = (random.random(num_users) < share).astype(np.int64)
    covariate = random.normal(size=num_users)
    reward = correlation * covariate + np.sqrt(1 - correlation**2) * random.normal(size=num_users) + effect * arm
    time = START + np.sort(random.integers(0, 10 * DAY, num_users))
    ones = np.ones(num_users, dtype=np.int64)
    names = (NUM_EVENTS,)
    numbers = (arm, time + DAY, reward, ones, covariate[:, None], names, REWARD, int(time[0]), int(time[-1]))
    return ExperimentUsers(*numbers)


def compared(found: ExperimentAnalysis, arm: str = "drawn") -> Any:
    comparison = found.comparisons[arm]
    assert comparison is not None
    return comparison


def test_adjustment_keeps_the_estimate_and_lowers_the_variance_to_1_minus_the_squared_correlation() -> None:
    random, num_users, correlation, effect, runs = np.random.default_rng(2), 1000, 0.8, 0.3, 300
    plain, adjusted, errors = [], [], []
    for _ in range(runs):
        is_treated, covariate = random.random(num_users) < 0.3, random.normal(size=(num_users, 1))
        noise = np.sqrt(1 - correlation**2) * random.normal(size=num_users)
        reward = correlation * covariate[:, 0] + noise + effect * is_treated
        one, other = difference(reward, is_treated, covariate[:, :0]), difference(reward, is_treated, covariate)
        assert one is not None
        assert other is not None
        assert one.value == pytest.approx(reward[is_treated].mean() - reward[~is_treated].mean())
        plain.append(one.value)
        adjusted.append(other.value)
        errors.append(other.standard_error)
    assert np.mean(adjusted) == pytest.approx(effect, abs=4 * np.std(adjusted) / np.sqrt(runs))
    assert np.var(adjusted) / np.var(plain) == pytest.approx(1 - correlation**2, rel=0.35)
    assert np.mean(errors) == pytest.approx(np.std(adjusted), rel=0.15)


def test_true_difference_is_in_the_intervals_and_is_decided() -> None:
    found = analyze(simulated(6000, effect=0.2), EXPERIMENT)
    one = compared(found)
    assert one.is_decided
    assert one.always_valid[0] < one.fixed[0] < 0.2 < one.fixed[1] < one.always_valid[1]
    assert one.variance_ratio == pytest.approx(1 - 0.7**2, abs=0.05)
    assert not compared(analyze(simulated(6000, effect=0.0), EXPERIMENT)).is_decided
    json.dumps(found.to_json(), allow_nan=False)


def test_later_users_change_no_look_of_the_past() -> None:
    users = simulated(6000, effect=0.1)
    early = users.complete_at <= users.begin + 6 * DAY
    now = replace(users, end=users.begin + 6 * DAY)
    looks = compared(analyze(users, EXPERIMENT)).looks
    looks_then = compared(analyze(now, EXPERIMENT)).looks
    assert looks[: len(looks_then)] == looks_then
    assert looks_then[-1].difference.num_users == early.sum()
    assert len(looks) > len(looks_then)


def test_split_that_is_not_that_of_the_shares_is_refused() -> None:
    found = analyze(simulated(6000, effect=0.2, share=0.45), EXPERIMENT)
    assert found.is_refused
    assert found.comparisons == {}
    assert not analyze(simulated(6000, effect=0.2), EXPERIMENT).is_refused


def test_covariate_that_an_arm_changes_is_not_used() -> None:
    users = simulated(6000, effect=0.0)
    changed = replace(users, covariate=users.covariate + 0.5 * users.arm[:, None])
    found = analyze(changed, EXPERIMENT)
    assert (found.covariates, found.unbalanced) == ((), (NUM_EVENTS,))
    one = compared(found)
    assert one.adjusted == one.plain
    wrong = difference(users.reward, users.arm == 1, changed.covariate)
    assert wrong is not None
    assert wrong.value < -10 * wrong.standard_error + one.plain.value


def test_several_arms_share_the_probability_of_an_error() -> None:
    arms = [{"name": f"arm{number}", "share": 0.25} for number in range(4)]
    four = Experiment.model_validate({"name": "ranking", "arms": arms})
    users = simulated(6000, effect=0.0)
    users = replace(users, arm=np.arange(6000) % 4)
    found = analyze(users, four)
    assert found.alpha == pytest.approx(0.05 / 3)
    assert list(found.comparisons) == ["arm1", "arm2", "arm3"]
    assert compared(found, "arm1").plain.num_users < 3000


def test_too_few_users_have_no_interval() -> None:
    assert analyze(simulated(150, effect=0.0), EXPERIMENT).comparisons == {"drawn": None}
    assert difference(np.zeros(1000), np.arange(1000) % 2 == 1, np.zeros((1000, 0))) is None


def exposures(*lists: tuple[str | None, int, str | None, float], name: str = "ranking") -> Exposures:
    """Lists of one item: user, day, arm and reward."""
    num = len(lists)
    context: list[dict[str, Any]] = [
        {"history": HistoryDigest("", number, None), "uncertainty": 2.0 + number} for number in range(num)
    ]
    for one, (_, _, arm, _) in zip(context, lists, strict=True):
        one.update({} if arm is None else {"experiment": name, "arm": arm})
    return Exposures(
        offsets=np.arange(num + 1),
        exposure_id=[str(number) for number in range(num)],
        user=[one[0] for one in lists],
        time=np.array([START + one[1] * DAY for one in lists]),
        context=context,
        item=np.zeros(num, dtype=np.int64),
        item_ids=["i1"],
        rank=np.ones(num, dtype=np.int64),
        propensity_at_rank=np.full(num, np.nan),
        propensity_in_list=np.full(num, np.nan),
        is_pinned=np.zeros(num, dtype=bool),
        reward=np.array([one[3] for one in lists]),
    )


def test_rewards_within_the_follow_up_are_counted_and_every_list_is_accounted_for() -> None:
    given = exposures(
        ("ann", 0, "control", 1.0),
        ("bob", 0, "drawn", 0.0),
        ("ann", 1, "control", 2.0),
        ("ann", 2, "control", 4.0),
        (None, 2, None, 8.0),
        ("cat", 2, None, 8.0),
        ("dan", 2, "control", 8.0),
        ("dan", 3, "drawn", 8.0),
        ("eve", 3, "removed", 8.0),
    )
    users, left_out = users_of(given, EXPERIMENT, RewardOptions(window="12h"))
    assert (users.arm.tolist(), users.reward.tolist(), users.num_exposures.tolist()) == ([0, 1], [3.0, 0.0], [2, 1])
    assert (users.complete_at - START).tolist() == [DAY + DAY // 2] * 2
    assert users.names == (NUM_EVENTS, UNCERTAINTY)
    np.testing.assert_allclose(users.covariate, [[0.0, 2.0], [np.log(2), 3.0]])
    assert {reason: number for reason, number in left_out.items() if number} == {
        "lists outside the experiment": 2,
        "lists of an arm that the file does not have": 1,
        "users in two arms": 1,
        "lists after the follow-up": 1,
    }


@pytest.mark.parametrize(
    ("options", "metric"), [(RewardOptions(return_within="3d"), RETURN), (RewardOptions(dwell_within="3d"), DWELL)]
)
def test_reward_of_the_first_list_is_the_metric_of_lists_with_rewards(options: RewardOptions, metric: str) -> None:
    given = exposures(("ann", 0, "control", 1.0), ("bob", 1, "drawn", 0.0), ("ann", 2, "control", 0.0))
    users, _ = users_of(replace(given, rewards_lists=True), EXPERIMENT, options)
    assert (users.reward.tolist(), users.metric) == ([1.0, 0.0], metric)
    assert users.complete(users.end).all()
    assert users.complete(users.end - 2 * DAY).tolist() == [True, False]


def test_forecast_is_no_covariate_where_arms_differ_in_what_it_leaves_out() -> None:
    arms = ({"name": "control", "share": 0.5}, {"name": "drawn", "share": 0.5, "exclude_seen": True})
    other = Experiment.model_validate({"name": "ranking", "arms": arms})
    users, _ = users_of(exposures(("ann", 0, "control", 1.0)), other, RewardOptions())
    assert users.names == (NUM_EVENTS,)
