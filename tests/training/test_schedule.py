from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from variseq.training.kl_control import KlController
from variseq.training.schedule import (
    COST_OF_ANOTHER_SAMPLE,
    FINAL_LEARNING_RATE_SHARE,
    learning_rate,
    noise_share,
    seconds_left,
)
from variseq.training.settings import TrainingConfig


def test_learning_rate_rises_to_its_height_and_falls_to_a_share_of_it() -> None:
    config = TrainingConfig(learning_rate=0.01, warmup_steps=10)
    rates = [learning_rate(config, step, 1000) for step in range(1001)]
    assert rates[0] == pytest.approx(0.001, rel=0.01)
    assert rates[:10] == sorted(rates[:10])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert max(rates) == pytest.approx(0.01, rel=0.01)
    assert rates[-1] == pytest.approx(0.01 * FINAL_LEARNING_RATE_SHARE)


def test_learning_rate_beyond_the_planned_steps_stays_at_its_end() -> None:
    config = TrainingConfig(learning_rate=0.01, warmup_steps=0)
    assert learning_rate(config, 150, 100) == learning_rate(config, 100, 100) > 0


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_noise_never_falls_and_stays_between_none_and_all(start: float, rise: float, early: float, late: float) -> None:
    config = TrainingConfig(deterministic_fraction=start, kl_anneal_fraction=rise)
    early, late = sorted((early, late))
    first, second = noise_share(config, early), noise_share(config, late)
    assert 0 <= first <= second <= 1
    if early < start:
        assert first == 0


@given(st.integers(0, 20), st.integers(1, 8), st.integers(0, 9), st.integers(1, 10), st.integers(0, 4))
def test_time_left_is_the_sum_over_all_steps_to_come(
    start: int, num_samples: int, epoch: int, done: int, epochs_later: int
) -> None:
    config = TrainingConfig(max_epochs=10, deterministic_fraction=start / 20, num_samples=num_samples)
    dear = 1 + COST_OF_ANOTHER_SAMPLE * (num_samples - 1)
    # Ten steps an epoch, a second each without noise, which comes between two of them.
    step_seconds = [dear if step >= 5 * start else 1.0 for step in range(100)]
    refit_seconds = 10 * epochs_later * (1.0 if start == 20 else dear)
    here = 10 * epoch + done
    elapsed, ahead = sum(step_seconds[10 * epoch : here]), sum(step_seconds[here:]) + refit_seconds
    assert seconds_left(config, epoch, done / 10, elapsed, epochs_later) == pytest.approx(ahead, abs=1e-6)


def test_noise_without_a_rise_is_off_and_then_on() -> None:
    config = TrainingConfig(deterministic_fraction=0.5, kl_anneal_fraction=0.0)
    assert [noise_share(config, progress) for progress in (0.0, 0.49, 0.5, 1.0)] == [0.0, 0.0, 1.0, 1.0]


@pytest.mark.parametrize("beta", [1e-6, 1e-3, 10.0])
@pytest.mark.parametrize("target", [3.0, 80.0])
def test_controller_brings_a_rate_to_its_target(beta: float, target: float) -> None:
    controller = KlController(beta, target)
    kl = 0.0
    for _ in range(3000):
        kl = 0.05 / controller.beta
        controller.observe(kl)
    assert kl == pytest.approx(target, rel=0.02)
    assert controller.beta == pytest.approx(0.05 / target, rel=0.02)


def test_fixed_beta_is_never_moved() -> None:
    for controller in (KlController(0.5, None), KlController(0.0, 10.0)):
        before = controller.beta
        controller.observe(1000.0)
        assert controller.beta == before


@pytest.mark.parametrize("rise", [0.0, 0.1])
def test_a_twin_has_no_noise_even_where_progress_passes_one(rise: float) -> None:
    config = TrainingConfig(deterministic_fraction=1.0, kl_anneal_fraction=rise)
    assert [noise_share(config, progress) for progress in (0.0, 0.99, 1.0, 1.01)] == [0.0] * 4
