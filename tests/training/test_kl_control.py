from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from variseq.errors import InputError
from variseq.model.latent import LatentHead
from variseq.model.network import NetworkConfig
from variseq.training.kl_control import KlController, good_kl, rate_floor, refuse_unreachable_kl_target
from variseq.training.settings import TrainingConfig


def network(**changes: object) -> NetworkConfig:
    return NetworkConfig(**{"num_items": 5, "latent_dim": 64, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize("target", [12.0, 32.0])
def test_target_that_batch_norm_forbids_is_refused_with_what_to_do(target: float) -> None:
    with pytest.raises(InputError, match=rf"kl_target={target:g} can never be met") as caught:
        refuse_unreachable_kl_target(network(), TrainingConfig(kl_target=target))
    for told in ("model.bn_gamma=1", "latent_dim=64", "more than 32", "training.kl_target=40"):
        assert told in str(caught.value)


def test_target_below_the_free_nats_is_refused() -> None:
    with pytest.raises(InputError, match=r"training.free_nats=0.5 with .*Set training.kl_target=40, or lower"):
        refuse_unreachable_kl_target(network(bn_gamma=None), TrainingConfig(kl_target=20.0, free_nats=0.5))


@pytest.mark.parametrize(
    ("changes", "training"),
    [
        ({}, {"kl_target": 32.1}),
        ({"bn_gamma": None}, {"kl_target": 0.1}),
        ({"bn_gamma": 0.5}, {"kl_target": 12.0}),
        ({}, {"kl_target": None}),
        ({}, {"kl_target": 12.0, "deterministic_fraction": 1.0}),
        ({}, {"kl_target": 12.0, "beta": 0.0}),
    ],
)
def test_target_that_can_be_met_or_steers_nothing_is_let_through(
    changes: dict[str, object], training: dict[str, object]
) -> None:
    refuse_unreachable_kl_target(network(**changes), TrainingConfig(**training))  # type: ignore[arg-type]


@given(st.integers(2, 64), st.floats(0.1, 3.0), st.integers(0, 99))
def test_no_posterior_of_a_batch_has_a_rate_below_the_floor(hidden_size: int, scale: float, seed: int) -> None:
    torch.manual_seed(seed)
    with torch.no_grad():
        posterior = LatentHead(8, hidden_size, scale).train()(10 * torch.randn(50, 8))
        kl = float(posterior.kl_to_prior().sum(dim=1).mean())
    assert kl >= 0.99 * rate_floor(hidden_size, scale, free_nats=0.0)


@given(st.integers(2, 500), st.none() | st.floats(0.1, 3.0), st.floats(0.0, 1.0))
def test_good_rate_is_never_refused(hidden_size: int, scale: float | None, free: float) -> None:
    good = good_kl(hidden_size, scale, free)
    refuse_unreachable_kl_target(
        network(latent_dim=hidden_size, bn_gamma=scale), TrainingConfig(kl_target=good, free_nats=free)
    )


def test_beta_of_a_target_that_cannot_be_met_stops_at_one() -> None:
    controller = KlController(0.01, kl_target=12.0)
    for _ in range(2000):
        controller.observe(32.0)
    assert controller.beta == 1.0
