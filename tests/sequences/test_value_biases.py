from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.model.some_networks import full_histories
from variseq.sequences.histories import Histories
from variseq.sequences.value_biases import ValueBiases, best_half_life, running_bias


def rated(num_users: int, num_items: int, length: int, noise: float) -> tuple[Histories, np.ndarray, np.ndarray]:
    """Histories with value = 2 + item bias + user bias + noise; and the biases."""
    generator = np.random.default_rng(0)
    items = [generator.permutation(num_items)[:length].tolist() for _ in range(num_users)]
    of_item, of_user = generator.normal(0, 1, num_items), generator.normal(0, 1, num_users)
    histories = Histories.of_items(items)
    mean = 2 + of_item[histories.item] + np.repeat(of_user, length)
    value = mean + noise * generator.normal(size=len(mean))
    return replace(histories, value=value.astype(np.float32)), of_item, of_user


def test_biases_of_items_are_found_whoever_rated_them() -> None:
    histories, of_item, _ = rated(num_users=300, num_items=40, length=20, noise=0.3)
    found = ValueBiases.of(histories, 41)
    np.testing.assert_allclose(found.item[:40] - found.item[:40].mean(), of_item - of_item.mean(), atol=0.1)
    assert found.item[40] == found.count[40] == 0


def test_prior_is_large_where_groups_do_not_differ_and_small_where_only_they_do() -> None:
    generator = np.random.default_rng(0)
    histories = Histories.of_items(generator.integers(30, size=(200, 10)).tolist())
    alike = replace(histories, value=generator.normal(size=2_000).astype(np.float32))
    of_users = replace(histories, value=np.repeat(generator.normal(size=200), 10).astype(np.float32))
    assert ValueBiases.of(alike, 30).user_prior > 20
    assert ValueBiases.of(of_users, 30).user_prior < 0.1


@given(place=st.integers(0, 8), half_life=st.sampled_from([60.0, 1e5, np.inf]))
def test_running_bias_depends_on_nothing_from_the_last_event_on(place: int, half_life: float) -> None:
    histories = full_histories([9])
    changed = replace(histories, value=np.where(np.arange(9) >= place, 7.0, histories.value).astype(np.float32))
    queried = [one.select(np.array([0]), np.array([place + 1])) for one in (histories, changed)]
    before, after = (running_bias(one, one.value.astype(np.float64), half_life, prior=2.0) for one in queried)
    assert before == after


@given(half_life=st.floats(1.0, 1e6), prior=st.floats(0.1, 10.0))
def test_running_bias_is_a_shrunk_weighted_mean_of_known_residuals(half_life: float, prior: float) -> None:
    histories = full_histories([6, 0, 3])
    residual = histories.value.astype(np.float64)
    found = running_bias(histories, residual, half_life, prior)
    for row, (start, end) in enumerate(zip(histories.offsets[:-1], histories.offsets[1:], strict=True)):
        total = mass = 0.0
        for place in range(start, end - 1):
            weight = 0.5 ** ((histories.timestamp[end - 1] - histories.timestamp[place]) / 1e6 / half_life)
            if not np.isnan(residual[place]):
                total, mass = total + weight * residual[place], mass + weight
        assert found[row] == pytest.approx(total / (mass + prior))


def test_half_life_that_makes_the_least_error_is_found() -> None:
    generator = np.random.default_rng(0)
    mood = np.repeat(generator.normal(size=(300, 6)), 5, axis=1).ravel()
    histories = Histories.of_items(generator.integers(5, size=(300, 30)).tolist())
    minutes = replace(histories, timestamp=histories.timestamp * 60, value=mood.astype(np.float32))
    steady = replace(minutes, value=np.repeat(mood[::30], 30).astype(np.float32))
    short, long = (best_half_life(one, ValueBiases.of(one, 5), of_last=False)[0] for one in (minutes, steady))
    assert short <= 300 < 3_600 < long
