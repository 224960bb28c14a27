from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from variseq.errors import InputError
from variseq.model.latent import LatentHead
from variseq.model.network import NetworkConfig
from variseq.training.rate_control import RateController, good_rate, rate_floor, refuse_unreachable_rate
from variseq.training.settings import TrainingConfig


def network(**changes: object) -> NetworkConfig:
    return NetworkConfig(**{"num_items": 5, "latent_width": 64, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize("target", [12.0, 32.0])
def test_target_that_batch_norm_forbids_is_refused_with_what_to_do(target: float) -> None:
    with pytest.raises(InputError, match=rf"target_rate={target:g} can never be met") as caught:
        refuse_unreachable_rate(network(), TrainingConfig(target_rate=target))
    for told in ("model.mean_scale=1", "latent_width=64", "more than 32", "training.target_rate=40"):
        assert told in str(caught.value)


def test_target_below_the_free_nats_is_refused() -> None:
    with pytest.raises(InputError, match=r"training.free_nats=0.5 with .*Set training.target_rate=40, or lower"):
        refuse_unreachable_rate(network(mean_scale=None), TrainingConfig(target_rate=20.0, free_nats=0.5))


@pytest.mark.parametrize(
    ("changes", "training"),
    [
        ({}, {"target_rate": 32.1}),
        ({"mean_scale": None}, {"target_rate": 0.1}),
        ({"mean_scale": 0.5}, {"target_rate": 12.0}),
        ({}, {"target_rate": None}),
        ({}, {"target_rate": 12.0, "deterministic_share": 1.0}),
        ({}, {"target_rate": 12.0, "beta": 0.0}),
    ],
)
def test_target_that_can_be_met_or_steers_nothing_is_let_through(
    changes: dict[str, object], training: dict[str, object]
) -> None:
    refuse_unreachable_rate(network(**changes), TrainingConfig(**training))  # type: ignore[arg-type]


@given(st.integers(2, 64), st.floats(0.1, 3.0), st.integers(0, 99))
def test_no_belief_of_a_batch_has_a_rate_below_the_floor(width: int, scale: float, seed: int) -> None:
    torch.manual_seed(seed)
    with torch.no_grad():
        belief = LatentHead(8, width, scale).train()(10 * torch.randn(50, 8))
        rate = float(belief.kl_to_prior().sum(dim=1).mean())
    assert rate >= 0.99 * rate_floor(width, scale, free_nats=0.0)


@given(st.integers(2, 500), st.none() | st.floats(0.1, 3.0), st.floats(0.0, 1.0))
def test_good_rate_is_never_refused(width: int, scale: float | None, free: float) -> None:
    good = good_rate(width, scale, free)
    refuse_unreachable_rate(
        network(latent_width=width, mean_scale=scale), TrainingConfig(target_rate=good, free_nats=free)
    )


def test_beta_of_a_target_that_cannot_be_met_stops_at_one() -> None:
    controller = RateController(0.01, target_rate=12.0)
    for _ in range(2000):
        controller.observe(32.0)
    assert controller.beta == 1.0
