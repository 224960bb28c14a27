"""The recurrent recommender network of the benchmarks: what it learns, and what its forecasts know."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.rrn import DAY_SECONDS, Ratings, Rrn, RrnOptions, fit_rrn

NUM_USERS, NUM_ITEMS, NUM_STEPS, RATINGS_A_STEP, STEPS_A_TURN = 120, 60, 20, 8, 12


def turning_tastes() -> tuple[Ratings, np.ndarray]:
    """Ratings of users whose taste is a vector that turns around once in twelve weeks, and the week of each."""
    generator = np.random.default_rng(0)
    of_item, angle = generator.normal(size=(NUM_ITEMS, 2)), generator.uniform(0, 2 * np.pi, NUM_USERS)
    user = np.repeat(np.arange(NUM_USERS), NUM_STEPS * RATINGS_A_STEP)
    step = np.tile(np.repeat(np.arange(NUM_STEPS), RATINGS_A_STEP), NUM_USERS)
    item = generator.integers(NUM_ITEMS, size=len(user))
    now = angle[user] + 2 * np.pi * step / STEPS_A_TURN
    taste = np.stack([np.cos(now), np.sin(now)], axis=1)
    value = 3 + (taste * of_item[item]).sum(axis=1) + generator.normal(0, 0.3, len(user))
    seconds = 7 * DAY_SECONDS * (step + generator.random(len(user)))
    seconds[0] = 0.0  # Steps are counted from the first rating.
    return Ratings(user, item, seconds, value, NUM_USERS, NUM_ITEMS), step


@pytest.mark.slow
def test_states_follow_tastes_that_turn_and_matrix_factorization_does_not() -> None:
    ratings, step = turning_tastes()
    test, everything = np.flatnonzero(step >= 18), np.ones(len(step), dtype=bool)
    errors = []
    for has_states in (True, False):
        options = RrnOptions(penalty=0.03, dropout=0.2, has_states=has_states)
        model, _ = fit_rrn(ratings, step < 16, (step >= 16) & (step < 18), options, seed=0)
        error = model.forecasts(test, everything) - ratings.value[test]
        errors.append(float(np.sqrt(np.square(error).mean())))
    assert errors[0] < 0.8 * errors[1]


def test_forecast_knows_earlier_steps_and_nothing_of_its_own_or_later_ones() -> None:
    ratings, step = turning_tastes()
    model = Rrn(ratings, RrnOptions(), mean=3.0)
    chosen, everything = np.flatnonzero(step == 8), np.ones(len(step), dtype=bool)
    expected = model.forecasts(chosen, everything)
    for changed, is_same in ((step >= 8, True), (step == 7, False)):
        others = replace(ratings, value=np.where(changed, 5.0, np.clip(ratings.value, 1.0, 5.0)))
        plain = replace(ratings, value=np.clip(ratings.value, 1.0, 5.0))
        found = []
        for one in (others, plain):
            other = Rrn(one, RrnOptions(), mean=3.0)
            other.load_state_dict(model.state_dict())
            found.append(other.forecasts(chosen, everything))
        assert np.allclose(*found, atol=1e-6) == is_same
    assert not np.allclose(expected, model.forecasts(chosen, step < 0))
