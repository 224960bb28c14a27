"""Schedules of a run, the controller of β, and targets that it can reach."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from variseq.errors import InputError
from variseq.model.layers import LatentHead
from variseq.model.network import NetworkConfig
from variseq.training.config import TrainingConfig
from variseq.training.schedule import (
    COST_OF_ANOTHER_SAMPLE,
    FINAL_LEARNING_RATE_SHARE,
    adapted_beta,
    good_kl,
    learning_rate,
    min_kl,
    noise_share,
    refuse_unreachable_kl_target,
    seconds_left,
)


def test_learning_rate_rises_to_its_height_and_falls_to_a_share_of_it() -> None:
    config = TrainingConfig(learning_rate=0.01, warmup_steps=10)
    rates = [learning_rate(config, step, 1000) for step in range(1001)]
    assert rates[0] == pytest.approx(0.001, rel=0.01)
    assert rates[:10] == sorted(rates[:10])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert max(rates) == pytest.approx(0.01, rel=0.01)
    assert rates[-1] == pytest.approx(0.01 * FINAL_LEARNING_RATE_SHARE)
    assert learning_rate(config, 1500, 1000) == rates[-1], "beyond the planned steps it stays at its end"


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


@pytest.mark.parametrize("beta", [1e-6, 1e-3, 10.0])
@pytest.mark.parametrize("target", [3.0, 80.0])
def test_controller_brings_a_kl_to_its_target(beta: float, target: float) -> None:
    for _ in range(3000):
        beta = adapted_beta(beta, 0.05 / beta, target)
    assert 0.05 / beta == pytest.approx(target, rel=0.02)


def test_fixed_beta_is_never_moved_and_one_of_a_target_out_of_reach_stops_at_one() -> None:
    assert (adapted_beta(0.5, 1000.0, None), adapted_beta(0.0, 1000.0, 10.0)) == (0.5, 0.0)
    beta = 0.01
    for _ in range(2000):
        beta = adapted_beta(beta, kl=32.0, kl_target=12.0)
    assert beta == 1.0


@pytest.mark.parametrize(
    ("start", "rise", "expected"),
    [
        (0.5, 0.0, {0.0: 0.0, 0.49: 0.0, 0.5: 1.0, 1.0: 1.0}),
        # A deterministic run has none even where progress passes one.
        (1.0, 0.0, {0.0: 0.0, 0.99: 0.0, 1.0: 0.0, 1.01: 0.0}),
        (1.0, 0.1, {0.0: 0.0, 0.99: 0.0, 1.0: 0.0, 1.01: 0.0}),
    ],
)
def test_noise_at_the_ends_of_its_settings(start: float, rise: float, expected: dict[float, float]) -> None:
    config = TrainingConfig(deterministic_fraction=start, kl_anneal_fraction=rise)
    assert {progress: noise_share(config, progress) for progress in expected} == expected


def network(**changes: Any) -> NetworkConfig:
    return NetworkConfig(**{"num_items": 5, "latent_dim": 64, **changes})


@pytest.mark.parametrize("target", [12.0, 32.0])
def test_target_that_the_scale_of_the_mean_forbids_is_refused_with_what_to_do(target: float) -> None:
    with pytest.raises(InputError, match=rf"kl_target={target:g} can never be met") as caught:
        refuse_unreachable_kl_target(network(), TrainingConfig(kl_target=target))
    for text in ("model.mean_scale=1", "latent_dim=64", "more than 32", "training.kl_target=40"):
        assert text in str(caught.value)


def test_target_below_the_free_nats_is_refused() -> None:
    with pytest.raises(InputError, match=r"training.free_nats=0.5 with .*Set training.kl_target=40, or lower"):
        refuse_unreachable_kl_target(network(mean_scale=None), TrainingConfig(kl_target=20.0, free_nats=0.5))


@pytest.mark.parametrize(
    ("changes", "training"),
    [
        ({}, {"kl_target": 32.1}),
        ({"mean_scale": None}, {"kl_target": 0.1}),
        ({"mean_scale": 0.5}, {"kl_target": 12.0}),
        ({}, {"kl_target": None}),
        ({}, {"kl_target": 12.0, "deterministic_fraction": 1.0}),
        ({}, {"kl_target": 12.0, "beta": 0.0}),
    ],
)
def test_target_that_can_be_met_or_has_no_effect_is_allowed(changes: dict[str, Any], training: dict[str, Any]) -> None:
    refuse_unreachable_kl_target(network(**changes), TrainingConfig(**training))


@given(st.integers(2, 64), st.floats(0.1, 3.0), st.integers(0, 99))
def test_no_posterior_of_a_batch_has_a_kl_below_the_floor(hidden_size: int, scale: float, seed: int) -> None:
    torch.manual_seed(seed)
    with torch.no_grad():
        posterior = LatentHead(8, hidden_size, scale).train()(10 * torch.randn(50, 8))
        kl = float(posterior.kl_to_prior().sum(dim=1).mean())
    assert kl >= 0.99 * min_kl(hidden_size, scale, free_nats=0.0)


@given(st.integers(2, 500), st.none() | st.floats(0.1, 3.0), st.floats(0.0, 1.0))
def test_good_kl_is_never_refused(hidden_size: int, scale: float | None, free: float) -> None:
    good = good_kl(hidden_size, scale, free)
    refuse_unreachable_kl_target(
        network(latent_dim=hidden_size, mean_scale=scale), TrainingConfig(kl_target=good, free_nats=free)
    )
