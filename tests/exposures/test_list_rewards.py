"""A list is rewarded by what its person did later; the estimate then rests on the weights of whole lists alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.exposures.test_rewards import table
from variseq.errors import InputError
from variseq.events.report import DAY
from variseq.exposures.list_rewards import MINUTE, came_back, dwell_time, with_list_rewards
from variseq.exposures.rewards import LoggedEvent, RewardOptions
from variseq.off_policy.evaluation import evaluate_policies
from variseq.off_policy.policies import GivenProbabilities, LoggingPolicy

HALF_DAY = DAY // 2
TIMES = st.lists(st.tuples(st.sampled_from(["u", "v", None]), st.integers(0, 40)), min_size=1, max_size=8)
EVENTS = st.lists(st.tuples(st.sampled_from("uvw"), st.integers(0, 40)), max_size=8)


@given(TIMES, EVENTS)
def test_return_is_activity_later_than_a_day_and_within_the_time(
    lists: list[tuple[str | None, int]], acts: list[tuple[str, int]]
) -> None:
    exposures = table([(user, time, ["a", "b"]) for user, time in lists])
    exposures = replace(exposures, time=exposures.time // 60_000_000 * HALF_DAY)
    events = [LoggedEvent(str(number), time * HALF_DAY, user, "a") for number, (user, time) in enumerate(acts)]
    within, everything = 5 * HALF_DAY, [*lists, *acts]
    end = max(time for _, time in everything)
    expected = [
        float(any(other == user and time + 2 < then <= time + 5 for other, then in everything))
        for user, time in sorted(lists, key=lambda one: one[1])
        if user is not None and time + 5 <= end
    ]
    if not expected:
        with pytest.raises(InputError, match="older than the end of the log"):
            with_list_rewards(exposures, events, came_back, within)
        return
    found, outcomes, of_events = with_list_rewards(exposures, events, came_back, within)
    assert found.reward[1::2].tolist() == expected
    assert not found.reward[::2].any()
    assert found.num_exposures + outcomes.total() == len(lists)
    assert of_events.total() == len(events)


@given(TIMES, EVENTS)
def test_dwell_time_is_that_to_the_last_activity_within_the_time(
    lists: list[tuple[str | None, int]], acts: list[tuple[str, int]]
) -> None:
    exposures = table([(user, time, ["a", "b"]) for user, time in lists])
    events = [LoggedEvent(str(number), time * MINUTE, user, "a") for number, (user, time) in enumerate(acts)]
    within, everything = 5, [*lists, *acts]
    end = max(time for _, time in everything)
    expected = [
        max(then - time for other, then in everything if other == user and time <= then <= time + within)
        for user, time in sorted(lists, key=lambda one: one[1])
        if user is not None and time + within <= end
    ]
    assume(expected)
    found, outcomes, _ = with_list_rewards(exposures, events, dwell_time, within * MINUTE)
    assert found.reward[1::2].tolist() == expected
    assert found.num_exposures + outcomes.total() == len(lists)


def test_rewards_of_lists_are_estimated_by_whole_lists_alone() -> None:
    """The target draws the same pairs with other probabilities; the truth is the mean of weight times reward."""
    generator = np.random.default_rng(0)
    number = 2000
    orders = generator.random(number) < 0.5
    exposures = table([(f"u{index}", index, ["a", "b"] if one else ["b", "a"]) for index, one in enumerate(orders)])
    reward = np.zeros(2 * number)
    reward[1::2] = generator.random(number) < np.where(orders, 0.5, 0.1)
    at_rank = np.tile([0.5, 1.0], number)
    logged = replace(
        exposures,
        propensity_at_rank=at_rank,
        propensity_in_list=np.ones(2 * number),
        reward=reward,
        rewards_lists=True,
    )
    (of_policy,) = evaluate_policies(logged, [LoggingPolicy()]).policies
    assert [one.estimator for one in of_policy.estimates] == ["whole-list SNIPS", "whole-list IPS"]
    for estimate in of_policy.estimates:
        assert estimate.value == pytest.approx(reward.sum() / number, abs=1e-12)
    assert [one.kind for one in of_policy.diagnostics] == ["whole list"]
    assert not of_policy.checks
    without = replace(logged, propensity_at_rank=np.full(2 * number, np.nan))
    with pytest.raises(InputError, match="at its rank"):
        evaluate_policies(without, [GivenProbabilities("other", {})])


@pytest.mark.parametrize(
    "options",
    [
        {"return_within": "12h"},
        {"return_within": "7d", "rewards": {"buy": 1.0}},
        {"dwell_within": "0m"},
        {"return_within": "7d", "dwell_within": "1h"},
    ],
)
def test_options_that_contradict_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"return_within|dwell_within"):
        RewardOptions(**options)
