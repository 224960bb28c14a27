from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from variseq.errors import InputError
from variseq.ranking.calibration import LENGTH_EDGES, LEVELS, MIN_QUERIES, ConformalThresholds


@settings(max_examples=20, deadline=None)
@given(num_queries=st.integers(MIN_QUERIES, 2000), level=st.sampled_from(LEVELS), seed=st.integers(0, 10_000))
def test_new_queries_of_the_same_kind_are_covered_as_often_as_asked(num_queries: int, level: float, seed: int) -> None:
    generator = np.random.default_rng(seed)
    seen, new = generator.beta(2, 1, num_queries), generator.beta(2, 1, 20_000)
    threshold = ConformalThresholds.fit(seen, np.zeros(num_queries, dtype=np.int64)).at(level)[0]
    # Five standard deviations of a share of `num_queries`, and half a query.
    slack = 5 * np.sqrt(level * (1 - level) / num_queries) + 1.5 / num_queries + 0.015
    assert abs((new <= threshold).mean() - level) < slack


def test_group_with_many_queries_has_thresholds_of_its_own() -> None:
    group = np.repeat([2, 4, 5], [MIN_QUERIES, MIN_QUERIES, MIN_QUERIES - 1])
    mass = np.repeat([0.1, 0.7, 0.9], [MIN_QUERIES, MIN_QUERIES, MIN_QUERIES - 1])
    at = ConformalThresholds.fit(mass, group).at(0.6)
    assert (at[2], at[4]) == (0.1, 0.7)
    assert at[5] == at[0] == 0.7, "small and empty groups take the threshold of all"


def test_few_queries_promise_nothing_but_everything() -> None:
    thresholds = ConformalThresholds.fit(np.array([0.2, 0.3]), np.zeros(2, dtype=np.int64))
    assert thresholds.at(0.99).tolist() == [1.0] * len(LENGTH_EDGES)


@pytest.mark.parametrize(("num_users", "level"), [(45, 0.9), (300, 0.5), (2000, 0.95)])
def test_coverage_is_in_its_range_by_chance_in_95_of_100_logs_that_do_not_change(num_users: int, level: float) -> None:
    generator, group, covered = np.random.default_rng(0), np.zeros(num_users, dtype=np.int64), []
    for _ in range(400):
        fitted = ConformalThresholds.fit(generator.random(num_users), group, num_users)
        covered.append((generator.random(500) <= fitted.at(level)[0]).mean())
    low, high = fitted.chance_range(level, 500)
    assert 0.91 <= np.mean((low <= np.array(covered)) & (np.array(covered) <= high)) <= 0.99


def test_coverage_after_a_drift_is_out_of_its_range_by_chance() -> None:
    generator, num_users = np.random.default_rng(0), 2000
    thresholds = ConformalThresholds.fit(generator.random(num_users), np.zeros(num_users, dtype=np.int64), num_users)
    # A twentieth of the later targets are items that nothing predicted.
    later = np.where(generator.random(2000) < 0.05, 1.0, generator.random(2000))
    low, high = thresholds.chance_range(0.9, len(later))
    assert (later <= thresholds.at(0.9)[0]).mean() < low < 0.9 < high


def test_thresholds_of_an_unknown_number_of_users_have_no_range_and_those_of_too_few_hold_everything() -> None:
    group = np.zeros(4, dtype=np.int64)
    assert ConformalThresholds.fit(np.linspace(0, 1, 4), group).chance_range(0.9) is None
    assert ConformalThresholds.fit(np.linspace(0, 1, 4), group, 4).chance_range(0.9) == (1.0, 1.0)


@pytest.mark.parametrize("coverage", [0.0, 0.905, 1.0, 90.0, float("nan")])
def test_coverage_that_was_not_prepared_is_refused(coverage: float) -> None:
    thresholds = ConformalThresholds.fit(np.linspace(0, 1, 50), np.zeros(50, dtype=np.int64))
    with pytest.raises(InputError, match=r"Allowed: 0\.5 to 0\.99"):
        thresholds.at(coverage)


def test_thresholds_come_back_from_their_record() -> None:
    thresholds = ConformalThresholds.fit(np.linspace(0, 1, 400), np.arange(400) % 3)
    np.testing.assert_allclose(ConformalThresholds.from_json(thresholds.to_json()).mass, thresholds.mass, atol=1e-6)
    with pytest.raises(ValueError, match="shape"):
        ConformalThresholds.from_json([[0.1]])
