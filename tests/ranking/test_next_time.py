"""The mixture of the gap to the next event, and what it is computed from."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from variseq.errors import InputError
from variseq.ranking.next_time import GapMixture, gap_moments, own_gaps
from variseq.ranking.when import WhenOptions
from variseq.sequences.histories import Histories

SECOND = 1_000_000


def at_times(*histories: list[int]) -> Histories:
    """Histories of one item, at these seconds."""
    seconds = [one for history in histories for one in history]
    plain = Histories.of_items([[0] * len(history) for history in histories])
    return replace(plain, timestamp=np.array(seconds, dtype=np.int64) * SECOND)


def some_mixture(seed: int, rows: int = 3, components: int = 4) -> GapMixture:
    generator = np.random.default_rng(seed)
    logit, location, log_scale = generator.normal(size=(3, rows, components))
    log_weight = logit - np.logaddexp.reduce(logit, axis=1, keepdims=True)
    return GapMixture(log_weight, 3 + 3 * location, log_scale / 2)


@given(st.integers(0, 1000), st.floats(0, 1e6))
def test_units_of_the_clock_and_the_open_rest_sum_to_one(seed: int, elapsed: float) -> None:
    mixture = some_mixture(seed)
    edges = elapsed + np.concatenate([[0.0], np.logspace(0, 9, 50)])
    log_survival = mixture.log_survival(np.tile(edges, (3, 1)))
    assert (np.diff(log_survival) <= 1e-12).all()
    inside = -np.diff(np.exp(log_survival))
    np.testing.assert_allclose(inside.sum(axis=1) + np.exp(log_survival[:, -1]), np.exp(log_survival[:, 0]))
    np.testing.assert_allclose(mixture.log_survival(np.zeros(3)), 0, atol=1e-12)


@given(st.integers(0, 1000), st.floats(0, 1e5))
def test_quantile_leaves_its_share_of_what_is_still_to_come(seed: int, elapsed: float) -> None:
    mixture, levels = some_mixture(seed), np.array([0.05, 0.5, 0.95])
    seconds = mixture.quantiles(levels, np.full(3, elapsed))
    assert (seconds >= elapsed).all()
    share = np.exp(mixture.log_survival(seconds) - mixture.log_survival(np.full(3, elapsed))[:, None])
    reached = (seconds - elapsed > 1) & (seconds - elapsed < 2.9e9)
    np.testing.assert_allclose(share[reached], np.tile(1 - levels, (3, 1))[reached], atol=1e-3)


@given(st.lists(st.integers(0, 10**6), min_size=2, max_size=12), st.integers(1, 11))
def test_inputs_after_an_event_do_not_depend_on_later_events_or_other_people(gaps: list[int], kept: int) -> None:
    times = np.cumsum([1_600_000_000, *gaps]).tolist()
    kept = min(kept, len(times))
    prior = gap_moments(np.array(gaps, dtype=np.float64), 1.0)
    whole = own_gaps(at_times([5, 9], times, [7]), np.arange(2, 2 + kept), 1.0, prior)
    np.testing.assert_allclose(whole, own_gaps(at_times(times[:kept]), np.arange(kept), 1.0, prior), atol=1e-9)


def test_inputs_are_means_of_the_latest_gaps_shrunk_to_those_of_all() -> None:
    prior = gap_moments(np.array([10.0]), 1.0)
    found = own_gaps(at_times([0, 20, 20, 50]), np.array([3]), 1.0, prior)[0]
    log_gap, of_all = np.log([20, 1, 30]), np.log(10)
    for number, kept in enumerate((1, 2, 3)):
        assert found[number] == pytest.approx((log_gap[-kept:].sum() + 2 * of_all) / (kept + 2))


@pytest.mark.parametrize(
    "wanted", [{"level": 1.0}, {"within": "7d"}, {"within": ["7"]}, {"at": "tomorrow"}, {"at": 9e18}]
)
def test_options_that_are_not_possible_are_refused(wanted: dict[str, object]) -> None:
    with pytest.raises(InputError):
        WhenOptions(**wanted)
